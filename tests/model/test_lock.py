"""One run at a time at a place, whatever happens to its owner."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from onnxprune.model import lock
from onnxprune.model.lock import Locked, locked

fcntl = pytest.importorskip("fcntl")

OWNER = """
import sys, time
from pathlib import Path
from onnxprune.model.lock import locked
with locked(Path(sys.argv[1])) as held:
    print(held, flush=True)
    time.sleep(60)
"""


def test_held_once_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as held:
        assert held
        with pytest.raises(Locked), locked(path, wait=False):
            pass
    assert not path.exists()
    with locked(path, wait=False) as held:
        assert held


def test_a_killed_owner_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdout.readline() == "True\n"
    with pytest.raises(Locked), locked(path, wait=False):
        pass
    owner.kill()
    owner.communicate()
    assert path.exists()
    with locked(path, wait=False) as held:
        assert held
    assert not path.exists()


def test_many_take_turns(tmp_path: Path) -> None:
    """Each reads, waits and writes a number: without turns some of the sums would be lost."""
    path, number, told = tmp_path / "lock", tmp_path / "n", []
    number.write_text("0")

    def add() -> None:
        for _ in range(20):
            with locked(path, waiting=lambda: told.append(1)):
                value = int(number.read_text())
                os.sched_yield()
                number.write_text(str(value + 1))

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number.read_text() == "160"
    assert told
    assert not path.exists()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(descriptor: int, *, wait: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", none)
    with locked(tmp_path / "lock") as held:
        assert not held
        assert not (tmp_path / "lock").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
