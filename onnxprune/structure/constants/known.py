"""What is known of a value whatever the inputs are: the channels that hold a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

__all__ = ["LIMIT", "Known", "joined", "known", "stored", "wide"]

Mask = npt.NDArray[np.bool_]

#: Elements of the largest array that is computed here; larger ones count as unknown.
LIMIT = 1 << 24


@dataclass(frozen=True, eq=False)
class Known:
    """Elements of a value that are the same in every run.

    Attributes:
        values: Their values. The array has the rank of the value; an axis of length one stands
            for all its indices, so a channel's constant takes one element. Zero where not known.
        mask: Which of them are known, in the same shape.
    """

    values: np.ndarray
    mask: Mask

    @property
    def zero(self) -> Mask:
        """Where the value is known to be zero."""
        found: Mask = self.mask & (self.values == 0)
        return found

    def along(self, axis: int, size: int) -> Known:
        """The same with an axis of length one written out."""
        shape = list(self.mask.shape)
        if shape[axis] == size:
            return self
        shape[axis] = size
        return Known(np.broadcast_to(self.values, shape), np.broadcast_to(self.mask, shape))

    def uniform(self, *axes: int) -> bool:
        """Whether it is the same at all indices of these axes."""
        return all(self.mask.shape[axis] == 1 for axis in axes)

    def uniform_but(self, axis: int) -> bool:
        """Whether it is the same at all indices of every other axis."""
        axis %= self.mask.ndim
        return all(size == 1 for i, size in enumerate(self.mask.shape) if i != axis)


def known(values: np.ndarray, mask: Mask) -> Known | None:
    """A `Known` from values of any kind at unknown places; None where nothing is known.

    What is not finite counts as unknown.
    """
    mask = np.broadcast_to(mask, np.broadcast_shapes(values.shape, mask.shape))
    values = np.broadcast_to(values, mask.shape)
    if values.dtype.kind == "f":
        mask = mask & np.isfinite(values)
    if not mask.any():
        return None
    return Known(np.where(mask, values, np.zeros((), values.dtype)), mask)


def stored(array: np.ndarray) -> Known:
    """All of a constant tensor."""
    return Known(array, np.broadcast_to(np.True_, array.shape))


def joined(parts: Sequence[Known | None], sizes: Sequence[int], axis: int) -> Known | None:
    """Values laid one after the other along an axis on which they have these sizes."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    rank = found[0].mask.ndim
    shape = [1] * rank
    for part in found:
        shape = [max(pair) for pair in zip(shape, part.mask.shape, strict=True)]
    shape[axis] = sum(sizes)
    if prod(shape) > LIMIT:
        return None
    values = np.zeros(shape, np.result_type(*(wide(part.values).dtype for part in found)))
    mask = np.zeros(shape, bool)
    start = 0
    for fact, size in zip(parts, sizes, strict=True):
        if fact is not None:
            place = (slice(None),) * axis + (slice(start, start + size),)
            values[place], mask[place] = wide(fact.values), fact.mask
        start += size
    return known(values, mask)


def wide(array: np.ndarray) -> np.ndarray:
    """Floating-point numbers in float64, so that nothing is lost on the way; others as they are."""
    floating = array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))
    return array.astype(np.float64) if floating and array.dtype != np.float64 else array
