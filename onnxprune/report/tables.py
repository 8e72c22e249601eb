"""The tables of the summaries as grids of text, before anybody decides how wide a line may be.

All text is already safe to print.
"""

from __future__ import annotations

from collections.abc import Sequence

from .format import (
    Glyphs,
    bytes_text,
    count,
    metric_text,
    number,
    percent,
    plural,
    ratio,
    safe,
    shape_text,
)
from .grid import Column as _Column
from .grid import Grid, Heading
from .grid import make_grid as _grid
from .groups import barriers_grid, groups_grid
from .repair import Repair, RepairRow
from .report import (
    DropoutRow,
    InspectReport,
    InspectRow,
    LayerRow,
    Report,
    UnprunableRow,
)
from .structure_facts import channels_grid, dead_grid
from .training import RoundRow, Training

__all__ = [
    "Grid",
    "Heading",
    "coupled_grids",
    "dropout_grid",
    "inspect_grid",
    "layer_grid",
    "repair_grid",
    "rounds_grid",
    "structure_grids",
    "unprunable_grid",
]


def _operators(row: LayerRow | InspectRow) -> str:
    return ",".join(safe(operator) for operator in row.operators)


def _size_pair(before: int, after: int, glyphs: Glyphs) -> str:
    # Both parts have a fixed width ("1.23 MB" is the longest), so the arrows stand in line.
    return f"{bytes_text(before):>7} {glyphs.arrow} {bytes_text(after):>7}"


def layer_grid(report: Report, glyphs: Glyphs) -> Grid:
    """Return the table of a pruning run: one row a layer, and the totals."""
    columns: list[_Column[LayerRow]] = [
        _Column(Heading("layer"), lambda row: safe(row.layer), plural(len(report.layers), "layer")),
        _Column(Heading("operator", rank=5), _operators),
        _Column(Heading("shape", rank=1), lambda row: shape_text(row.shape)),
        *_new_shapes(report),
        _Column(Heading("type", plain_only=True), lambda row: safe(row.dtype)),
        _Column(Heading("std", right=True, rank=4), lambda row: number(row.std)),
        _Column(Heading("threshold", right=True, rank=2), lambda row: number(row.threshold)),
        _Column(
            Heading("weights", right=True, plain_only=True),
            lambda row: count(row.weights),
            count(report.weights),
        ),
        _Column(
            Heading("left", right=True, plain_only=True),
            lambda row: count(row.kept),
            count(report.kept),
        ),
        _Column(
            Heading("kept", right=True),
            lambda row: percent(row.kept_share),
            percent(report.kept / report.weights if report.weights else None),
        ),
        _Column(
            Heading("ratio", right=True),
            lambda row: ratio(row.ratio),
            ratio(report.parameter_ratio),
        ),
        _Column(Heading("stored", rank=3), lambda row: safe(row.stored_as)),
        _Column(
            Heading(f" before {glyphs.arrow} after", right=False),
            lambda row: _size_pair(row.bytes_before, row.bytes_after, glyphs),
            _size_pair(report.bytes_before, report.bytes_after, glyphs),
        ),
    ]
    return _grid(columns, report.layers)


def _new_shapes(report: Report) -> list[_Column[LayerRow]]:
    """A column of the shapes after, where any has changed."""
    if all(row.shape_after is None for row in report.layers):
        return []
    return [_Column(Heading("now", rank=1), _new_shape)]


def _new_shape(row: LayerRow) -> str:
    return "" if row.shape_after is None else shape_text(row.shape_after)


# Which of the qualities' columns a narrow terminal keeps longest: the outer ones and q = 1.
_QUALITY_RANKS = {1.0: 0, 2.0: 1, 0.5: 1}


def inspect_grid(report: InspectReport) -> Grid:
    """Return the table of `inspect`: one row a layer, its statistics, and its zeros at each q."""
    columns: list[_Column[InspectRow]] = [
        _Column(Heading("layer"), lambda row: safe(row.layer), plural(len(report.layers), "layer")),
        _Column(Heading("operator", rank=5), _operators),
        _Column(Heading("shape"), lambda row: shape_text(row.shape)),
        _Column(Heading("type", rank=8), lambda row: safe(row.dtype)),
        _Column(Heading("min", right=True, rank=7), lambda row: number(row.minimum)),
        _Column(Heading("max", right=True, rank=7), lambda row: number(row.maximum)),
        _Column(Heading("mean", right=True, rank=6), lambda row: number(row.mean)),
        _Column(Heading("std", right=True, rank=2), lambda row: number(row.std)),
        _Column(
            Heading("zeros", right=True),
            lambda row: percent(row.zero_share),
            percent(_zero_share(report, report.alive)),
        ),
    ]
    columns += [_quality_column(report, index) for index in range(len(report.qualities))]
    return _grid(columns, report.layers)


def _quality_column(report: InspectReport, index: int) -> _Column[InspectRow]:
    quality = report.qualities[index]
    rank = _QUALITY_RANKS.get(quality, 4)
    return _Column(
        Heading(f"q={quality:g}", right=True, rank=rank),
        lambda row: percent(row.zero_shares[index]) if row.kept else percent(None),
        percent(_zero_share(report, report.kept[index])),
    )


def _zero_share(report: InspectReport, left: int) -> float | None:
    return 1 - left / report.weights if report.weights else None


def dropout_grid(rows: Sequence[DropoutRow]) -> Grid:
    """Return the table of Dropout nodes as `inspect` lists them."""
    columns: list[_Column[DropoutRow]] = [
        _Column(Heading("dropout"), lambda row: safe(row.node)),
        _Column(Heading("ratio", right=True), lambda row: number(row.before)),
        _Column(Heading("note", prose=True), lambda row: safe(row.note)),
    ]
    return _grid(columns, rows)


def unprunable_grid(rows: Sequence[UnprunableRow]) -> Grid:
    """Return the table of weights that cannot be pruned, with the reasons."""
    columns: list[_Column[UnprunableRow]] = [
        _Column(Heading("not prunable"), lambda row: safe(row.name)),
        _Column(Heading("operator"), lambda row: safe(row.operator)),
        _Column(Heading("node", rank=2), lambda row: safe(row.node)),
        _Column(Heading("shape", rank=1), lambda row: shape_text(row.shape)),
        _Column(Heading("why", prose=True), lambda row: safe(row.reason)),
    ]
    return _grid(columns, rows)


def coupled_grids(report: InspectReport) -> list[tuple[Grid, str]]:
    """Return the tables of coupled channels and of barriers, and what their rows are."""
    coupled = report.coupled
    if coupled is None:
        return []
    found = []
    if coupled.groups:
        found.append((groups_grid(coupled), "group"))
    if coupled.barriers:
        found.append((barriers_grid(coupled), "axis"))
    return found


def structure_grids(report: Report) -> list[tuple[Grid, str]]:
    """Return the tables of channels that went, and what their rows are; none where none did."""
    structure = report.structure
    if structure is None:
        return []
    found = []
    if structure.channels:
        found.append((channels_grid(structure.channels), "group"))
    if structure.dead:
        found.append((dead_grid(structure.dead), "group"))
    return found


def repair_grid(repair: Repair) -> Grid:
    """Return the table of the layers that were repaired; how far their outputs are from before."""
    columns: list[_Column[RepairRow]] = [
        _Column(Heading("layer"), lambda row: safe(row.layer)),
        _Column(Heading("repair", rank=2), lambda row: safe(row.method or "")),
        _Column(Heading("error pruned", right=True, rank=1), lambda row: number(row.error_before)),
        _Column(Heading("error repaired", right=True), lambda row: number(row.error_after)),
    ]
    return _grid(columns, [row for row in repair.rows if row.error_before is not None])


def rounds_grid(training: Training) -> Grid:
    """Return the table of the rounds of pruning and retraining."""
    share, rounds = training.share, len(training.rounds)
    losses = {row.round: row.loss for row in training.epoch_rows}  # of the last epoch of each
    columns: list[_Column[RoundRow]] = [
        _Column(Heading("round"), lambda row: f"{row.round:,} of {rounds:,}"),
        *_target(training),
        _Column(Heading("zeros", right=True), lambda row: percent(row.zeros)),
        _Column(Heading("loss", right=True, rank=3), lambda row: number(losses.get(row.round))),
    ]
    if training.metric is not None:
        columns += [
            _Column(
                Heading("pruned", right=True), lambda row: metric_text(row.metric_pruned, share)
            ),
            _Column(
                Heading("retrained", right=True),
                lambda row: metric_text(row.metric_trained, share),
            ),
            _Column(Heading("best epoch", right=True, rank=1), lambda row: count(row.best_epoch)),
        ]
    return _grid(columns, training.rounds)


def _target(training: Training) -> list[_Column[RoundRow]]:
    """What the rounds aimed at; nothing where a pattern says how much goes."""
    for name in ("sparsity", "quality"):
        if any(getattr(row, name) is not None for row in training.rounds):
            return [_Column(Heading(name, right=True, rank=2), _target_cell)]
    return []


def _target_cell(row: RoundRow) -> str:
    return number(row.quality if row.sparsity is None else row.sparsity)
