"""Several runs on one output at once: afterwards one of their models is there, with its own data.

``python -m tests.reliability.together --rounds 100`` starts two runs at a time; ``--no-locks`` does
so as on a file system that has none.
"""

from __future__ import annotations

import argparse
import errno
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from onnxprune.cli import main as command
from onnxprune.model import lock
from tests.reliability.forked import digest, ended, forked
from tests.reliability.writing import QUALITIES, Target


@dataclass
class Count:
    """Rounds, and how often data files of no model were left (never with locks)."""

    rounds: int = 0
    orphans: int = 0


def without_locks(arguments: list[str]) -> int:
    """The command where the file system has no locks."""

    def none(descriptor: int, *, wait: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    lock._lock = none
    return command(arguments)


def together(target: Target, rounds: int, *, locks: bool = True) -> Count:
    """Start two runs at once, wait for both, and look what is there."""
    count, run = Count(), command if locks else without_locks
    for number in range(rounds):
        one, other = QUALITIES[number % 3], QUALITIES[(number + 1) % 3]
        children = [forked(lambda q=q: run(target.at(q))) for q in (one, other)]  # type: ignore[misc]
        assert [ended(child) for child in children] == [0, 0]
        assert digest(target.path) in target.possible, "a model with the data of another"
        others = {path.name for path in target.folder.iterdir()} - target.used()
        assert not (locks and others), others
        count.rounds += 1
        count.orphans += len(others)
        for name in others:
            (target.folder / name).unlink()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--no-locks", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(Path(folder) / "t", "with data file, dense")
        count = together(target, given.rounds, locks=not given.no_locks)
        print(json.dumps({"locks": not given.no_locks, **asdict(count)}))


if __name__ == "__main__":
    main()
