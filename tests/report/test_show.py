"""Which form a stream gets, and when progress is shown."""

from __future__ import annotations

import io

import pytest

from onnxprune.report.report import InspectReport, Report
from onnxprune.report.show import progress_line, show


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


def test_a_pipe_gets_plain_text(report: Report, inspection: InspectReport) -> None:
    stream = io.StringIO()
    show(report, stream)
    show(inspection, stream)
    assert stream.getvalue() == str(report) + str(inspection)


def test_a_terminal_gets_the_table(report: Report, inspection: InspectReport) -> None:
    for item in (report, inspection):
        stream = Terminal()
        show(item, stream)
        assert "─" in stream.getvalue()
        assert "\x1b[" in stream.getvalue()


def test_a_dumb_terminal_gets_plain_text(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    show(report, stream)
    assert stream.getvalue() == str(report)


def test_progress_on_a_terminal_only() -> None:
    with progress_line(io.StringIO()) as progress:
        assert progress is None
    with progress_line(Terminal(), quiet=True) as progress:
        assert progress is None


def test_progress_passes_and_leaves_no_trace() -> None:
    stream = Terminal()
    with progress_line(stream) as progress:
        assert progress is not None
        progress("pruning [red]\x1b[2J", 3, 1200)
        progress("checking", 0, 0)
    assert "\x1b[2J" not in stream.getvalue()
    assert stream.getvalue().endswith(("\x1b[2K", "\x1b[?25h", "\r\x1b[1A\x1b[2K"))
