"""How `sensitivity` is shown: one row a layer, one column a setting."""

from __future__ import annotations

from collections.abc import Iterator

from .document import Document, Table
from .facts import Fact, some_names
from .format import (
    Glyphs,
    count,
    metric_text,
    number,
    percent,
    plural,
    safe,
    seconds_text,
    shape_text,
)
from .grid import Column, Grid, Heading, make_grid
from .sensitivity import SensitivityPoint, SensitivityReport, SensitivityRow

__all__ = ["sensitivity_document", "setting_title"]


def sensitivity_document(report: SensitivityReport, glyphs: Glyphs) -> Document:
    """The report as a document."""
    parts = (Table(_grid(report), "layer"), tuple(_facts(report)))
    return Document(report.version, safe(report.model), parts)


def setting_title(report: SensitivityReport, setting: float) -> str:
    """What a setting is called: ``90%`` of zeros, or ``q=1.5``."""
    return f"{100 * setting:.4g}%" if report.by == "sparsity" else f"q={setting:g}"


def _grid(report: SensitivityReport) -> Grid:
    total = report.weights
    columns: list[Column[SensitivityRow]] = [
        Column(Heading("layer"), lambda row: safe(row.layer), plural(len(report.layers), "layer")),
        Column(
            Heading("operator", rank=5),
            lambda row: ",".join(safe(operator) for operator in row.operators),
        ),
        Column(Heading("shape", rank=4), lambda row: shape_text(row.shape)),
        Column(
            Heading("weights", right=True, rank=2), lambda row: count(row.weights), count(total)
        ),
        Column(
            Heading("of all", right=True, rank=3),
            lambda row: percent(row.weights / total if total else None),
        ),
    ]
    columns += [_column(report, at) for at in range(len(report.settings))]
    return make_grid(columns, report.layers)


def _column(report: SensitivityReport, at: int) -> Column[SensitivityRow]:
    # The outer settings stay longest where space is short.
    rank = 0 if at in (0, len(report.settings) - 1) else 1
    return Column(
        Heading(setting_title(report, report.settings[at]), right=True, rank=rank),
        lambda row: metric_text(row.points[at].metric if row.points else None, report.share),
    )


def _facts(report: SensitivityReport) -> Iterator[Fact]:
    error = (
        ""
        if report.dense_error is None
        else f" (standard error {_size(report.dense_error, report)})"
    )
    better = ", lower is better" if report.better == "lower" else ""
    yield Fact(
        "unpruned",
        f"{safe(report.metric)} {metric_text(report.dense, report.share)}{better} on"
        f" {plural(report.samples, 'sample')}{error}",
    )
    yield Fact("data", safe(report.data))
    what = "share of zeros in it" if report.by == "sparsity" else "quality"
    repaired = f", refitted on {safe(report.calibration)}" if report.calibration else ""
    yield Fact("columns", f"the metric with that layer alone pruned to this {what}{repaired}")
    yield from _extremes(report)
    notes: dict[str, list[str]] = {}
    for row in report.layers:
        if row.note:
            notes.setdefault(row.note, []).append(row.layer)
    for note, names in notes.items():
        yield Fact("note", f"{some_names(names)}: {safe(note)}")
    for note in report.notes:
        yield Fact("note", safe(note))
    for warning in report.warnings:
        yield Fact("warning", safe(warning), "warning")
    at_once = f", {report.jobs:,} at once" if report.jobs > 1 else ""
    yield Fact("time", seconds_text(report.seconds) + at_once, "dim")


def _extremes(report: SensitivityReport) -> Iterator[Fact]:
    """The layer that costs most at the hardest setting, and those that cost nothing there."""
    tried = [row for row in report.layers if row.points]
    if not tried:
        return
    worst = max(tried, key=lambda row: row.points[-1].drop)
    title = setting_title(report, report.settings[-1])
    if worst.points[-1].drop > 0:
        yield Fact(
            "costs most",
            f"{safe(worst.layer)} at {title}: {_size(worst.points[-1].drop, report)} worse",
        )
    spare = [row.layer for row in tried if _costs_nothing(row.points[-1])]
    if spare:
        yield Fact("costs nothing", f"{some_names(spare)} at {title}, as far as the samples tell")


def _costs_nothing(point: SensitivityPoint) -> bool:
    """Whether the drop is within two standard errors of none."""
    return point.drop <= 2 * (point.drop_error or 0.0)


def _size(value: float, report: SensitivityReport) -> str:
    return f"{100 * value:.2f} points" if report.share else number(value)
