"""Thresholds: a quality times the standard deviation, or the magnitude that a share lies under.

The k-th smallest magnitude of any number of layers is found exactly without sorting or keeping
them: magnitudes are read as integers, and one streaming pass per 16 bits counts the next digit of
those that agree with the digits found so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Scope
from .statistics import LayerStatistics
from .stream import ordered_map, slices
from .weights import Weights

__all__ = ["quality_threshold", "sparsity_thresholds"]

_DIGIT_BITS = 16


def quality_threshold(quality: float, statistics: LayerStatistics) -> float:
    """Magnitude under which weights go: ``quality`` times their standard deviation."""
    return quality * statistics.std


def sparsity_thresholds(
    layers: Sequence[Weights],
    target: float,
    *,
    scope: Scope = "global",
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[float]:
    """One threshold per layer with which a share of all weights is zero.

    Zeros that are there already count. Where equal magnitudes lie across the target, they go or
    stay together, whichever comes closer to it (they stay where both are as close).

    Args:
        layers: The layers; magnitudes of different storage types compare by value.
        target: Share of zeros, 0 to 1.
        scope: Reach the target over all of them (global), with one threshold, or in each (layer).
        workers: Number of threads; None for the default.
        advance: Called with the number of stored bytes that were read, slice by slice.

    Returns:
        Thresholds: weights of smaller magnitude go. 0.0 where nothing has to.
    """
    if scope == "layer":
        return [_shared_threshold([one], target, workers, advance) for one in layers]
    return [_shared_threshold(layers, target, workers, advance)] * len(layers)


@dataclass(frozen=True)
class _Rank:
    """The k-th smallest magnitude, how many are smaller, and how many equal it.

    `next_magnitude` is the next number above it in the type that all magnitudes were compared in.
    """

    magnitude: float
    next_magnitude: float
    smaller: int
    equal: int


def _shared_threshold(
    layers: Sequence[Weights],
    target: float,
    workers: int | None,
    advance: Callable[[int], None] | None,
) -> float:
    """The threshold for a share of the weights of all these layers together."""
    goal = target * sum(weights.size for weights in layers)
    if goal <= 0:
        return 0.0
    found = _kth_magnitude(layers, math.ceil(goal), workers, advance)
    if found.magnitude == 0.0 or goal - found.smaller <= found.smaller + found.equal - goal:
        return found.magnitude
    return found.next_magnitude


def _kth_magnitude(
    layers: Sequence[Weights],
    k: int,
    workers: int | None,
    advance: Callable[[int], None] | None,
) -> _Rank:
    """The k-th smallest magnitude (k from 1); infinite where it is not finite."""
    dtype = np.dtype(np.float64 if any(weights.wide for weights in layers) else np.float32)
    prefix, smaller, equal = 0, 0, 0
    for shift in range(8 * dtype.itemsize - _DIGIT_BITS, -1, -_DIGIT_BITS):
        counts = _digit_counts(layers, dtype, shift, prefix, workers, advance)
        cumulative = smaller + np.cumsum(counts)
        digit = int(np.searchsorted(cumulative, k))
        equal = int(counts[digit])
        smaller = int(cumulative[digit]) - equal
        prefix = prefix << _DIGIT_BITS | digit
    magnitude = np.array(prefix, f"u{dtype.itemsize}").view(dtype)
    if not np.isfinite(magnitude):
        return _Rank(math.inf, math.inf, smaller, equal)
    return _Rank(
        float(magnitude),
        float(np.nextafter(magnitude, magnitude.dtype.type(np.inf))),
        smaller,
        equal,
    )


def _digit_counts(
    layers: Sequence[Weights],
    dtype: np.dtype,
    shift: int,
    prefix: int,
    workers: int | None,
    advance: Callable[[int], None] | None,
) -> np.ndarray:
    """How often each 16-bit digit at `shift` follows `prefix` in the magnitudes' bits."""
    integer = np.dtype(f"i{dtype.itemsize}")
    magnitude_mask, is_top = int(np.iinfo(integer).max), shift + _DIGIT_BITS == 8 * dtype.itemsize

    def count(item: tuple[Weights, np.ndarray, int]) -> tuple[int, np.ndarray]:
        weights, chunk, start = item
        values = weights.values(chunk, start).astype(dtype, copy=False)
        magnitudes = values.view(integer) & magnitude_mask
        if not is_top:
            same = (magnitudes >> (shift + _DIGIT_BITS)) == prefix
            magnitudes = magnitudes[np.flatnonzero(same)]
        digits = (magnitudes >> shift) & (2**_DIGIT_BITS - 1)
        return chunk.nbytes, np.bincount(digits)

    items = (
        (weights, chunk, start) for weights in layers for chunk, start in slices(weights.payload)
    )
    total = np.zeros(2**_DIGIT_BITS, np.int64)
    for read, counts in ordered_map(count, items, workers=workers):
        total[: counts.size] += counts
        if advance:
            advance(read)
    return total
