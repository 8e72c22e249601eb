"""Which weights stay where zeros follow a pattern, from a score for each weight.

All functions work on a layer's stored tensor, whatever the order of its axes.
"""

from __future__ import annotations

import numpy as np

from ..pattern import BlockPattern
from .axes import Axes

__all__ = ["block_scores", "in_blocks", "keep_groups"]

#: Weights whose groups are ranked at a time.
PIECE = 2**22


def keep_groups(scores: np.ndarray, axes: Axes, keep: int, of: int) -> np.ndarray:
    """The `keep` of the highest scores in every group; of equal ones, the first.

    Args:
        scores: One for each weight, not negative, in the stored shape; the input axis is a
            multiple of `of`.
        axes: Its axes: groups are `of` neighbours along the inputs, for each output and tap.
        keep: How many of a group stay.
        of: Size of a group.

    Returns:
        Which weights stay, in the stored shape.
    """
    kept = np.empty(scores.shape, bool)
    # Views with the input axis last; the groups of a long first axis are ranked in parts.
    moved, target = np.moveaxis(scores, axes.inputs, -1), np.moveaxis(kept, axes.inputs, -1)
    if moved.ndim == 1:
        moved, target = moved[None], target[None]
    step = max(1, PIECE // max(moved[0].size, 1))
    for start in range(0, len(moved), step):
        part = moved[start : start + step]
        groups = part.reshape(*part.shape[:-1], part.shape[-1] // of, of)
        ranks = np.argsort(np.argsort(-groups, axis=-1, kind="stable"), axis=-1, kind="stable")
        target[start : start + step] = (ranks < keep).reshape(part.shape)
    return kept


def block_scores(
    scores: np.ndarray, axes: Axes, pattern: BlockPattern
) -> tuple[np.ndarray, np.ndarray]:
    """The root mean square of the scores in every block, and how many weights it has.

    Blocks start at the first output and input; those at the end of an axis have fewer weights.

    Returns:
        Both in the stored shape, with a number for each block along outputs and inputs.
    """
    squares = np.square(scores, dtype=np.float64)
    sizes = np.ones(scores.shape, np.int32)
    for axis, length in _lengths(axes, pattern):
        starts = np.arange(0, scores.shape[axis], length)
        squares = np.add.reduceat(squares, starts, axis=axis) if starts.size else squares
        sizes = np.add.reduceat(sizes, starts, axis=axis) if starts.size else sizes
    return np.sqrt(squares / np.maximum(sizes, 1)).astype(np.float32), sizes


def in_blocks(
    kept: np.ndarray, shape: tuple[int, ...], axes: Axes, pattern: BlockPattern
) -> np.ndarray:
    """Which weights of a stored shape stay, from which blocks do."""
    for axis, length in _lengths(axes, pattern):
        kept = np.repeat(kept, length, axis=axis)
    result: np.ndarray = kept[tuple(slice(size) for size in shape)]
    return result


def _lengths(axes: Axes, pattern: BlockPattern) -> list[tuple[int, int]]:
    """Axes that blocks extend along, and by how many weights."""
    along = [(axes.inputs, pattern.columns)]
    return along if axes.outputs is None else [*along, (axes.outputs, pattern.rows)]
