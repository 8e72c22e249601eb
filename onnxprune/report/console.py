"""The summaries on a terminal: fitted to its width, with colour where the terminal has it.

Text reaches rich as `Text`, never as markup, so that a name in square brackets stays a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import TYPE_CHECKING

from rich.text import Text

from . import summary, tables
from .document import Presentable, Table
from .facts import Fact
from .format import (
    ASCII,
    UNICODE,
    Glyphs,
    display_width,
    pad,
    plural,
    safe,
    shorten,
)
from .report import InspectReport, Report
from .search_view import search_grid

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_document", "print_inspect", "print_report"]

GAP = 2
MAX_ROWS = 60
HEAD_ROWS = 40
MAX_FACTS_A_LABEL = 8
NAME_WANTED = 17  # lets every column of a usual table stand in 100 cells
NAME_MINIMUM = 8
CELL_LIMIT = 18
PROSE_WANTED = 24

Rows = Sequence[tuple[str, ...]]

TONES = {"good": "bold green", "warning": "yellow", "bad": "bold red", "dim": "dim"}


def print_report(report: Report, console: Console) -> None:
    """Print the summary of a pruning run to a rich console."""
    glyphs = _glyphs(console)
    _print_title(report.version, summary.title(report, glyphs), console)
    _print_grid(tables.layer_grid(report, glyphs), "layer", console, glyphs)
    if report.search and report.search.trials:
        _print_grid(search_grid(report.search), "trial", console, glyphs)
    for grid, noun in tables.structure_grids(report):
        _print_grid(grid, noun, console, glyphs)
    if report.repair and (repaired := tables.repair_grid(report.repair)).rows:
        _print_grid(repaired, "layer", console, glyphs)
    if report.training and len(report.training.rounds) > 1:
        _print_grid(tables.rounds_grid(report.training), "round", console, glyphs)
    _print_facts(summary.facts(report, glyphs), console, glyphs)


def print_inspect(report: InspectReport, console: Console) -> None:
    """Print what `inspect` found to a rich console."""
    glyphs = _glyphs(console)
    _print_title(report.version, summary.inspect_title(report), console)
    _print_facts(summary.inspect_facts(report), console, glyphs)
    _print_grid(tables.inspect_grid(report), "layer", console, glyphs)
    if report.dropouts:
        _print_grid(tables.dropout_grid(report.dropouts), "dropout", console, glyphs)
    if report.unprunable:
        _print_grid(tables.unprunable_grid(report.unprunable), "weight", console, glyphs)
    for grid, noun in tables.coupled_grids(report):
        _print_grid(grid, noun, console, glyphs)


def print_document(report: Presentable, console: Console) -> None:
    """Print a report that lays itself out to a rich console."""
    glyphs = _glyphs(console)
    document = report.document(glyphs)
    _print_title(document.version, document.title, console)
    for part in document.parts:
        if isinstance(part, Table):
            _print_grid(part.grid, part.noun, console, glyphs)
        else:
            _print_facts(part, console, glyphs)


def _glyphs(console: Console) -> Glyphs:
    return ASCII if console.options.ascii_only else UNICODE


def _print_title(version: str, text: str, console: Console) -> None:
    line = Text.assemble(("onnxprune ", "bold"), (safe(version), "dim"), "  ", text)
    console.print(line, overflow="fold")


@dataclass(frozen=True)
class _Layout:
    """Which columns of a grid are shown, how wide each is, and what was left out."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]
    left_out: tuple[str, ...]


def _layout(grid: tables.Grid, room: int) -> _Layout:
    """Fit a grid to `room` cells: drop columns by rank, then shorten the names in the first."""
    natural = _natural_widths(grid)
    shown = [index for index, heading in enumerate(grid.headings) if not heading.plain_only]
    wanted = {
        index: min(natural[index], PROSE_WANTED if heading.prose else CELL_LIMIT)
        for index, heading in enumerate(grid.headings)
    }
    wanted[0] = min(natural[0], _name_width(grid, room))
    left_out: list[int] = []
    while _total(wanted[index] for index in shown) > room:
        rank = max(grid.headings[index].rank for index in shown)
        if rank == 0:
            break
        left_out += [index for index in shown if grid.headings[index].rank == rank]
        shown = [index for index in shown if grid.headings[index].rank != rank]
    widths = {index: wanted[index] for index in shown}
    # What is left goes to the names, then to the sentences.
    for index in shown:
        if index == 0 or grid.headings[index].prose:
            spare = room - _total(widths.values())
            widths[index] = max(min(natural[index], widths[index] + spare), NAME_MINIMUM)
    return _Layout(
        columns=tuple(shown),
        widths=tuple(widths[index] for index in shown),
        left_out=tuple(grid.headings[index].title for index in sorted(left_out)),
    )


def _natural_widths(grid: tables.Grid) -> list[int]:
    titles = tuple(heading.title for heading in grid.headings)
    body = [titles, *_folded(grid.rows)[0], *_folded(grid.rows)[1], *_totals(grid)]
    return [max(display_width(row[index]) for row in body) for index in range(len(titles))]


def _totals(grid: tables.Grid) -> list[tuple[str, ...]]:
    return [grid.totals] if grid.totals else []


def _name_width(grid: tables.Grid, room: int) -> int:
    """Return the smallest width at which names that differ still do when shortened.

    Never more than half the room: then some names look alike, and --json tells them apart.
    """
    names = {row[0] for rows in _folded(grid.rows) for row in rows}
    widths = range(NAME_WANTED, max(room // 2, NAME_WANTED))
    distinct = (width for width in widths if len({shorten(n, width) for n in names}) == len(names))
    return next(distinct, widths.stop)


def _total(widths: Iterable[int]) -> int:
    taken = list(widths)
    return sum(taken) + GAP * (len(taken) - 1)


def _folded(rows: Rows) -> tuple[Rows, Rows]:
    """Return the rows before and after the fold; a short table is all before it."""
    if len(rows) <= MAX_ROWS:
        return rows, ()
    return rows[:HEAD_ROWS], rows[HEAD_ROWS - MAX_ROWS :]


def _print_grid(grid: tables.Grid, noun: str, console: Console, glyphs: Glyphs) -> None:
    console.print()
    if not grid.rows:
        console.print(Text(summary.NOTHING_TO_PRUNE, style="yellow"))
        return
    layout = _layout(grid, console.width)
    rule = Text(glyphs.rule * min(_total(layout.widths), console.width), style="dim")
    before, after = _folded(grid.rows)
    titles = tuple(heading.title for heading in grid.headings)
    lines = [*_row(titles, grid, layout, console, "bold"), rule]
    lines += [line for row in before for line in _row(row, grid, layout, console)]
    if after:
        hidden = plural(len(grid.rows) - len(before) - len(after), f"more {noun}")
        lines.append(Text(f"{glyphs.ellipsis} {hidden} (see --json)", style="dim"))
        lines += [line for row in after for line in _row(row, grid, layout, console)]
    for row in _totals(grid):
        lines += [rule, *_row(row, grid, layout, console, "bold")]
    if layout.left_out:
        lines.append(Text(f"not shown at this width: {', '.join(layout.left_out)}", style="dim"))
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", crop=True)


def _row(
    cells: Sequence[str], grid: tables.Grid, layout: _Layout, console: Console, style: str = ""
) -> list[Text]:
    """Return the lines of one row: one, or more where a sentence is wrapped."""
    columns: list[list[str]] = []
    for index, width in zip(layout.columns, layout.widths, strict=True):
        heading = grid.headings[index]
        parts = (
            _wrap(Text(cells[index]), width, console)
            if heading.prose
            else [shorten(cells[index], width, _glyphs(console).ellipsis)]
        )
        columns.append([pad(part, width, right=heading.right) for part in parts])
    height = max(len(column) for column in columns)
    for column, width in zip(columns, layout.widths, strict=True):
        column += [" " * width] * (height - len(column))
    gap = " " * GAP
    return [Text(gap.join(parts).rstrip(), style=style) for parts in zip(*columns, strict=True)]


def _wrap(text: Text, width: int, console: Console) -> list[str]:
    """Break text into lines of at most `width` cells, inside a word where it must be."""
    return [line.plain.rstrip() for line in text.wrap(console, max(width, 1))] or [""]


def _print_facts(facts: Sequence[Fact], console: Console, glyphs: Glyphs) -> None:
    console.print()
    indent = max(len(fact.label) for fact in facts) + GAP
    for label, group in groupby(facts, key=lambda fact: fact.label):
        same = list(group)
        shown = same if len(same) <= MAX_FACTS_A_LABEL else same[: MAX_FACTS_A_LABEL - 1]
        if len(shown) < len(same):
            more = f"{glyphs.ellipsis} {len(same) - len(shown):,} more (see --json)"
            shown = [*shown, Fact(label, more, "dim")]
        heads = chain([label], repeat(""))
        for fact in shown:
            for part in _wrap(Text(fact.text), console.width - indent, console):
                head = (pad(next(heads), indent), "bold")
                line = Text.assemble(head, (part, TONES.get(fact.tone, "")))
                console.print(line, no_wrap=True, overflow="crop", crop=True)
