"""The worker's process: starting it, asking it, and explaining its end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ....errors import ModelError
from .training_worker.protocol import Closed, Message, read, write

__all__ = ["Worker", "worker_command"]

_HERE = Path(__file__).resolve().parent
# Appended to the path, so that nothing beside the worker's package hides a module of that Python.
_BOOT = """
import runpy, sys
sys.path.append(sys.argv[1])
runpy.run_module("training_worker", run_name="__main__")
"""
#: Characters of the worker's standard error that messages show.
_SHOWN = 400
#: Seconds to wait for the worker after its requests have ended.
_PATIENCE = 10.0


def worker_command(python: str) -> list[str]:
    """Command line that runs the worker in a Python, for as long as this process lives."""
    return [python, "-c", _BOOT, str(_HERE), str(os.getpid())]


class Worker:
    """A running worker, with a temporary folder as its working directory.

    Args:
        command: What to run; it speaks `protocol` on standard input and output.

    Raises:
        ModelError: It cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="onnxprune-training-", ignore_cleanup_errors=True
        )
        self._errors = Path(self._folder.name) / "stderr"
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=self._folder.name,
                )
        except OSError as error:
            self._folder.cleanup()
            raise ModelError(f"the engine's worker cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, request: Message) -> Message:
        """Send a request and return the answer.

        Raises:
            ModelError: The worker answered with an error, or died (it is closed then).
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            write(self._process.stdin, request)
            answer = read(self._process.stdout)
        except (Closed, ValueError) as error:
            raise ModelError(self._obituary(request.kind)) from error
        if answer.kind == "error":
            reason = _one_line(str(answer.fields["reason"]))[-_SHOWN:]
            raise ModelError(
                f"onnxruntime-training failed in '{request.kind}': {reason}; "
                "use the default engine for this model"
            )
        return answer

    def close(self) -> None:
        """End the worker and remove its folder; closing twice is harmless."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _obituary(self, kind: str) -> str:
        """Why the worker is gone; closes it."""
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        code = self._process.poll()
        said = _last_lines(self._errors)
        self.close()
        return (
            f"the engine onnxruntime-training {_end(code)} in '{kind}'"
            f"{f' ({said})' if said else ''}; use the default engine for this model"
        )


def _end(code: int | None) -> str:
    if code is None:
        return "broke the conversation"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _last_lines(path: Path) -> str:
    """The end of what was written to standard error, without onnxruntime's log."""
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").splitlines()
        return _one_line(" ".join(line for line in lines if ":onnxruntime:" not in line))[-_SHOWN:]
    return ""


def _one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())
