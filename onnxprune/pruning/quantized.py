"""Quantised weights: codes that stand for ``(code - zero_point) * scale``, pruned to their zero.

Integers: ``|code - zero_point| * scale < threshold`` becomes, for every scale once, an integer
limit on ``|code - zero_point|``. Float8: 256 codes, so a table of their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from ..model.dtypes import PACKED_BITS, logical_dtype, type_name
from ..model.payload import Payload
from .floating import SMALLEST
from .keep import Keep
from .spread import Spread, spread_over

__all__ = ["INTEGER_TYPES", "Float8Weights", "QuantizedWeights"]

INTEGER_TYPES = frozenset(
    ("int8", "uint8", "int16", "uint16", "int32", "int4", "uint4", "int2", "uint2")
)
#: Integers that hold the difference of any two codes of so many bits, and one more.
_DIFFERENCES = {2: np.int16, 4: np.int16, 8: np.int16, 16: np.int32, 32: np.int64}


@dataclass(frozen=True, eq=False)
class QuantizedWeights:
    """Integer codes of 2 to 32 bits, packed where smaller than a byte.

    `scale` None stands for 1. Magnitudes are float64 products of the code's distance from its
    zero point and the scale; a scale of 0 makes every weight zero.
    """

    payload: Payload
    data_type: int
    shape: tuple[int, ...]
    zero_point: np.ndarray
    scale: np.ndarray | None = None
    axis: int | None = None
    block_size: int = 0
    _limits: dict[float, Spread] = field(default_factory=dict, init=False, repr=False)

    wide = True

    @property
    def size(self) -> int:
        """Number of weights (not of the bytes that pack them)."""
        return prod(self.shape)

    @cached_property
    def _bits(self) -> int:
        return PACKED_BITS.get(self.data_type, 8 * self.payload.dtype.itemsize)

    @cached_property
    def _per_element(self) -> int:
        """Codes per storage element."""
        return 8 // self._bits if self.data_type in PACKED_BITS else 1

    @cached_property
    def _zeros(self) -> Spread:
        difference = np.dtype(_DIFFERENCES[self._bits])
        # By way of a common integer: ml_dtypes' small integers do not cast to every type.
        zero_point = np.asarray(self.zero_point).astype(np.int32).astype(difference)
        return spread_over(zero_point, self.shape, self.axis, self.block_size)

    @cached_property
    def _scales(self) -> Spread:
        scale = np.ones(()) if self.scale is None else np.asarray(self.scale).astype(np.float64)
        return spread_over(scale, self.shape, self.axis, self.block_size)

    def values(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """The dequantised weights in float64."""
        distances, first, last = self._distances(chunk, start)
        with np.errstate(invalid="ignore", over="ignore"):
            values: np.ndarray = distances * self._scales.over(first, last)
        return values

    def alive(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """Which weights are not zero."""
        return self._at_least(*self._distances(chunk, start), SMALLEST)

    def kept(self, chunk: np.ndarray, start: int, thresholds: Sequence[float]) -> list[int]:
        """How many weights each threshold leaves alive; zeros count as gone at threshold 0 too."""
        place = self._distances(chunk, start)
        return [
            int(np.count_nonzero(self._at_least(*place, threshold or SMALLEST)))
            for threshold in thresholds
        ]

    def prune(self, chunk: np.ndarray, start: int, threshold: float) -> np.ndarray:
        """A copy with the zero point for every weight of magnitude below the threshold."""
        if threshold <= 0.0:
            return chunk
        distances, first, last = self._distances(chunk, start)
        kept = self._at_least(distances, first, last, threshold)
        return self._stored(chunk, distances * kept, first, last)

    def masked(self, chunk: np.ndarray, start: int, keep: Keep) -> np.ndarray:
        """A copy with the zero point for every weight that does not stay."""
        distances, first, last = self._distances(chunk, start)
        return self._stored(chunk, distances * keep.part(first, last), first, last)

    def _stored(
        self, chunk: np.ndarray, distances: np.ndarray, first: int, last: int
    ) -> np.ndarray:
        """Storage elements of weights at these distances from their zero points."""
        distances = distances + self._zeros.over(first, last)
        if self._per_element == 1:
            return distances.astype(chunk.dtype)
        codes = self._unpacked(chunk)
        codes[: last - first] = distances.astype(np.uint8) & (2**self._bits - 1)
        return self._packed(codes)

    def _distances(self, chunk: np.ndarray, start: int) -> tuple[np.ndarray, int, int]:
        """Codes minus their zero points, and the range [first, last) of weights that they are."""
        first = start * self._per_element
        last = min(first + chunk.size * self._per_element, self.size)
        zeros = self._zeros.over(first, last)
        if self._per_element == 1:
            return np.subtract(chunk, zeros, dtype=zeros.dtype), first, last
        codes = self._unpacked(chunk)[: last - first].astype(zeros.dtype)
        if not type_name(self.data_type).startswith("u"):
            sign = 1 << (self._bits - 1)
            codes = (codes ^ sign) - sign
        return codes - zeros, first, last

    def _at_least(
        self, distances: np.ndarray, first: int, last: int, threshold: float
    ) -> np.ndarray:
        """Which magnitudes are not below the threshold."""
        if threshold not in self._limits:
            self._limits[threshold] = self._scales.map(
                lambda scale: _distance_limits(threshold, np.abs(scale), self._bits)
            )
        at_least: np.ndarray = np.abs(distances) >= self._limits[threshold].over(first, last)
        return at_least

    def _unpacked(self, chunk: np.ndarray) -> np.ndarray:
        """One byte per code, in order, padding included."""
        count = self._per_element
        codes = np.empty(chunk.size * count, np.uint8)
        for place in range(count):
            codes[place::count] = (chunk >> (place * self._bits)) & (2**self._bits - 1)
        return codes

    def _packed(self, codes: np.ndarray) -> np.ndarray:
        """The inverse of `_unpacked`."""
        count = self._per_element
        packed = codes[::count].copy()
        for place in range(1, count):
            packed |= codes[place::count] << (place * self._bits)
        return packed


def _distance_limits(threshold: float, scale: np.ndarray, bits: int) -> np.ndarray:
    """Smallest whole distances whose float64 product with `scale` is at least `threshold` (> 0)."""
    beyond = 2**bits
    with np.errstate(all="ignore"):
        limits = np.minimum(np.ceil(threshold / scale), beyond)
        # The quotient is rounded; the product decides.
        limits -= (limits - 1) * scale >= threshold
        limits += limits * scale < threshold
    limits = np.where(scale > 0, np.minimum(limits, beyond), beyond)
    # Weights with a NaN or infinite scale are not zero and never go.
    limits = np.where(np.isfinite(scale), limits, 0)
    return limits.astype(_DIFFERENCES[bits])


@dataclass(frozen=True, eq=False)
class Float8Weights:
    """Float8 codes of any kind, with or without a scale; their zero point is 0."""

    payload: Payload
    data_type: int
    shape: tuple[int, ...]
    scale: np.ndarray | None = None
    axis: int | None = None
    block_size: int = 0

    wide = True

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.payload.size

    @cached_property
    def _table(self) -> np.ndarray:
        codes = np.arange(256, dtype=np.uint8).view(logical_dtype(self.data_type))
        return codes.astype(np.float32).astype(np.float64)

    @cached_property
    def _scales(self) -> Spread:
        scale = np.ones(()) if self.scale is None else np.asarray(self.scale).astype(np.float64)
        return spread_over(scale, self.shape, self.axis, self.block_size)

    def values(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """The dequantised weights in float64."""
        with np.errstate(invalid="ignore", over="ignore"):
            values: np.ndarray = self._table[chunk.view(np.uint8)] * self._scales.over(
                start, start + chunk.size
            )
        return values

    def alive(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """Which weights are not zero."""
        alive: np.ndarray = self.values(chunk, start) != 0
        return alive

    def kept(self, chunk: np.ndarray, start: int, thresholds: Sequence[float]) -> list[int]:
        """How many weights each threshold leaves alive; zeros count as gone at threshold 0 too."""
        magnitudes = np.abs(self.values(chunk, start))
        below = (np.count_nonzero(magnitudes < (t or SMALLEST)) for t in thresholds)
        return [chunk.size - int(count) for count in below]

    def prune(self, chunk: np.ndarray, start: int, threshold: float) -> np.ndarray:
        """A copy with +0.0 for every weight of magnitude below the threshold."""
        if threshold <= 0.0:
            return chunk
        below = np.abs(self.values(chunk, start)) < threshold
        return np.where(below, np.uint8(0), chunk.view(np.uint8)).view(chunk.dtype)

    def masked(self, chunk: np.ndarray, start: int, keep: Keep) -> np.ndarray:
        """A copy with +0.0 for every weight that does not stay."""
        kept = keep.part(start, start + chunk.size)
        return np.where(kept, chunk.view(np.uint8), np.uint8(0)).view(chunk.dtype)
