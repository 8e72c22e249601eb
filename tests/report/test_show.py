"""Which form a stream gets."""

from __future__ import annotations

import io

import pytest

from onnxprune.report.report import InspectReport, Report
from onnxprune.report.show import show
from tests.report.terminal import Terminal

pytestmark = pytest.mark.usefixtures("plain_environment")


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
