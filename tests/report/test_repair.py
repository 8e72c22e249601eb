"""What a summary says about a repair: as text, on a terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import io
import json

import pytest
from rich.console import Console

from onnxprune.report import text
from onnxprune.report.console import print_report
from onnxprune.report.json import to_json
from onnxprune.report.repair import Repair, RepairRow
from onnxprune.report.report import Report

TABLE = """\
layer         repair  error pruned  error repaired
--------------------------------------------------
conv1.weight  refit            0.5             0.1
fc1.weight    refit            0.3               -
"""
LINES = """\
chosen by     least magnitude over all layers
repair        least-squares refit: 2 layers on 512 samples (x.npz: 600 samples), in 1.50 s; \
relative error of outputs 0.5 -> 0.1 (median)
not repaired  fc2.weight: its weights are quantised
speed """


@pytest.fixture
def repaired(report: Report) -> Report:
    """The report of a run that repaired two of three layers."""
    rows = (
        RepairRow("conv1.weight", "refit", None, 0.5, 0.1),
        RepairRow("fc1.weight", "refit", None, 0.3, None),
        RepairRow("fc2.weight", None, "its weights are quantised", None, None),
    )
    facts = Repair("refit", "x.npz: 600 samples", 512, "least magnitude over all layers", rows, 1.5)
    return dataclasses.replace(report, repair=facts)


def test_table_and_lines(repaired: Report) -> None:
    shown = text.render(repaired)
    assert TABLE in shown
    assert LINES in shown


def test_without_calibration_nothing_is_said_of_it(report: Report) -> None:
    for word in ("chosen by", "repair", "error pruned"):
        assert word not in text.render(report)


def test_nothing_repaired_has_no_table(repaired: Report) -> None:
    assert repaired.repair is not None
    rows = tuple(
        RepairRow(row.layer, None, "no repair was asked for", None, None)
        for row in repaired.repair.rows
    )
    none = dataclasses.replace(repaired.repair, method="none", rows=rows)
    shown = text.render(dataclasses.replace(repaired, repair=none))
    assert "error pruned" not in shown
    assert not any(line.startswith("repair ") for line in shown.splitlines())
    expected = "not repaired  conv1.weight, fc1.weight, fc2.weight: no repair was asked for"
    assert expected in shown


def test_errors_that_are_not_measured_are_not_shown(repaired: Report) -> None:
    assert repaired.repair is not None
    rows = tuple(RepairRow(row.layer, "bn", None, None, None) for row in repaired.repair.rows)
    renewed = dataclasses.replace(repaired.repair, method="bn", rows=rows)
    shown = text.render(dataclasses.replace(repaired, repair=renewed))
    assert "statistics of BatchNormalization renewed: 3 layers on 512 samples" in shown
    assert "relative error" not in shown and "error pruned" not in shown


def test_many_reasons_are_counted(repaired: Report) -> None:
    assert repaired.repair is not None
    rows = tuple(RepairRow(f"l{i}", None, f"reason {i % 7}", None, None) for i in range(14))
    many = dataclasses.replace(repaired.repair, rows=rows)
    shown = text.render(dataclasses.replace(repaired, repair=many))
    assert "not repaired  l4, l11: reason 4\n" in shown
    assert "not repaired  4 more layers for other reasons (see --json)" in shown


@pytest.mark.parametrize("width", [40, 80, 160])
def test_a_terminal_shows_the_same(repaired: Report, width: int) -> None:
    stream = io.StringIO()
    print_report(repaired, Console(file=stream, width=width, force_terminal=False))
    shown = stream.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    joined = " ".join(shown.split())
    assert "error repaired" in joined
    assert "fc2.weight: its weights are quantised" in joined


def test_hostile_names_are_inert(repaired: Report) -> None:
    assert repaired.repair is not None
    evil = "\x1b[2J[red]\n"
    rows = (RepairRow(evil, "refit", None, 0.5, 0.1), RepairRow(evil, None, evil, None, None))
    hostile = dataclasses.replace(repaired.repair, data=evil, choice=evil, rows=rows)
    shown = text.render(dataclasses.replace(repaired, repair=hostile))
    assert "\x1b" not in shown


def test_json(repaired: Report) -> None:
    found = json.loads(to_json(repaired))["repair"]
    assert list(found) == [entry.name for entry in dataclasses.fields(Repair)]
    assert found["rows"][2] == {
        "layer": "fc2.weight",
        "method": None,
        "reason": "its weights are quantised",
        "error_before": None,
        "error_after": None,
    }
