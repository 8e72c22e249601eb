"""Short versions of the long runs in this folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, signals, mounts")
ROOT = Path(__file__).resolve().parent.parent.parent


def lines(module: str, *arguments: str) -> list[dict[str, object]]:
    """What a run prints; it must succeed. A process of its own: it forks, so it has one thread."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.reliability.{module}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@linux
@pytest.mark.slow
def test_killed_while_writing() -> None:
    random, every = lines("writing", "--kills", "3", "--only", "with data file, dense")
    assert random["kills"] == 3
    assert isinstance(every["kills"], int) and every["kills"] >= 15
    assert every["changed"]


@linux
@pytest.mark.slow
def test_killed_while_training() -> None:
    (random,) = lines("training", "--kills", "5")
    assert random["kills"] == 5 and random["trainings"]


@linux
@pytest.mark.slow
def test_two_at_once() -> None:
    (count,) = lines("together", "--rounds", "3")
    assert (count["rounds"], count["orphans"]) == (3, 0)
    (count,) = lines("together", "--rounds", "3", "--no-locks")
    assert count["rounds"] == 3
