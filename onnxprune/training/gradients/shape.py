"""Gradients of operators that change shapes and layouts: views, Transpose, Expand, Tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..builder import GraphBuilder
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("Reshape", "Flatten")
def reshape(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy in the shape of the input."""
    return [b.reshape_like(str(grads[0]), node.inputs[0])]


@gradient("Squeeze")
def squeeze(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy with the dropped axes inserted again; these may be known at run time only."""
    axes = node.input(1)
    if axes is None:
        return reshape(b, node, grads)
    return [b.op("Unsqueeze", str(grads[0]), axes)]


@gradient("Unsqueeze")
def unsqueeze(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy without the inserted axes."""
    return [b.op("Squeeze", str(grads[0]), node.inputs[1])]


@gradient("Transpose")
def transpose(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy with its axes in the old order; without an order both reverse all axes."""
    order: list[int] = node.attribute("perm", [])
    inverse = [int(axis) for axis in np.argsort(order)]
    return [b.op("Transpose", str(grads[0]), perm=inverse or None)]


@gradient("Expand")
def expand(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy summed over the expanded axes."""
    return [b.unbroadcast(str(grads[0]), node.inputs[0])]


@gradient("Tile")
def tile(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy summed over the copies: every axis splits into (copy, position)."""
    dy, (x, repeats) = str(grads[0]), node.inputs
    shape, counts = b.shape(x), b.constant_value(repeats)
    sizes: list[int | str | None] = []
    copies: list[int] = []
    for size, count in zip(shape or (), () if counts is None else counts.tolist(), strict=False):
        if count != 1:
            copies.append(len(sizes))
            sizes.append(count)
        sizes.append(size)
    free = sum(not isinstance(size, int) for size in sizes)
    if shape is None or counts is None or free > 1 or (free and 0 in sizes):
        return [_sum_of_copies(b, dy, x, repeats)]
    if not copies:
        return [dy]
    target = b.constant([size if isinstance(size, int) else -1 for size in sizes])
    split = b.op("Reshape", dy, target, allowzero=int(0 in sizes))
    return [b.reduce_sum(split, copies)]


def _sum_of_copies(b: GraphBuilder, dy: str, x: str, repeats: str) -> str:
    """The gradient of Tile where sizes or counts are known at run time only."""
    shape = b.shape_of(x)
    columns = [b.unsqueeze(name, [1]) for name in (repeats, shape)]
    sizes = b.op("Reshape", b.op("Concat", *columns, axis=1), b.constant([-1]))
    split = b.op("Reshape", dy, sizes, allowzero=1)
    zero, two = (b.constant(np.array(value, np.int64)) for value in (0, 2))
    rank = b.op("Squeeze", b.op("Shape", sizes))
    copies = b.op("Range", zero, rank, two)
    return b.op("ReduceSum", split, copies, keepdims=0)
