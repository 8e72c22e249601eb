"""Stopping at a signal between two steps, with everything in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from ..stopping import ENDING, stop

__all__ = ["Interruption"]


class Interruption:
    """While it is entered, the first Ctrl-C only sets `asked`; a second one is as usual.

    The same goes for signals that ask the command to end (`onnxprune.stopping`). Outside the main
    thread, where Python delivers no signals, it does nothing; neither does it where Ctrl-C is
    ignored, as in the background jobs of a script.

    Attributes:
        asked: Number of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _taken():
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: a handler that Python did not install and cannot put back.
            signal.signal(number, handler or signal.default_int_handler)


def _taken() -> Iterator[int]:
    """Ctrl-C unless it is ignored, and what the command has made an exception of."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield signal.SIGINT
    yield from (number for number in ENDING if signal.getsignal(number) is stop)
