"""Signals that ask a program to end: an exception, so that what was begun is cleared away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ENDING", "Stopped", "exit_code", "stop", "stoppable"]

#: What schedulers, `kill` and closed terminals send; Windows has not all of them.
ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end; like Ctrl-C it passes through `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def exit_code(number: int) -> int:
    """The exit code of a program that a signal ended, as shells count."""
    return 128 + number


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising `Stopped`."""
    raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals of `ENDING` raise `Stopped`, where they would end the process.

    A signal that is ignored, as under nohup, or that somebody handles, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
