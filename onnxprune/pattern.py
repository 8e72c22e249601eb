"""Patterns that zeros may have to follow, as a user writes them: ``2:4``, ``4x1``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import UsageError

__all__ = ["BlockPattern", "GroupPattern", "Pattern", "parse_pattern"]

#: Longer groups, and blocks of more weights, are no pattern that anything computes with.
LONGEST, LARGEST = 256, 4096


@dataclass(frozen=True)
class GroupPattern:
    """At most `keep` of every `of` weights that follow each other along the input axis are left.

    Source: Mishra et al. 2021, *Accelerating Sparse Deep Neural Networks*, for 2:4.
    """

    keep: int
    of: int

    def __str__(self) -> str:
        return f"{self.keep}:{self.of}"

    @property
    def sparsity(self) -> float:
        """Share of zeros that follows from the pattern, 0 to 1."""
        return 1 - self.keep / self.of


@dataclass(frozen=True)
class BlockPattern:
    """Weights go and stay in blocks of so many outputs (rows) and inputs (columns)."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


Pattern = GroupPattern | BlockPattern


def parse_pattern(text: object) -> Pattern:
    """The pattern that a text such as ``2:4`` or ``4x1`` stands for; raises UsageError."""
    if isinstance(text, (GroupPattern, BlockPattern)):
        return text
    found = re.fullmatch(r"\s*(\d{1,9})\s*([:xX])\s*(\d{1,9})\s*", str(text), re.ASCII)
    if found is None or not isinstance(text, str):
        raise UsageError(
            f"pattern {text!r} is none: write N:M for N kept of every M inputs, such as 2:4, or"
            " ROWSxCOLUMNS for blocks of outputs x inputs, such as 4x1"
        )
    one, other = int(found[1]), int(found[3])
    if found[2] == ":":
        if not 0 < one < other <= LONGEST:
            raise UsageError(
                f"pattern '{text}' keeps {one} of {other}: keep at least 1, and fewer than there"
                f" are, of at most {LONGEST}"
            )
        return GroupPattern(one, other)
    if one < 1 or other < 1 or not 1 < one * other <= LARGEST:
        raise UsageError(
            f"pattern '{text}' has blocks of {one} x {other}: give from 2 to {LARGEST} weights a"
            " block"
        )
    return BlockPattern(one, other)
