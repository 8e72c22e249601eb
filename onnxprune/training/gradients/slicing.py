"""Gradients of operators that cut and join: Concat, Split, Slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..builder import GraphBuilder
from .registry import Node, gradient
from .scatter import scatter_copied, spread

Gradients = Sequence[str | None]


@gradient("Concat")
def concat(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy cut where the inputs meet."""
    dy, names = str(grads[0]), node.inputs
    if len(names) == 1:
        return [dy]
    axis = node.attribute("axis", 0)
    known = [_size(b, name, axis) for name in names]
    sizes = [size for size in known if size is not None]
    if len(sizes) == len(names):
        lengths = b.constant(sizes)
    else:
        end = axis + 1 or None
        lengths = b.op(
            "Concat",
            *(
                b.op("Shape", name, start=axis, end=end) if size is None else b.constant([size])
                for name, size in zip(names, known, strict=True)
            ),
            axis=0,
        )
    return b.ops("Split", dy, lengths, outputs=len(names), axis=axis)


def _size(b: GraphBuilder, name: str, axis: int) -> int | None:
    shape = b.shape(name)
    size = None if shape is None else shape[axis]
    return size if isinstance(size, int) else None


@gradient("Split")
def split(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """The gradients joined, zeros for parts that the loss does not depend on."""
    parts = [
        b.zeros_like(node.output(b, index)) if slope is None else slope
        for index, slope in enumerate(grads)
    ]
    axis = node.attribute("axis", 0)
    return [parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=axis)]


@gradient("Slice")
def slice_(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy at the places that were taken, zeros elsewhere."""
    dy, x = str(grads[0]), node.inputs[0]
    positions = _positions(b, node)
    if positions is not None:
        shape = b.shape(x) or ()
        sizes = {axis: size for axis, size in enumerate(shape) if isinstance(size, int)}
        return [spread(b, dy, positions, sizes)]
    steps = b.constant_value(node.input(4))
    if node.input(4) is None or (steps is not None and (steps == 1).all()):
        margins = _margins(b, node)
        if margins is not None:
            return [b.op("Pad", dy, *margins)]
    return [scatter_copied(b, x, dy, lambda places: b.op("Slice", places, *node.inputs[1:]))]


def _positions(b: GraphBuilder, node: Node) -> dict[int, np.ndarray] | None:
    """For every sliced axis the positions taken; None where known at run time only."""
    before, after = b.shape(node.inputs[0]), b.shape(node.outputs[0])
    bounds = [b.constant_value(name) for name in node.inputs[1:]]
    given = [name or None for name in node.inputs[1:]]
    if before is None or after is None:
        return None
    if any(bound is None for bound, name in zip(bounds, given, strict=True) if name):
        return None
    starts, ends, axes, steps = [
        [] if bound is None else bound.tolist() for bound in (*bounds, None, None)[:4]
    ]
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    found: dict[int, np.ndarray] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(before)
        size = before[axis]
        if not isinstance(size, int):
            return None
        found[axis] = np.arange(size)[start:end:step]
        if after[axis] != found[axis].size:
            return None  # bounds that Python clamps in another way
    return found


def _margins(b: GraphBuilder, node: Node) -> tuple[str, str | None, str] | None:
    """What was cut off before and after a slice of step 1, as the further inputs of Pad.

    None where even the axes are known at run time only.
    """
    x, start, axes = node.inputs[0], node.inputs[1], b.constant_value(node.input(3))
    count = b.shape(start)
    if axes is None and (node.input(3) or count is None or not isinstance(count[0], int)):
        return None
    along = b.constant(range(int(str(count[0]))) if axes is None and count else _int64(axes))
    starts = b.cast(start, along)
    sizes, taken = (
        b.op("Gather", b.shape_of(name), along, axis=0) for name in (x, node.outputs[0])
    )
    zero = b.constant(np.array(0, np.int64))
    from_end = b.op("Less", starts, zero)
    begin = b.op("Where", from_end, b.op("Add", starts, sizes), starts)
    begin = b.op("Max", begin, zero)  # a start beyond the end leaves a negative rest: nothing
    rest = b.op("Sub", b.op("Sub", sizes, begin), taken)
    return b.op("Concat", begin, rest, axis=0), None, along


def _int64(axes: np.ndarray | None) -> np.ndarray:
    return np.asarray(axes, np.int64)
