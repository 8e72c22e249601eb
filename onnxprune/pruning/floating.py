"""Floating-point weights of 16, 32 and 64 bits: magnitudes are compared as integers.

Without their sign bit, the bits of IEEE floats (and bfloat16) grow with the magnitude, subnormals,
infinities and NaN included. ``|w| < threshold`` is then an integer comparison with the bits of the
smallest storage value that is not below the threshold: exact, whatever the two precisions are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np

from ..model.payload import Payload
from .keep import Keep
from .stream import blocks

__all__ = ["FLOAT_DTYPES", "SMALLEST", "FloatWeights", "threshold_bits"]

#: The smallest threshold above zero: only zeros are below it.
SMALLEST = math.ulp(0.0)

FLOAT_DTYPES = frozenset(
    np.dtype(kind) for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
)


def threshold_bits(threshold: float, dtype: np.dtype) -> int:
    """Bits of the smallest value of `dtype` that is at least `threshold` (which is not negative).

    Those of infinity where the threshold is above every finite value.
    """
    integer = np.dtype(f"i{dtype.itemsize}")
    with np.errstate(over="ignore"):
        nearest = np.array([threshold], np.float64).astype(dtype)
    # One rounding error at most: the nearest value is the wanted one or its neighbour below.
    bits = int(nearest.view(integer)[0])
    return bits + 1 if float(nearest[0]) < threshold else bits


@dataclass(frozen=True, eq=False)
class FloatWeights:
    """Weights stored as float16, bfloat16, float32 or float64."""

    payload: Payload

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.payload.size

    @property
    def wide(self) -> bool:
        """Whether `values` are float64."""
        return self.payload.dtype == np.float64

    @cached_property
    def _integer(self) -> np.dtype:
        return np.dtype(f"i{self.payload.dtype.itemsize}")

    @cached_property
    def _magnitude_mask(self) -> int:
        return int(np.iinfo(self._integer).max)

    def values(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """The weights as float32, or float64 where they are stored so; a view where it can be."""
        if chunk.dtype == ml_dtypes.bfloat16:
            # bfloat16 is the upper half of a float32.
            return np.left_shift(chunk.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
        return chunk if chunk.dtype == np.float64 else chunk.astype(np.float32, copy=False)

    def alive(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """Which weights are not zero (of either sign)."""
        alive: np.ndarray = (chunk.view(self._integer) & self._magnitude_mask) != 0
        return alive

    def kept(self, chunk: np.ndarray, start: int, thresholds: Sequence[float]) -> list[int]:
        """How many weights each threshold leaves alive; zeros count as gone at threshold 0 too."""
        limits = [threshold_bits(threshold or SMALLEST, chunk.dtype) for threshold in thresholds]
        counts = [0] * len(limits)
        for block, _ in blocks(chunk):
            magnitudes = block.view(self._integer) & self._magnitude_mask
            for index, limit in enumerate(limits):
                counts[index] += int(np.count_nonzero(magnitudes >= limit))
        return counts

    def masked(self, chunk: np.ndarray, start: int, keep: Keep) -> np.ndarray:
        """A copy with +0.0 for every weight that does not stay."""
        kept = keep.part(start, start + chunk.size)
        result: np.ndarray = (chunk.view(self._integer) * kept).view(chunk.dtype)
        return result

    def prune(self, chunk: np.ndarray, start: int, threshold: float) -> np.ndarray:
        """A copy with +0.0 for every weight of magnitude below the threshold."""
        if threshold <= 0.0:
            return chunk
        last_pruned = threshold_bits(threshold, chunk.dtype) - 1
        sign_shift = 8 * self._integer.itemsize - 1
        pruned = np.empty(chunk.size, self._integer)
        for block, offset in blocks(chunk):
            bits, mask = block.view(self._integer), pruned[offset : offset + block.size]
            # The sign of (last pruned - magnitude), spread over all bits, keeps or clears a weight:
            # four passes over the cache, where masked assignment is six times slower.
            np.bitwise_and(bits, self._magnitude_mask, out=mask)
            np.subtract(last_pruned, mask, out=mask)
            np.right_shift(mask, sign_shift, out=mask)
            np.bitwise_and(mask, bits, out=mask)
        return pruned.view(chunk.dtype)
