"""Quantisation parameters spread over the elements of a slice: per tensor, per axis, per block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from ..model.payload import CHUNK

__all__ = ["Spread", "spread_over"]


@dataclass(frozen=True, eq=False)
class Spread:
    """Parameters of a tensor's elements in row-major order.

    Attributes:
        rows: 0-d: one for all. (n,): one per row. (n, run): one for every element of each row.
        run: Successive elements that make a row.
        period: Rows after which the parameters of (n,) start again, or rows of an outer index
            for (n, run).
        block: Successive rows that share their parameters, for (n, run).
    """

    rows: np.ndarray
    run: int = 1
    period: int = 1
    block: int = 1

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Spread:
        """The same layout for other parameters computed from these."""
        return replace(self, rows=function(self.rows))

    def over(self, start: int, stop: int) -> np.ndarray:
        """Parameters of the elements in [start, stop): 0-d, or one each."""
        if self.rows.ndim == 0:
            return self.rows
        if self._pattern is not None:
            offset = start % self._pattern.size
            repeats = -(-(offset + stop - start) // self._pattern.size)
            return np.tile(self._pattern, repeats)[offset : offset + stop - start]
        first, last = start // self.run, -(-stop // self.run)
        numbers = np.arange(first, last)
        if self.rows.ndim == 1:
            spread = np.repeat(self.rows[numbers % self.period], self.run)
        else:
            outer, inner = np.divmod(numbers, self.period)
            per_outer = -(-self.period // self.block)
            spread = self.rows[outer * per_outer + inner // self.block].reshape(-1)
        return spread[start - first * self.run :][: stop - start]

    @cached_property
    def _pattern(self) -> np.ndarray | None:
        """All parameters of one short period, to be tiled: faster than an index per element."""
        if self.rows.ndim == 1 and self.period * self.run <= CHUNK:
            return np.repeat(self.rows, self.run)
        return None


def spread_over(
    parameter: np.ndarray, shape: Sequence[int], axis: int | None, block_size: int
) -> Spread:
    """How a scale or zero point lies over a tensor of this shape.

    Args:
        parameter: One element; or 1-d along `axis`; or, with `block_size` > 0, of the tensor's
            rank with one entry per block along `axis`.
        shape: Shape of the tensor.
        axis: The axis that parameters or blocks run along; None for one parameter.
        block_size: Elements per block, 0 where there are no blocks.

    Raises:
        ValueError: The parameter does not fit the shape.
    """
    if parameter.size == 1:
        return Spread(parameter.reshape(()))
    if axis is None:
        raise ValueError(f"{parameter.size} parameters and no axis")
    length, run = shape[axis], prod(shape[axis + 1 :])
    if not block_size:
        expected: tuple[int, ...] = (length,)
    else:
        expected = (*shape[:axis], -(-length // block_size), *shape[axis + 1 :])
    if parameter.shape != expected:
        raise ValueError(f"parameters of shape {parameter.shape} where {expected} are needed")
    if not block_size:
        return Spread(parameter, run, length)
    if run == 1 and length % block_size == 0:
        return Spread(parameter.reshape(-1), block_size, parameter.size)
    return Spread(parameter.reshape(-1, run), run, length, block_size)
