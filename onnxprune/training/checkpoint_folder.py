"""The folder of a training's checkpoints: the last one, the one before, and one training at a time.

A checkpoint is written beside its place and renamed; the one that was there becomes the previous
one first. At every moment one of the two is whole, and a damaged one is told by its checksum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeAlias

import numpy as np

from ..errors import DataError, OutputError, UsageError
from ..model.lock import Locked, locked
from .tensor_file import STAGED, read_tensors, write_tensors

__all__ = [
    "FILE",
    "PREVIOUS",
    "Found",
    "check_folder",
    "held",
    "read_last",
    "refuse_old",
    "write_next",
]

FILE = "state.safetensors"
PREVIOUS = "previous.safetensors"
LOCK = "onnxprune.lock"

Arrays: TypeAlias = Mapping[str, np.ndarray]
Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The checkpoint to go on from.

    Attributes:
        arrays: Its arrays by name.
        facts: What else it holds.
        lost: Why it is not the last one; empty where it is.
    """

    arrays: Arrays
    facts: Facts
    lost: str = ""


@contextmanager
def held(folder: Path | None, *, make: bool = True) -> Iterator[None]:
    """Keep other trainings out of a checkpoint folder, and clear away what killed ones left.

    The folder is made where it is missing, and goes again where it stays empty.

    Args:
        folder: The folder; None where no checkpoints are wanted.
        make: Whether to make it; else nothing is done where it is missing.

    Raises:
        OutputError: It cannot be made or written to, before hours of work.
        UsageError: Another training has it.
    """
    if folder is None or not (make or folder.is_dir()):
        yield
        return
    check_folder(folder)
    try:
        with _locked(folder) as alone:
            if alone:
                _sweep(folder)
            yield
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    with ExitStack() as stack:
        try:
            alone = stack.enter_context(locked(folder / LOCK, wait=False))
        except Locked:
            raise UsageError(
                f"another training keeps its checkpoints in '{folder}' now: wait for its end, or"
                " name another folder"
            ) from None
        except OSError as error:
            raise _unusable(folder, error) from None
        yield alone


def _sweep(folder: Path) -> None:
    """Remove checkpoints that were being written when their process was killed."""
    for name in (FILE, PREVIOUS):
        for path in folder.glob(f".{name}.*{STAGED}"):
            with suppress(OSError):
                path.unlink()


def check_folder(folder: Path) -> None:
    """Refuse a folder that takes no checkpoint before hours of work; made where it is missing.

    Raises:
        OutputError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot keep checkpoints in '{folder}' ({error.strerror or error}); give --checkpoint "
        "a folder that can be written to"
    )


def refuse_old(folder: Path) -> None:
    """Refuse to start anew in a folder that holds a checkpoint: it may be hours of work.

    Raises:
        UsageError: It holds one.
    """
    if any((folder / name).exists() for name in (FILE, PREVIOUS)):
        raise UsageError(
            f"'{folder}' holds the checkpoint of a training: go on with it by --resume, or remove "
            "it or name another folder to start anew"
        )


def write_next(folder: Path, arrays: Arrays, facts: Facts) -> None:
    """Make this the last checkpoint, and the last one the previous one; raises OutputError."""
    write_tensors(folder / FILE, arrays, facts, previous=folder / PREVIOUS)


def read_last(folder: Path, check: Callable[[Facts], None]) -> Found:
    """The last whole checkpoint of a folder.

    Where that is not the last one written, it takes its place.

    Args:
        folder: The folder.
        check: Raises where the facts are of another training.

    Raises:
        DataError: There is none, or none is whole.
    """
    last, previous = folder / FILE, folder / PREVIOUS
    try:
        arrays, facts = read_tensors(last)
    except DataError as error:
        if not previous.is_file():
            raise
        lost = str(error).split(";")[0] if last.is_file() else f"there is no file '{last}'"
    else:
        check(facts)
        return Found(arrays, facts)
    arrays, facts = read_tensors(previous)
    check(facts)
    with suppress(OSError):
        os.replace(previous, last)
    return Found(arrays, facts, lost)
