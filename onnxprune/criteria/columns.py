"""In which order SparseGPT takes the inputs of a layer, so that a pattern's are neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..pattern import BlockPattern, GroupPattern, Pattern
from ..pruning.axes import Axes
from ..pruning.patterns import in_blocks
from ..repair.jobs import Job
from ..repair.seen import OUTSIDE
from .wanted import axes

__all__ = ["Columns", "columns_of"]


@dataclass(frozen=True, eq=False)
class Columns:
    """An order of a layer's inputs.

    Attributes:
        order: Positions of the inputs, in their order.
        aligned: Whether the weights of every group or block of the pattern lie together in it, and
            groups and blocks follow each other from the start.
    """

    order: np.ndarray
    aligned: bool

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Values [..., inputs] of this order, in the layer's own."""
        result = np.empty_like(values)
        result[..., self.order] = values
        return result


def columns_of(job: Job, pattern: Pattern | None) -> Columns:
    """The order for a layer whose zeros can follow a pattern: the input axis runs fastest."""
    positions = job.sites[0].positions
    inputs = positions.shape[2]
    if pattern is None:
        return Columns(np.arange(inputs), True)
    if (positions == OUTSIDE).any():
        return Columns(np.arange(inputs), False)
    along = axes(job.layer)
    places = np.unravel_index(positions[0, 0], job.layer.shape)
    rest = [place for axis, place in enumerate(places) if axis not in (along.inputs, along.outputs)]
    order = np.lexsort((places[along.inputs], *rest[::-1]))
    rows, columns = _size(pattern)
    units = _units(job.layer.shape, along, BlockPattern(rows, columns))[positions[:, :, order]]
    groups, outputs, _ = units.shape
    if outputs % rows or inputs % columns:
        return Columns(order, False)
    blocks = units.reshape(groups, outputs // rows, rows, inputs // columns, columns)
    same = (blocks == blocks[:, :, :1, :, :1]).all()
    return Columns(order, bool(same))


def _size(pattern: Pattern) -> tuple[int, int]:
    if isinstance(pattern, GroupPattern):
        return 1, pattern.of
    return pattern.rows, pattern.columns


def _units(shape: tuple[int, ...], along: Axes, blocks: BlockPattern) -> np.ndarray:
    """The number of the block that each stored weight is in, flat."""
    grid = list(shape)
    grid[along.inputs] = -(-shape[along.inputs] // blocks.columns)
    if along.outputs is not None:
        grid[along.outputs] = -(-shape[along.outputs] // blocks.rows)
    numbers = np.arange(math.prod(grid)).reshape(grid)
    return in_blocks(numbers, shape, along, blocks).reshape(-1)
