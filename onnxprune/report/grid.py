"""Tables of text: columns of titles and cells, and when a narrow terminal does without a column.

A column is one entry of a list: its title, how a row fills it, how the totals row fills it, and its
rank, which says when a narrow terminal does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Column", "Grid", "Heading", "make_grid"]

Row = TypeVar("Row")


@dataclass(frozen=True)
class Heading:
    """The head of a column."""

    title: str
    right: bool = False
    """True for numbers, which are aligned at their right ends."""
    rank: int = 0
    """The column of the highest rank is the first to go where space is short; 0 always stays."""
    prose: bool = False
    """True for sentences, which a terminal wraps where names are shortened."""
    plain_only: bool = False
    """True for a column that only plain text shows."""


@dataclass(frozen=True)
class Grid:
    """A table of text: headings, rows, and totals (empty where there is nothing to add up)."""

    headings: tuple[Heading, ...]
    rows: tuple[tuple[str, ...], ...]
    totals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column(Generic[Row]):
    """Title, what a row shows there, and what the row of totals shows."""

    heading: Heading
    cell: Callable[[Row], str]
    total: str = ""


def make_grid(columns: Sequence[Column[Row]], rows: Sequence[Row]) -> Grid:
    """Fill a grid; it has totals where a column has."""
    totals = tuple(column.total for column in columns)
    return Grid(
        headings=tuple(column.heading for column in columns),
        rows=tuple(tuple(column.cell(row) for column in columns) for row in rows),
        totals=totals if any(totals) else (),
    )
