"""One of the processes of a long run, and what replaces it when it dies or takes too long."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.fuzzing.cases import case
from tests.fuzzing.worker import start

__all__ = ["Job"]

#: A case that takes more processor time, or far more time altogether, is ended.
PROCESSOR_SECONDS, SECONDS = 20.0, 300.0


class Job:
    """A range of cases, run by one process after the other; a death is the outcome of a case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = range(0)
        self._child = self._pipe = -1
        self._current, self._since, self._used = -1, 0.0, 0.0
        self._rest = b""

    @property
    def busy(self) -> bool:
        """Whether cases are left."""
        return self._child >= 0

    @property
    def pipe(self) -> int:
        """What to wait for."""
        return self._pipe

    def begin(self, numbers: range) -> None:
        """Run these cases."""
        self.numbers, self._current, self._rest = numbers, -1, b""
        self._child, self._pipe = start(numbers, self.folder)

    def read(self) -> list[dict[str, Any]]:
        """Outcomes that have come; at the end of a process it is followed by the next."""
        data = os.read(self._pipe, 2**16)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        outcomes = []
        for line in lines:
            if line.startswith(b">"):
                self._current, self._since, self._used = (
                    int(line[1:]),
                    time.monotonic(),
                    self._cpu(),
                )
            else:
                outcomes.append(json.loads(line))
                self.numbers = range(outcomes[-1]["number"] + 1, self.numbers.stop)
                self._current = -1
        return outcomes if data else [*outcomes, *self._ended()]

    def _ended(self) -> list[dict[str, Any]]:
        os.close(self._pipe)
        _, status = os.waitpid(self._child, 0)
        self._child = -1
        outcomes = []
        if self._current >= 0:
            outcomes.append(_death(self._current, os.waitstatus_to_exitcode(status)))
            self.numbers = range(self._current + 1, self.numbers.stop)
        elif self.numbers:
            raise RuntimeError(f"a worker ended with status {status} between two cases")
        if self.numbers:
            self.begin(self.numbers)
        return outcomes

    def check(self) -> None:
        """End the process where its case takes too long."""
        if self._current < 0 or not self.busy:
            return
        waited = time.monotonic() - self._since > SECONDS
        if waited or self._cpu() - self._used > PROCESSOR_SECONDS:
            os.kill(self._child, signal.SIGKILL)

    def _cpu(self) -> float:
        """Processor time of the process."""
        try:
            entries = Path(f"/proc/{self._child}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(entries[11]) + int(entries[12])) / os.sysconf("SC_CLK_TCK")


def _death(number: int, code: int) -> dict[str, Any]:
    """The outcome of a case that took its process with it."""
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    kind = "hang" if name == "SIGKILL" else "crash"
    text = f"{name} in {case(number).command.line}"
    return {"number": number, "code": code, "said": kind, "seconds": 0.0, "grown": 0,
            "problems": [(kind, text)]}  # fmt: skip
