"""Gradients of operators that pick and place elements by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node, gradient
from .scatter import scatter_copied, spread

Gradients = Sequence[str | None]

#: Tables of at most so many rows get their gradient by a matrix product, which is faster there
#: than adding row by row (20,000 rows of 64 into 50: 7 against 38 ms).
_ONE_HOT_ROWS = 256


@gradient("Gather")
def gather(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Every slice of dy added where it was taken: the gradient of embeddings."""
    return [_taken(b, node.inputs[0], node.inputs[1], node.attribute("axis", 0), str(grads[0]))]


def _taken(b: GraphBuilder, x: str, indices: str, axis: int, dy: str) -> str:
    """Gradient of x for dy = that of Gather(x, indices)."""
    shape, inner = b.shape(x), b.shape(indices)
    if shape is None or inner is None:
        return scatter_copied(b, x, dy, lambda places: b.op("Gather", places, indices, axis=axis))
    axis %= len(shape)
    size, chosen = shape[axis], b.constant_value(indices)
    if chosen is not None and isinstance(size, int):
        positions = np.where(chosen < 0, chosen + size, chosen).reshape(-1)
        if np.unique(positions).size == positions.size:
            rows = _in_one_axis(b, dy, x, axis, len(inner))
            return spread(b, rows, {axis: positions}, {axis: size})
    if axis == 0 and isinstance(size, int) and size <= _ONE_HOT_ROWS:
        return _by_product(b, x, indices, dy, size)
    rows = _in_one_axis(b, dy, x, axis, len(inner))
    column = b.op("Reshape", indices, b.constant([-1] + [1] * (len(shape) - axis - 1)))
    places = b.op("Expand", column, b.shape_of(rows))
    return b.op("ScatterElements", b.zeros_like(x), places, rows, axis=axis, reduction="add")


def _in_one_axis(b: GraphBuilder, dy: str, x: str, axis: int, count: int) -> str:
    """The `count` axes of dy that come from the indices made one, as in x."""
    if count == 1:
        return dy
    if count == 0:
        return b.unsqueeze(dy, [axis])
    shape = list(b.shape(x) or ())
    rows = b.shape(dy) or ()
    taken = rows[axis : axis + count]
    number = [size for size in taken if isinstance(size, int)]
    sizes = [*shape[:axis], int(np.prod(number)), *shape[axis + 1 :]]
    if len(number) < count:
        sizes[axis] = None
    if sum(not isinstance(size, int) for size in sizes) <= 1 and 0 not in sizes:
        return b.reshape(dy, [size if isinstance(size, int) else -1 for size in sizes])
    full = b.shape_of(dy)
    ends = [(0, axis), (axis, axis + count), (axis + count, len(rows))]
    cut = [b.op("Slice", full, b.constant([first]), b.constant([last])) for first, last in ends]
    cut[1] = b.op("ReduceProd", cut[1], keepdims=1)
    return b.op("Reshape", dy, b.op("Concat", *cut, axis=0), allowzero=1)


def _by_product(b: GraphBuilder, x: str, indices: str, dy: str, size: int) -> str:
    """One-hot rows, transposed, times dy."""
    count = b.rank(indices)
    wide = b.constant(np.array(size, np.int64))
    flat = b.cast(b.op("Reshape", indices, b.constant([-1])), wide)
    values = b.op("Concat", *(b.unsqueeze(b.scalar(v, x), [0]) for v in (0, 1)), axis=0)
    hot = b.op("OneHot", flat, wide, values)
    rows = b.op("Flatten", dy, axis=count)
    return b.reshape_like(b.op("Gemm", hot, rows, transA=1), x)


@gradient("GatherElements")
def gather_elements(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Every element of dy added where it was taken."""
    x, indices = node.inputs
    return [
        b.op(
            "ScatterElements",
            b.zeros_like(x),
            indices,
            str(grads[0]),
            axis=node.attribute("axis", 0),
            reduction="add",
        )
    ]


@gradient("GatherND")
def gather_nd(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Every element of dy added where it was taken."""
    x, indices = node.inputs
    batch = node.attribute("batch_dims", 0)
    return [
        scatter_copied(
            b,
            x,
            str(grads[0]),
            lambda places: b.op("GatherND", places, indices, batch_dims=batch),
        )
    ]


@gradient("ScatterElements", "ScatterND")
def scatter(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the updates where they went; to the data elsewhere, with "add" everywhere."""
    dy, (_, indices, updates) = str(grads[0]), node.inputs
    reduction = node.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise ModelError(
            f"{node.op_type} '{node.label}' with reduction '{reduction}' has no gradient; "
            "train only weights behind it"
        )
    elements = node.op_type == "ScatterElements"
    axis: dict[str, Any] = {"axis": node.attribute("axis", 0)} if elements else {}
    take = "GatherElements" if elements else "GatherND"
    by_updates = b.op(take, dy, indices, **axis)
    if reduction == "add":
        return [dy, None, by_updates]
    return [b.op(node.op_type, dy, indices, b.zeros_like(updates), **axis), None, by_updates]


@gradient("Compress")
def compress(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Every slice of dy where it was taken."""
    x, condition = node.inputs
    axis: int | None = node.attribute("axis", None)
    return [
        scatter_copied(
            b, x, str(grads[0]), lambda places: b.op("Compress", places, condition, axis=axis)
        )
    ]


@gradient("ReverseSequence")
def reverse_sequence(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy reversed in the same way."""
    axes: dict[str, Any] = {
        "batch_axis": node.attribute("batch_axis", 1),
        "time_axis": node.attribute("time_axis", 0),
    }
    return [b.op("ReverseSequence", str(grads[0]), node.inputs[1], **axes)]


@gradient("OneHot")
def one_hot(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the values (off, on) the sum of dy over the elements that have them."""
    dy, (indices, depth, values) = str(grads[0]), node.inputs
    flags = b.op("Concat", *(b.unsqueeze(b.scalar(v, dy), [0]) for v in (0, 1)), axis=0)
    hot = b.op("OneHot", indices, depth, flags, axis=node.attribute("axis", -1))
    on = b.op("ReduceSum", b.op("Mul", dy, hot), keepdims=0)
    off = b.op("Sub", b.op("ReduceSum", dy, keepdims=0), on)
    both = b.op("Concat", b.unsqueeze(off, [0]), b.unsqueeze(on, [0]), axis=0)
    return [None, None, b.reshape_like(both, values)]
