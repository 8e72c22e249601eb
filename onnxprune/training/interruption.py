"""Stopping at Ctrl-C between two steps, with everything in order."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interruption"]


class Interruption:
    """While it is entered, the first Ctrl-C only sets `asked`; a second one is as usual.

    Outside the main thread, where Python delivers no signals, it does nothing; neither does it
    where Ctrl-C is ignored, as in the background jobs of a script.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._active = False

    def __enter__(self) -> Interruption:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._active = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        if self._active:
            # None: a handler that Python did not install and cannot put back.
            signal.signal(signal.SIGINT, self._before or signal.default_int_handler)
            self._active = False
