"""Files that appear whole or not at all: written in a folder beside the target, then renamed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from ..errors import OutputError
from .leftovers import PREFIX, hidden_name, sweep
from .lock import locked

__all__ = ["Staging", "check_target", "explained", "staging", "workplace", "write_blocks"]


@dataclass(frozen=True)
class Staging:
    """A private folder on the target's file system.

    Attributes:
        folder: Where to write; files keep the names that they will have.
        target: Folder that `commit` moves them to.
        alone: Whether no other run can write the same target now.
        flushes: Files on their way to the disk.
        failures: What went wrong on the way.
    """

    folder: Path
    target: Path
    alone: bool = True
    flushes: list[Thread] = field(default_factory=list)
    failures: list[OSError] = field(default_factory=list)

    def write(self, name: str, blocks: Iterable[memoryview]) -> int:
        """Write a file from its bytes, block by block, and give back its size.

        The disk takes it in the background, while the caller checks what was written.
        """
        path = self.folder / name
        size = write_blocks(path, blocks)
        thread = Thread(target=self._flush, args=(path,), daemon=True)
        thread.start()
        self.flushes.append(thread)
        return size

    def _flush(self, path: Path) -> None:
        """Start a file's way to the disk; systems report what fails there once only."""
        try:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        except FileNotFoundError:
            pass  # it was renamed meanwhile: `commit` does it
        except OSError as error:
            self.failures.append(error)

    def commit(self, names: list[str]) -> None:
        """Flush the named files to the disk and move them to the target, in this order.

        The file that refers to the others comes last: until it is renamed, an old set is whole.
        """
        for thread in self.flushes:
            thread.join()
        if self.failures:
            raise self.failures[0]
        for name in names:
            with (self.folder / name).open("rb+") as file:
                os.fsync(file.fileno())
            with suppress(OSError):  # a replaced file keeps its rights, where they can be kept
                shutil.copymode(self.target / name, self.folder / name)
        for name in names:
            os.replace(self.folder / name, self.target / name)
            _sync_folder(self.target)


def write_blocks(path: Path, blocks: Iterable[memoryview]) -> int:
    """Write a file from its bytes, block by block, and give back its size."""
    size = 0
    # Unbuffered: blocks are large, and buffering would copy and misalign each of them.
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            size += len(block)
            while block:
                block = block[file.write(block) :]
    return size


@contextmanager
def staging(output: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[Staging]:
    """A `workplace` whose errors are explained; raises OutputError."""
    with explained(output), workplace(output, waiting=waiting) as stage:
        yield stage


@contextmanager
def workplace(output: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[Staging]:
    """A folder beside `output` that is gone afterwards, for one run at a time.

    Args:
        output: The file to write.
        waiting: Called once before another run that writes the same file is waited for.

    Raises:
        OSError: It cannot be made.
    """
    hidden = hidden_name(output)
    with locked(output.with_name(f"{hidden}.onnxprune.lock"), waiting=waiting) as alone:
        if alone:
            sweep(output)
        folder = Path(tempfile.mkdtemp(prefix=hidden + PREFIX, dir=output.parent))
        stage = Staging(folder, output.parent, alone)
        try:
            yield stage
        finally:
            for thread in stage.flushes:  # none may be left that opens a file in the folder
                thread.join()
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explained(output: Path) -> Iterator[None]:
    """Turn the operating system's errors while writing `output` into an OutputError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write '{output}' ({reason}); nothing was changed there: "
            "check the folder, its rights and the space left, or choose another with -o"
        ) from error


def check_target(output: Path, *, overwrite: bool, inputs: tuple[Path, ...]) -> Path:
    """The file to write, links resolved; raises OutputError where writing it would do harm.

    Args:
        output: The path that the user named.
        overwrite: Whether an existing file may be replaced.
        inputs: Files that must stay as they are.
    """
    if "\0" in str(output):
        raise OutputError(f"{str(output)!r} is no path; name the file to write with -o")
    if not output.name or output.is_dir():
        raise OutputError(f"'{output}' is a folder; name the file to write with -o")
    for path in inputs:
        if output.exists() and output.samefile(path):
            raise OutputError(
                f"'{output}' is an input file, which is never changed; name another file with -o"
            )
    if not output.parent.is_dir():
        raise OutputError(
            f"the folder '{output.parent}' does not exist; make it, or choose another with -o"
        )
    if output.exists() and not stat.S_ISREG(output.stat().st_mode):
        raise OutputError(f"'{output}' is not a regular file; name another file with -o")
    if output.exists() and not overwrite:
        raise OutputError(f"'{output}' exists; add --overwrite, or choose another name with -o")
    if output.exists():
        with explained(output):  # a file that may not be written to is not replaced either
            os.close(os.open(output, os.O_WRONLY))
    return Path(os.path.realpath(output)) if output.is_symlink() else output


def _sync_folder(folder: Path) -> None:
    """Make the renames last; a no-op where folders can't be opened (Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
