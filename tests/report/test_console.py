"""The summary on a terminal: fitted to the width, markup inert, long tables folded."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import pytest
from rich.console import Console

from onnxprune.report.console import print_inspect, print_report
from onnxprune.report.format import display_width
from onnxprune.report.report import InspectReport, LayerRow, Report


def shown(report: Report | InspectReport, width: int, encoding: str = "utf-8") -> list[str]:
    """Lines of a report on a colourless terminal."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    if isinstance(report, Report):
        print_report(report, console)
    else:
        print_inspect(report, console)
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_at_width_120_every_column_is_there(report: Report) -> None:
    lines = shown(report, 120)
    assert lines[2:5] == [
        "layer         operator  shape         std  threshold   kept  ratio  stored"
        "   before → after",
        "─" * 93,
        "conv1.weight  Conv      20x1x5x5   0.0131     0.0131  66.0%  1.52x  sparse"
        "  2.00 kB → 2.31 kB",
    ]
    assert lines[8].startswith("3 layers ")
    assert not any("not shown" in line for line in lines)


def test_at_width_80_the_lesser_columns_go_and_that_is_said(report: Report) -> None:
    lines = shown(report, 80)
    assert lines[2:10] == [
        "layer         shape     threshold   kept  ratio  stored   before → after",
        "─" * 74,
        "conv1.weight  20x1x5x5     0.0131  66.0%  1.52x  sparse  2.00 kB → 2.31 kB",
        "fc1.weight    500x800     1.2e-05   8.0%  12.5x  sparse  1.60 MB →  224 kB",
        "fc2.weight    10x500            -   100%  1.00x  dense   20.0 kB → 20.0 kB",
        "─" * 74,
        "3 layers                            9.2%  10.9x          1.62 MB →  246 kB",
        "not shown at this width: operator, std",
    ]
    assert lines[-1] == "time          0.42 s"
    speed = next(index for index, line in enumerate(lines) if line.startswith("speed"))
    assert lines[speed + 1].strip() == "channels does (--channels)"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(
    report: Report, inspection: InspectReport, width: int
) -> None:
    for lines in (shown(report, width), shown(inspection, width)):
        assert max(map(display_width, lines)) <= width


def test_long_names_lose_their_middle_but_stay_apart(
    layer_row: Callable[..., LayerRow], report: Report
) -> None:
    names = [f"encoder.layers.{index}.attention.query.weight" for index in range(12)]
    rows = tuple(layer_row(name) for name in names)
    lines = shown(dataclasses.replace(report, layers=rows), 80)
    shortened = [line.split()[0] for line in lines[4:16]]
    assert len(set(shortened)) == 12
    wide = shown(dataclasses.replace(report, layers=rows), 200)
    assert [line.split()[0] for line in wide[4:16]] == names


def test_hundreds_of_layers_are_folded(layer_row: Callable[..., LayerRow], report: Report) -> None:
    rows = tuple(layer_row(f"layer{index}") for index in range(203))
    lines = shown(dataclasses.replace(report, layers=rows), 100)
    assert "… 143 more layers (see --json)" in lines
    assert sum(line.startswith("layer") for line in lines) == 61  # with the heading
    assert any(line.startswith("203 layers") for line in lines)
    unfolded = shown(dataclasses.replace(report, layers=rows[:60]), 100)
    assert not any("more layers" in line for line in unfolded)


def test_many_facts_of_a_kind_are_folded(report: Report) -> None:
    warned = dataclasses.replace(report, warnings=tuple(f"warning {i}" for i in range(30)))
    lines = shown(warned, 100)
    assert any("… 23 more (see --json)" in line for line in lines)


def test_markup_and_escapes_in_names_are_inert(
    layer_row: Callable[..., LayerRow], report: Report
) -> None:
    evil = "[red]a[/]\x1b[2J"
    rows = (layer_row(evil, note=evil),)
    everywhere = dataclasses.replace(report, layers=rows, model=evil, warnings=(evil,))
    output = "\n".join(shown(everywhere, 120))
    assert r"[red]a[/]\x1b[2J" in output
    assert "\x1b[2J" not in output


def test_a_terminal_without_unicode_gets_ascii(report: Report) -> None:
    assert all(line.isascii() for line in shown(report, 100, encoding="ascii"))


def test_colour_is_there_unless_no_color_asks_otherwise(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coloured() -> bool:
        stream = io.StringIO()
        print_report(report, Console(file=stream, force_terminal=True, color_system="standard"))
        return "\x1b[33m" in stream.getvalue() or "\x1b[1;32m" in stream.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured()


def test_inspect_wraps_reasons(inspection: InspectReport) -> None:
    reason = "this weight is made at run time by a chain of nodes that nobody could follow " * 2
    rows = tuple(dataclasses.replace(row, reason=reason) for row in inspection.unprunable)
    lines = shown(dataclasses.replace(inspection, unprunable=rows), 80)
    start = next(index for index, line in enumerate(lines) if line.startswith("not prunable"))
    assert len(lines[start + 2 :]) > 2
    assert "".join(lines[start + 2 :]).count("made at run time") == 2


def test_inspect_narrows_by_quality_columns(inspection: InspectReport) -> None:
    rows = tuple(
        dataclasses.replace(row, layer=f"a.long.layer.name.{i}")
        for i, row in enumerate(inspection.layers)
    )
    lines = shown(dataclasses.replace(inspection, layers=rows), 66)
    heading = next(line for line in lines if line.startswith("layer"))
    assert heading.split() == ["layer", "shape", "std", "zeros", "q=0.5", "q=1", "q=2"]
