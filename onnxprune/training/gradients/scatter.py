"""Putting gradients of copied elements back where the elements came from.

ScatterND with reduction "add" is not used: onnxruntime's CPU kernel adds in parallel without
locks and loses sums where an index occurs twice. ScatterElements adds one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..builder import GraphBuilder

__all__ = ["pad", "scatter_copied", "spread"]


def scatter_copied(b: GraphBuilder, x: str, dy: str, copy: Callable[[str], str]) -> str:
    """Gradient of any operator that copies elements of `x`, however often and in whatever order.

    Args:
        b: The builder.
        x: The value that was copied from; nothing need be known of its shape.
        dy: The gradient of the copy.
        copy: Appends the operator to an int64 tensor of the shape of `x`.
    """
    static = b.static_shape(x)
    if static is not None:
        count = b.constant(np.array(int(np.prod(static)), np.int64))
    else:
        count = b.op("Size", x)
    zero, one = (b.constant(np.array(value, np.int64)) for value in (0, 1))
    places = b.op("Reshape", b.op("Range", zero, count, one), b.shape_of(x), allowzero=1)
    copied = b.op("Reshape", copy(places), b.constant([-1]))
    flat = b.op("Reshape", b.zeros_like(x), b.constant([-1]))
    slopes = b.op("Reshape", dy, b.constant([-1]))
    summed = b.op("ScatterElements", flat, copied, slopes, axis=0, reduction="add")
    return b.reshape_like(summed, x)


def spread(
    b: GraphBuilder, dy: str, positions: Mapping[int, np.ndarray], sizes: Mapping[int, int]
) -> str:
    """Put slices of `dy` at fixed positions of longer axes, zeros elsewhere.

    Args:
        b: The builder.
        dy: A value of known rank.
        positions: For every axis (0 or more) where its slices go; none occurs twice.
        sizes: The new length of every axis in `positions`.
    """
    margins: dict[int, tuple[int, int]] = {}
    for axis, places in positions.items():
        first = int(places[0]) if places.size else 0
        if np.array_equal(places, np.arange(first, first + places.size)):
            margins[axis] = first, sizes[axis] - first - places.size
            continue
        source = np.full(sizes[axis], places.size, np.int64)
        source[places] = np.arange(places.size)
        if places.size < sizes[axis]:
            dy = pad(b, dy, {axis: (0, 1)})
        dy = b.op("Gather", dy, b.constant(source), axis=axis)
    return pad(b, dy, margins)


def pad(b: GraphBuilder, x: str, margins: Mapping[int, tuple[int, int]]) -> str:
    """Zeros before and after `x`, which has a known rank, along some axes (0 or more)."""
    if not any(size for margin in margins.values() for size in margin):
        return x
    both = [margins.get(axis, (0, 0)) for axis in range(b.rank(x))]
    sizes = [before for before, _ in both] + [after for _, after in both]
    return b.op("Pad", x, b.constant(sizes))
