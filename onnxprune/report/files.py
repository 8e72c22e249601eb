"""Text files of a command: refused before any work where they cannot go, written whole or not."""

from __future__ import annotations

import stat
from pathlib import Path

from ..errors import OutputError
from ..model.staging import workplace

__all__ = ["check_target", "write_text"]


def check_target(path: Path, what: str, *, overwrite: bool, inputs: tuple[Path, ...]) -> None:
    """Refuse a place where a file cannot go, before any work is done.

    Args:
        path: The place.
        what: What messages call the file, such as ``the JSON report``.
        overwrite: Whether a file that exists may be replaced.
        inputs: Files that are never replaced.

    Raises:
        OutputError: It is a folder, its folder is missing, it exists, or it is an input.
    """
    shown = repr(str(path))
    if path.is_dir():
        raise OutputError(f"{what} {shown} is a folder: give the name of a file in it")
    if any(_same_file(path, other) for other in inputs):
        raise OutputError(f"{what} would replace the input {shown}: give another name")
    if not path.parent.is_dir():
        raise OutputError(
            f"{what} cannot be written to {shown}: the folder {str(path.parent)!r} does not exist"
        )
    if path.is_file() and not overwrite:
        raise OutputError(f"{what} {shown} exists: give another name, or --overwrite to replace it")


def write_text(text: str, path: Path, what: str) -> None:
    """Write a text beside its target and move it there; raises OutputError where that fails.

    A target that is no regular file, such as a pipe or a device, is written to as it is.
    """
    try:
        target = path.resolve()
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_text(text, encoding="utf-8")
        else:
            with workplace(target) as stage:
                path_there = stage.folder / target.name
                path_there.write_text(text, encoding="utf-8", newline="\n")
                stage.commit([target.name])
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{what} cannot be written to {str(path)!r}: {reason}") from error


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()
