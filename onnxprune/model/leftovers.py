"""What a killed process leaves beside its target, and how the next run with it clears that away.

A run writes into a folder named ``.TARGET.onnxprune-XXXXXXXX`` while it holds the lock of its
target. Whoever holds the lock therefore knows that every other such folder has no owner. A killed
run may also have moved a data file out of its folder that no model refers to, or not have removed
the one before: what it was about to move and remove is recorded in its folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import ModelError

__all__ = ["PREFIX", "hidden_name", "record", "sweep"]

#: What follows the target's name in that of a staging folder.
PREFIX = ".onnxprune-"
#: Bytes of a target's name in that of a staging folder; file systems take 255.
LONGEST = 150
#: Characters that `tempfile` adds.
RANDOM = 8
RECORD = "commit.json"


def hidden_name(target: Path) -> str:
    """What the names of everything that a run makes beside its target start with."""
    name = target.name
    if len(os.fsencode(name)) > LONGEST:
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
        name = f"{name[: LONGEST // 6]}-{digest}"
    return f".{name}"


def record(folder: Path, data: Iterable[Path]) -> None:
    """Note data files that a commit moves or removes: those that nothing refers to may go.

    Args:
        folder: The staging folder.
        data: Data files in it or beside the target, as they are before the commit.
    """
    facts = {}
    for path in data:
        with suppress(FileNotFoundError):  # without locks, another run may have removed it
            facts[path.name] = _identity(path)
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        json.dump(facts, file)
        file.flush()
        os.fsync(file.fileno())


def _identity(path: Path) -> list[int]:
    """What tells a file from another one of its name; a rename leaves it."""
    facts = path.stat()
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns]


def sweep(target: Path) -> None:
    """Remove what killed runs left of this target; the caller holds its lock."""
    for folder in _folders(target):
        with suppress(OSError):
            for path in _unused(target, _recorded(folder)):
                path.unlink()
        shutil.rmtree(folder, ignore_errors=True)


def _folders(target: Path) -> list[Path]:
    start = hidden_name(target) + PREFIX
    with os.scandir(target.parent) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(start)
            and len(entry.name) == len(start) + RANDOM
            and entry.is_dir(follow_symlinks=False)
        ]


def _recorded(folder: Path) -> dict[str, list[int]]:
    """Names and identities of the record; none where there is none, or half of one."""
    try:
        facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _unused(target: Path, recorded: dict[str, list[int]]) -> Iterator[Path]:
    """Recorded files that are still the same and that the model at `target` does not refer to."""
    if not recorded:
        return
    from .load import load  # what writes texts alone does without

    try:
        used = {path.name for path in load(target).origin.data_files} if target.exists() else set()
    except ModelError:
        return  # somebody else's file is there now: what it needs is not known
    for name, identity in recorded.items():
        path = target.with_name(name)
        ours = name.startswith(f"{target.name}.") and name.endswith(".data")
        if ours and name not in used and path.is_file() and _identity(path) == identity:
            yield path
