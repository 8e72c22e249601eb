"""Answers requests on standard input until it ends: see `protocol` and `Server`."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from . import protocol
from .protocol import MODEL, Closed, Message

#: Seconds between looks whether the parent is alive.
WATCH_INTERVAL = 1.0


class Server:
    """Turns requests into calls of a `session.Session`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def answer(self, request: Message) -> Message:
        """The answer to a request, "error" with the reason where it fails."""
        try:
            return self._answer(request)
        except Exception as error:
            return Message("error", {"reason": str(error), "type": type(error).__name__})

    def _answer(self, request: Message) -> Message:
        if request.kind == "start":
            return self._start(request)
        if request.kind == "step":
            loss = self._session.step(request.arrays, request.fields["rate"])
            return Message("loss", {"loss": loss})
        if request.kind == "parameters":
            return Message("parameters", arrays=self._session.parameters())
        if request.kind == "state":
            return Message("state", arrays={"checkpoint": self._session.state()})
        if request.kind == "restore":
            self._session.restore(request.arrays["checkpoint"])
            return Message("restored")
        raise ValueError(f"unknown request {request.kind!r}")

    def _start(self, request: Message) -> Message:
        from onnx import ModelProto

        from .session import Session, Settings

        arrays = dict(request.arrays)
        model = ModelProto.FromString(arrays.pop(MODEL).tobytes())
        settings = Settings(**request.fields)
        self._session = Session(model, settings, arrays, self._directory)
        return Message("started")


def private_output() -> BinaryIO:
    """Standard output as a stream of this module's own.

    What libraries print goes to standard error, where it cannot get between messages.
    """
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def die_with(parent: int) -> None:
    """End when a process ends, which a thread watches.

    The end of standard input tells of the parent's death too, but not where a process that the
    parent forked still holds the pipe open. Windows has no such processes (and no harmless way
    to ask).
    """

    def watch() -> None:
        while _alive(parent):
            time.sleep(WATCH_INTERVAL)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main() -> None:
    """Serve until the requests end; the last argument is the id of the process to end with."""
    die_with(int(sys.argv[-1]))
    requests, answers = sys.stdin.buffer, private_output()
    server = Server(Path.cwd())
    while True:
        try:
            protocol.write(answers, server.answer(protocol.read(requests)))
        except Closed:
            return


if __name__ == "__main__":
    main()
