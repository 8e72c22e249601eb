"""SIGKILL while a model is trained with checkpoints, then --resume: is it the training it was?

``python -m tests.reliability.training --kills 200`` kills at random moments, each training as often
as its moments come; ``--every`` kills before every change of files as well. A training that has
come to its end must have written the bytes of one that nobody killed.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from onnxprune.cli import main as command
from onnxprune.training.checkpoint_folder import FILE, PREVIOUS
from onnxprune.training.tensor_file import read_tensors
from tests.builders import mlp, saved
from tests.reliability.forked import ended, forked, killed_after, kills_at_every_change

SIZES = (16, 24, 4)
SAMPLES, EPOCHS, ROUNDS = 256, 6, 2


@dataclass
class Count:
    """What became of trainings.

    Attributes:
        kills: Processes that were killed.
        resumed: Kills after which there was a checkpoint to go on from.
        trainings: Trainings that came to their end with the right bytes.
    """

    kills: int = 0
    resumed: int = 0
    trainings: int = 0


class Trained:
    """A training that is run again and again."""

    def __init__(self, folder: Path) -> None:
        random_ = np.random.default_rng(0)
        samples = random_.standard_normal((SAMPLES, SIZES[0])).astype(np.float32)
        np.savez(folder / "train.npz", x=samples, labels=random_.integers(0, SIZES[-1], SAMPLES))
        self.source = saved(mlp(SIZES), folder / "in.onnx")
        self.data, self.checkpoints = folder / "train.npz", folder / "kept"
        self.target, self.seconds = folder / "out.onnx", 0.0
        started = time.monotonic()
        assert ended(forked(self.run)) == 0
        self.seconds = time.monotonic() - started
        self.expected = self.target.read_bytes()
        self.clear()

    def arguments(self) -> list[str]:
        """The command: a new training, or the rest of one."""
        given = [str(self.source), "-o", str(self.target), "--train", str(self.data), "--quiet"]
        given += ["--epochs", str(EPOCHS), "--rounds", str(ROUNDS), "--batch-size", "32"]
        given += ["--checkpoint", str(self.checkpoints), "--sparsity", "0.7", "--overwrite"]
        return [*given, "--resume"] if self.has_checkpoint() else given

    def run(self) -> int:
        return command(self.arguments())

    def has_checkpoint(self) -> bool:
        return any((self.checkpoints / name).is_file() for name in (FILE, PREVIOUS))

    def check(self, count: Count, had: bool) -> None:
        """After a kill: what was kept before is kept, whole, and no strange model is there."""
        count.kills += 1
        assert self.has_checkpoint() or not had, "a checkpoint was lost"
        count.resumed += self.has_checkpoint()
        for name in (FILE, PREVIOUS):
            if (self.checkpoints / name).is_file():
                read_tensors(self.checkpoints / name)
        if self.target.exists():
            assert self.target.read_bytes() == self.expected

    def finish(self, count: Count) -> None:
        """Let it come to its end, and compare what it has written."""
        assert ended(forked(self.run)) == 0
        assert self.target.read_bytes() == self.expected, "another result than unkilled"
        left = {path.name for path in self.checkpoints.iterdir()}
        assert left <= {FILE, PREVIOUS}, left
        count.trainings += 1
        self.clear()

    def clear(self) -> None:
        """Forget the training."""
        for name in (FILE, PREVIOUS):
            (self.checkpoints / name).unlink(missing_ok=True)
        self.target.unlink(missing_ok=True)


def at_random(trained: Trained, kills: int, seed: int = 0) -> Count:
    """Kill at random moments, and start or go on, until there were so many kills."""
    chance, count = random.Random(seed), Count()
    while count.kills < kills:
        had = trained.has_checkpoint()
        if killed_after(chance.random() * trained.seconds, trained.run):
            trained.check(count, had)
        else:
            trained.finish(count)
    trained.finish(count)
    return count


def at_every_change(trained: Trained) -> Count:
    """Kill one training before every change of files that it makes, each time anew."""
    count = Count()
    for _ in kills_at_every_change(trained.checkpoints, trained.arguments()):
        trained.check(count, had=False)
        trained.finish(count)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--every", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trained = Trained(Path(folder))
        print(json.dumps({"way": "random moments", **asdict(at_random(trained, given.kills))}))
        if given.every:
            print(json.dumps({"way": "every change", **asdict(at_every_change(trained))}))


if __name__ == "__main__":
    main()
