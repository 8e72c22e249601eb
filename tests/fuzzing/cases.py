"""A case: which seed is mutated how, and which command it goes through; all from its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto

from tests.fuzzing.commands import COMMANDS, Command
from tests.fuzzing.mutators.files import externalise, write_samples
from tests.fuzzing.mutators.generic import GENERIC
from tests.fuzzing.mutators.graphs import GRAPHS
from tests.fuzzing.mutators.structures import STRUCTURES
from tests.fuzzing.mutators.tensors import TENSORS
from tests.fuzzing.mutators.wire import BYTES
from tests.fuzzing.seeds import Seed, seeds

__all__ = ["EXTERNAL", "MUTATORS", "Case", "case", "write_case"]

#: Every mutation of a message; those of bytes and files come after them.
MUTATORS: dict[str, Callable[[Random, ModelProto], None]] = {
    **GENERIC,
    **GRAPHS,
    **TENSORS,
    **STRUCTURES,
}
EXTERNAL = "files: external data"
SAMPLES = "files: samples"


@dataclass(frozen=True)
class Case:
    """One mutated input and its command.

    Attributes:
        number: What it is made from.
        seed: The model to start from.
        mutations: Names of what is changed, in order.
        command: What is done with it.
    """

    number: int
    seed: Seed
    mutations: tuple[str, ...]
    command: Command

    @property
    def label(self) -> str:
        return (
            f"{self.number}: {self.seed.name} | {', '.join(self.mutations)} | {self.command.line}"
        )


@cache
def _groups(corpus: bool) -> tuple[tuple[Seed, ...], tuple[Seed, ...], tuple[Seed, ...]]:
    """Seeds by where they come from: made, of the onnx package, real."""
    every = seeds(corpus)
    backend = tuple(seed for seed in every if seed.name.startswith("backend/"))
    real = tuple(seed for seed in every if seed.name.startswith("real/"))
    rest = tuple(seed for seed in every if not seed.name.startswith(("backend/", "real/")))
    return rest, backend or rest, real or rest


def case(number: int, corpus: bool = True) -> Case:
    """The case of a number; the same in every process."""
    random = Random(f"case {number}")
    group = random.choices(_groups(corpus), (62, 34, 4))[0]
    seed = random.choice(group)
    command = random.choices(COMMANDS, [command.weight for command in COMMANDS])[0]
    if command.samples and not seed.arrays:
        command = COMMANDS[0]
    names: list[str] = []
    kind = random.random()
    if kind < 0.12:
        names = random.choices(list(BYTES), k=random.choice((1, 1, 2)))
    else:
        frequency = [0.4 if name.startswith("structure") else 1.0 for name in MUTATORS]
        names = random.choices(list(MUTATORS), frequency, k=random.choice((1, 1, 1, 2, 2, 3)))
        if random.random() < 0.12:
            names.append(EXTERNAL)
        if random.random() < 0.03:
            names.append(random.choice(list(BYTES)))
    if command.samples and random.random() < 0.4:
        # Samples are at fault alone, mostly: behind a broken model nobody reads them.
        names = [SAMPLES] if random.random() < 0.8 else [*names, SAMPLES]
    return Case(number, seed, tuple(names), command)


def write_case(given: Case, folder: Path) -> dict[str, bytes]:
    """Write a case's files into `folder` and give back the model's bytes by file name."""
    random = Random(f"content {given.number}")
    model = given.seed.model
    for name in given.mutations:
        if name in MUTATORS:
            with suppress(DecodeError, EncodeError, TypeError, ValueError):
                # A value that protobuf itself does not take changes nothing.
                MUTATORS[name](random, model)
        elif name == EXTERNAL:
            externalise(random, model, folder)
    data = bytearray(model.SerializeToString())
    _change_bytes(random, data, given.mutations)
    (folder / "m.onnx").write_bytes(data)
    if "s.onnx" in given.command.line:
        (folder / "s.onnx").write_bytes(given.seed.data)
    if given.command.samples:
        write_samples(random, given.seed.arrays, folder, hostile=SAMPLES in given.mutations)
    return {path.name: path.read_bytes() for path in folder.iterdir() if _is_plain(path)}


def _change_bytes(random: Random, data: bytearray, names: Sequence[str]) -> None:
    for name in names:
        if name in BYTES and data:
            BYTES[name](random, data)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
