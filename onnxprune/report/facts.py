"""What the lines around the tables are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .format import safe

__all__ = ["Fact", "some_names"]

NAMES_SHOWN = 3


@dataclass(frozen=True)
class Fact:
    """One labelled line of a summary; the tone is good, warning, bad, dim or nothing."""

    label: str
    text: str
    tone: str = ""


def some_names(names: Sequence[str]) -> str:
    """Return the first few names, safe to print, and how many more there are."""
    shown = ", ".join(safe(name) for name in names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return f"{shown} and {rest:,} more" if rest > 0 else shown
