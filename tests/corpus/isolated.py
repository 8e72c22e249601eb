"""Work in a forked process that may crash or hang: what was at work then is known, and left out.

Runtimes and converters are C++ that reads the same models; one that dies takes its process along.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Attempts", "Lost", "Worker"]

_FORKS = multiprocessing.get_context("fork")


class Lost(Exception):
    """A step that crashed its process, or took too long, when it was tried before."""


@dataclass
class Attempts:
    """Steps of a case, announced before they are taken.

    Attributes:
        lost: Steps that ended the process before, and how.
        announce: Tells the parent which step is next.
    """

    lost: Mapping[str, str] = field(default_factory=dict)
    announce: Callable[[str], None] = lambda step: None

    def enter(self, step: str) -> None:
        """Raises Lost for a step that is known to end the process."""
        if step in self.lost:
            raise Lost(self.lost[step])
        self.announce(step)


class Worker:
    """A process that does one case after the other, and is started anew when it dies.

    Args:
        work: Makes the result of a case from its number; its steps go through `Attempts.enter`.
        seconds: Limit of each step.
    """

    def __init__(self, work: Callable[[int, Attempts], Any], seconds: float) -> None:
        self._work, self._seconds = work, seconds
        self._process: Any = None
        self._connection: Connection | None = None

    def run(self, number: int) -> Any:
        """The result of a case; steps that end the process are left out, and known as lost."""
        lost: dict[str, str] = {}
        while True:
            step, how, result = self._try(number, lost)
            if not how:
                return result
            self.close()
            if step in lost or not step:
                raise RuntimeError(f"case {number} ends the process at '{step}': {how}")
            lost[step] = how

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _try(self, number: int, lost: Mapping[str, str]) -> tuple[str, str, Any]:
        connection = self._started()
        connection.send((number, lost))
        step = ""
        while connection.poll(self._seconds):
            try:
                kind, value = connection.recv()
            except EOFError:
                self._process.join()
                return step, f"the process ends with {self._process.exitcode}", None
            if kind == "result":
                return step, "", value
            step = value
        return step, f"takes more than {self._seconds:g} s", None

    def _started(self) -> Connection:
        if self._connection is None:
            ours, theirs = _FORKS.Pipe()
            self._process = _FORKS.Process(target=_serve, args=(self._work, theirs), daemon=True)
            self._process.start()
            theirs.close()
            self._connection = ours
        return self._connection


def _serve(work: Callable[[int, Attempts], Any], connection: Connection) -> None:
    """Cases by number until the parent closes the connection; nothing is printed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while True:
        try:
            number, lost = connection.recv()
        except EOFError:
            return
        attempts = Attempts(lost, lambda step: connection.send(("step", step)))
        connection.send(("result", work(number, attempts)))
