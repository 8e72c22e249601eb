"""A summary before it is known where it is shown: a title, tables, and lines of facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from .facts import Fact
from .format import Glyphs
from .grid import Grid

__all__ = ["Document", "Presentable", "Table"]


@dataclass(frozen=True)
class Table:
    """A grid in a document.

    Attributes:
        grid: The grid.
        noun: What one of its rows is, for the line in place of rows that are left out.
    """

    grid: Grid
    noun: str


@dataclass(frozen=True)
class Document:
    """Title and parts, in reading order."""

    version: str
    title: str
    parts: tuple[Table | tuple[Fact, ...], ...]


class Presentable(Protocol):
    """A report that says itself how it is laid out."""

    KIND: ClassVar[str]
    """What the JSON calls such reports."""

    @property
    def version(self) -> str:
        """Version of onnxprune."""

    def document(self, glyphs: Glyphs) -> Document:
        """The report as a document."""
