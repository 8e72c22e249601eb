"""SIGKILL while a model is written over an old one: which of the two is there, and what else.

``python -m tests.reliability.writing --kills 200`` kills at random moments, shared out over all
forms of output, then before every single change in the output's folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from onnxprune.cli import main as command
from tests.builders import chain, saved
from tests.reliability.forked import (
    digest,
    killed_after,
    kills_at_every_change,
    moments,
    ran,
    timed,
)

QUALITIES = ("1.5", "1.0", "0.5")
#: Whether the input, and so the output, has a data file; the format; whether outputs are run.
FORMS = {
    "one file, dense": (False, "dense", False),
    "one file, sparse": (False, "sparse", True),
    "one file, gaps": (False, "gaps", False),
    "with data file, dense": (True, "dense", False),
    "with data file, sparse": (True, "sparse", False),
}


@dataclass
class Count:
    """What was there after so many kills.

    Attributes:
        kills: Processes that were killed before they ended.
        changed: Kills after which another model was there than before.
        leftovers: Kills that left a staging folder, a lock or an unused data file.
    """

    kills: int = 0
    changed: int = 0
    leftovers: int = 0


class Target:
    """One output that is written over and over, and what may be found there."""

    def __init__(self, folder: Path, form: str) -> None:
        external, kind, check = FORMS[form]
        folder.mkdir()
        source = saved(chain(), folder / "in.onnx", external=external)
        self.folder = folder / "out"
        self.folder.mkdir()
        self.path = self.folder / "out.onnx"
        self.arguments = [str(source), "-o", str(self.path), "--format", kind, "--no-shrink"]
        self.arguments += ["--overwrite", "--quiet", *([] if check else ["--no-check"])]
        self.seconds, self.possible = 0.0, set()
        for quality in QUALITIES:
            self.seconds = timed(self.at(quality))
            self.possible.add(digest(self.path))
        assert len(self.possible) == len(QUALITIES)

    def at(self, quality: str) -> list[str]:
        return [*self.arguments, "-q", quality]

    def forever(self) -> int:
        """Write without end."""
        for quality in itertools.cycle(QUALITIES):
            assert command(self.at(quality)) == 0
        return 0

    def used(self) -> set[str]:
        """Names of the model and of the data files that it refers to."""
        tensors = onnx.load(self.path, load_external_data=False).graph.initializer
        entries = (entry for tensor in tensors for entry in tensor.external_data)
        return {"out.onnx", *(entry.value for entry in entries if entry.key == "location")}

    def check(self, count: Count, before: int) -> int:
        """The digest of what is there now, which must be one of those that were written."""
        now = digest(self.path)
        assert now in self.possible, "neither the old model nor the new one"
        others = {path.name for path in self.folder.iterdir()} - self.used()
        for name in others:
            known = name.startswith(".out.onnx.onnxprune") or name.endswith(".data")
            assert known, f"left behind under a strange name: {name}"
        count.kills += 1
        count.changed += now != before
        count.leftovers += bool(others)
        return now

    def check_clean(self) -> None:
        """The next run works, and nothing else is there after it."""
        assert ran(self.at("1.0")) == 0
        assert digest(self.path) in self.possible
        assert {path.name for path in self.folder.iterdir()} == self.used()


def at_random(target: Target, kills: int, seed: int) -> Count:
    """Kill at random moments within two writings."""
    count, now = Count(), digest(target.path)
    for seconds in moments(kills, 2 * target.seconds, seed):
        killed_after(seconds, target.forever)
        now = target.check(count, now)
        if count.kills % 10 == 0:
            target.check_clean()
    target.check_clean()
    return count


def at_every_change(target: Target, seed: int) -> Count:
    """Kill before every change that a run makes in the folder, over an old model and data."""
    count = Count()
    assert ran(target.at("1.0")) == 0
    now = digest(target.path)
    for _ in kills_at_every_change(target.folder, target.at("0.5")):
        now = target.check(count, now)
        target.check_clean()
        now = digest(target.path)
    target.check_clean()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at random moments, in all")
    parser.add_argument("--only", choices=sorted(FORMS))
    given = parser.parse_args()
    forms = [given.only] if given.only else list(FORMS)
    ways: dict[str, Callable[[Target, int], Count]] = {
        "random moments": lambda target, seed: at_random(
            target, -(-given.kills // len(forms)), seed
        ),
        "every change": at_every_change,
    }
    with tempfile.TemporaryDirectory() as folder:
        for seed, form in enumerate(forms):
            target = Target(Path(folder) / str(seed), form)
            for way, run in ways.items():
                count = run(target, seed)
                print(json.dumps({"form": form, "way": way, **asdict(count)}), flush=True)


if __name__ == "__main__":
    main()
