"""A forked process that runs cases, one JSON line each; it may die, and nobody else with it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from tests.fuzzing.drive import MEMORY, drive

__all__ = ["start"]

#: Address space above what a worker starts with: an array that needs more fails instead of filling
#: the machine.
ROOM = 3 * MEMORY


def start(numbers: Iterable[int], folder: Path) -> tuple[int, int]:
    """Fork a process that runs these cases in `folder`.

    Returns:
        Its number, and a pipe that says ``>N`` before a case and gives its outcome after it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        os.close(reading)
        _run(numbers, folder, writing)
        code = 0
    finally:
        os._exit(code)


def _run(numbers: Iterable[int], folder: Path, writing: int) -> None:
    """Run the cases; what C++ code prints goes to a file and is a problem of its case."""
    noise = os.open(folder.with_suffix(".noise"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        os.write(writing, f">{number}\n".encode())
        os.ftruncate(noise, 0)
        os.lseek(noise, 0, os.SEEK_SET)
        outcome = drive(number, folder)
        length = os.lseek(noise, 0, os.SEEK_END)
        if length:
            text = os.pread(noise, 300, 0).decode(errors="replace")
            outcome.problems.append(("noise", " ".join(text.split())[:200]))
        os.write(writing, f"{outcome.as_json()}\n".encode())
