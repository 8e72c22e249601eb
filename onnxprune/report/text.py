"""The summaries as plain text for pipes and logs: aligned columns, full names, no colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import summary, tables
from .document import Document, Table
from .facts import Fact
from .format import ASCII, display_width, pad
from .report import InspectReport, Report
from .search_view import search_grid

__all__ = ["render", "render_document", "render_inspect"]

GAP = "  "
# A longer name is printed whole, but does not push the columns of all the other rows away.
MAX_PADDING = 64


def render(report: Report) -> str:
    """Return the summary of a pruning run as plain text that ends with a line end."""
    parts = [
        [f"onnxprune {report.version}", summary.title(report, ASCII)],
        _grid_lines(tables.layer_grid(report, ASCII)),
    ]
    if report.search and report.search.trials:
        parts.append(_grid_lines(search_grid(report.search)))
    parts += [_grid_lines(grid) for grid, _ in tables.structure_grids(report)]
    if report.repair and (repaired := tables.repair_grid(report.repair)).rows:
        parts.append(_grid_lines(repaired))
    if report.training and len(report.training.rounds) > 1:
        parts.append(_grid_lines(tables.rounds_grid(report.training)))
    parts.append(_fact_lines(summary.facts(report, ASCII)))
    return _document(parts)


def render_inspect(report: InspectReport) -> str:
    """Return what `inspect` found as plain text that ends with a line end."""
    parts = [
        [f"onnxprune {report.version}", summary.inspect_title(report)],
        _fact_lines(summary.inspect_facts(report)),
        _grid_lines(tables.inspect_grid(report)),
    ]
    if report.dropouts:
        parts.append(_grid_lines(tables.dropout_grid(report.dropouts)))
    if report.unprunable:
        parts.append(_grid_lines(tables.unprunable_grid(report.unprunable)))
    parts += [_grid_lines(grid) for grid, _ in tables.coupled_grids(report)]
    return _document(parts)


def render_document(document: Document) -> str:
    """Return a document as plain text that ends with a line end."""
    parts = [
        _grid_lines(part.grid) if isinstance(part, Table) else _fact_lines(part)
        for part in document.parts
    ]
    return _document([[f"onnxprune {document.version}", document.title], *parts])


def _document(parts: Iterable[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _grid_lines(grid: tables.Grid) -> list[str]:
    if not grid.rows:
        return [summary.NOTHING_TO_PRUNE]
    titles = tuple(heading.title for heading in grid.headings)
    body = [titles, *grid.rows, *([grid.totals] if grid.totals else [])]
    widths = [
        max(width for row in body if (width := display_width(row[column])) <= MAX_PADDING)
        for column in range(len(titles))
    ]
    lines = [_line(row, widths, grid.headings) for row in body]
    rule = ASCII.rule * max(sum(widths) + len(GAP) * (len(widths) - 1), 0)
    lines.insert(1, rule)
    if grid.totals:
        lines.insert(-1, rule)
    return lines


def _line(row: Sequence[str], widths: Sequence[int], headings: Sequence[tables.Heading]) -> str:
    cells = (
        pad(cell, width, right=heading.right)
        for cell, width, heading in zip(row, widths, headings, strict=True)
    )
    return GAP.join(cells).rstrip()


def _fact_lines(facts: Sequence[Fact]) -> list[str]:
    width = max(len(fact.label) for fact in facts)
    return [f"{fact.label:<{width}}{GAP}{fact.text}" for fact in facts]
