"""Where a summary goes: a terminal gets the fitted table, everything else gets plain text."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from .format import safe
from .report import InspectReport, Report

__all__ = ["Progress", "is_terminal", "progress_line", "show"]

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the steps done, and the steps in all (0 where not known)."""


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands cursor movement and colour."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def show(report: Report | InspectReport, stream: TextIO | None = None) -> None:
    """Print a summary to `stream` (standard output by default) in the form that suits it."""
    stream = sys.stdout if stream is None else stream
    if not is_terminal(stream):
        stream.write(str(report))
        return
    from rich.console import Console

    from .console import print_inspect, print_report

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    if isinstance(report, Report):
        print_report(report, console)
    else:
        print_inspect(report, console)


@contextmanager
def progress_line(
    stream: TextIO | None = None, *, quiet: bool = False
) -> Iterator[Progress | None]:
    """Show one passing line of progress on a terminal; give None where nobody would see it."""
    stream = sys.stderr if stream is None else stream
    if quiet or not is_terminal(stream):
        yield None
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    with console.status(Text("starting")) as status:

        def update(stage: str, done: int, total: int) -> None:
            steps = f" {done:,} of {total:,}" if total else ""
            status.update(Text(safe(stage) + steps))

        yield update
