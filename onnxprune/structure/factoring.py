"""How a reshape regroups axes: the common factors of the old and the new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

__all__ = ["Factor", "common_factors"]


@dataclass(frozen=True)
class Factor:
    """A factor of one old axis that is also a factor of one new axis."""

    size: int
    old: int
    new: int


def common_factors(old: Sequence[int], new: Sequence[int]) -> tuple[list[Factor], set[int]] | None:
    """Common factors in order, and the old axes that have none; None for other element counts.

    Axes of size one are no factors. An old axis without factors (of 6 x 4 into 8 x 3, both)
    cannot be followed index by index.
    """
    if prod(old) != prod(new) or 0 in old:
        return None
    ends = _boundaries(old), _boundaries(new)
    common = sorted(set(ends[0]) & set(ends[1]))
    factors: list[Factor] = []
    torn: set[int] = set()
    start = 1
    for end in common:
        inside = sorted({e for side in ends for e in side if start < e <= end})
        steps = [start, *inside]
        if any(b % a for a, b in pairwise(steps)):
            torn |= {axis for e, axis in ends[0].items() if start < e <= end}
        else:
            for a, b in pairwise(steps):
                factors.append(Factor(b // a, _owner(ends[0], b), _owner(ends[1], b)))
        start = end
    return factors, torn


def _boundaries(sizes: Sequence[int]) -> dict[int, int]:
    """Axes longer than one, by the product of all sizes up to and with theirs."""
    total, found = 1, {}
    for axis, size in enumerate(sizes):
        total *= size
        if size > 1:
            found[total] = axis
    return found


def _owner(ends: dict[int, int], end: int) -> int:
    """The axis that the factor which ends there lies in."""
    return ends[min(e for e in ends if e >= end)]
