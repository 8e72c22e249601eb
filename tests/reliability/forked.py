"""The command in forked children that can be killed: at any moment, or before any change of files.

The parent imports what the command needs and starts no thread, so that a fork is cheap and safe.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import onnx
import onnxruntime  # noqa: F401

import onnxprune.api  # noqa: F401
from onnxprune.cli import main

#: Everything that changes what is in a folder raises one of these audit events first.
CHANGES = frozenset(
    ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate")
)


def forked(work: Callable[[], int]) -> int:
    """Process number of a child that does some work, silently, and exits with its result."""
    child = os.fork()
    if child:
        return child
    code = 99
    with suppress(BaseException):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        code = work()
    os._exit(code)


def ended(child: int) -> int:
    """How a child ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ran(arguments: list[str]) -> int:
    """Exit code of the command in a child."""
    return ended(forked(lambda: main(arguments)))


def killed_after(seconds: float, work: Callable[[], int]) -> bool:
    """Whether the work was still going on after this time, and was killed."""
    child = forked(work)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    code = ended(child)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def kills_at_every_change(folder: Path, arguments: list[str]) -> Iterator[int]:
    """Run the command again and again, killed before the 1st, 2nd, ... change in a folder.

    Yields:
        The number of the change, after each kill; nothing more once the command ends by itself.
    """
    for number in itertools.count(1):
        code = ended(forked(partial(_killed_at, number, folder, arguments)))
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        yield number


def _killed_at(number: int, folder: Path, arguments: list[str]) -> int:
    left, inside = number, os.path.realpath(folder)

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal left
        if event not in CHANGES or not _within(inside, given):
            return
        if event == "open" and not _writes(given):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return main(arguments)


def _within(folder: str, given: tuple[object, ...]) -> bool:
    return any(
        os.path.abspath(os.fspath(item)).startswith(folder)
        for item in given
        if isinstance(item, (str, os.PathLike))
    )


def _writes(given: tuple[object, ...]) -> bool:
    flags = given[2] if len(given) > 2 else 0
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def timed(arguments: list[str]) -> float:
    """Seconds that the command takes."""
    started = time.monotonic()
    assert ran(arguments) == 0
    return time.monotonic() - started


def digest(path: Path) -> int:
    """A hash over a model that the checker takes and that loads with all its data."""
    onnx.checker.check_model(str(path))
    return hash(onnx.load(path).SerializeToString(deterministic=True))


def moments(count: int, seconds: float, seed: int) -> Iterator[float]:
    """Random moments within so many seconds."""
    chance = random.Random(seed)
    for _ in range(count):
        yield chance.random() * seconds
