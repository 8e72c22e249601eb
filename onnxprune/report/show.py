"""Where a summary goes: a terminal gets the fitted table, everything else gets plain text."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from .document import Presentable
from .report import InspectReport, Report

__all__ = ["is_terminal", "show"]


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that understands cursor movement and colour."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def show(report: Report | InspectReport | Presentable, stream: TextIO | None = None) -> None:
    """Print a summary to `stream` (standard output by default) in the form that suits it."""
    stream = sys.stdout if stream is None else stream
    if not is_terminal(stream):
        stream.write(str(report))
        return
    from rich.console import Console

    from .console import print_document, print_inspect, print_report

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    if isinstance(report, Report):
        print_report(report, console)
    elif isinstance(report, InspectReport):
        print_inspect(report, console)
    else:
        print_document(report, console)
