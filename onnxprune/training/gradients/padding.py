"""Gradients of Pad in all of its modes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..builder import GraphBuilder
from .registry import Node, gradient
from .scatter import pad as zeros_around
from .scatter import scatter_copied

Gradients = Sequence[str | None]


@gradient("Pad")
def pad(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy without the margins; what margins repeat of the input is added where it came from."""
    dy, (x, pads) = str(grads[0]), node.inputs[:2]
    mode = node.attribute("mode", "constant")
    axes = node.input(3)
    if mode == "constant":
        return _constant(b, node, dy)
    margins = _folds(b, node, mode)
    if margins is None:
        return [
            scatter_copied(
                b, x, dy, lambda places: b.op("Pad", places, pads, None, axes, mode=mode)
            )
        ]
    for axis, (before, after, size) in margins.items():
        dy = _folded(b, dy, axis, (before, after), size, mode)
    return [dy]


def _constant(b: GraphBuilder, node: Node, dy: str) -> Gradients:
    """Pad by what was cut off and cut what was added; the rest is the value's gradient."""
    pads, value, axes = node.inputs[1], node.input(2), node.input(3)
    known = b.constant_value(pads)
    back = b.op("Neg", pads) if known is None else b.constant(-known)
    inner = b.op("Pad", dy, back, None, axes)
    if value is None or not node.needs[2]:
        return [inner]
    # Sums of all and of the inside would cancel, and leave rounding errors.
    margins = b.op("Sub", dy, b.op("Pad", inner, pads, None, axes))
    outer = b.op("ReduceSum", margins, keepdims=0)
    return [inner, None, b.reshape_like(outer, value)]


def _folds(b: GraphBuilder, node: Node, mode: str) -> dict[int, tuple[int, int, int]] | None:
    """For every padded axis (before, after, size); None where that is not all that matters.

    That is: sizes known at run time only, negative margins, margins that repeat the input more
    than once.
    """
    shape, pads = b.shape(node.inputs[0]), b.constant_value(node.inputs[1])
    axes = b.constant_value(node.input(3))
    if shape is None or pads is None or (node.input(3) and axes is None):
        return None
    along = range(len(shape)) if axes is None else axes.tolist()
    found: dict[int, tuple[int, int, int]] = {}
    for axis, before, after in zip(along, *np.split(pads, 2), strict=True):
        if before == after == 0:
            continue
        size = shape[axis]
        if not isinstance(size, int):
            return None
        if min(before, after) < 0 or (mode == "wrap" and max(before, after) > size):
            return None
        found[axis % len(shape)] = int(before), int(after), size
    return found


def _folded(
    b: GraphBuilder, dy: str, axis: int, margins: tuple[int, int], size: int, mode: str
) -> str:
    """Both margins of one axis added to the elements between them that they repeat."""
    before, after = margins
    parts = [_cut(b, dy, axis, before, before + size)]
    # Where the first element of a margin goes.
    places = {
        "reflect": (1, size - 1 - after),
        "wrap": (size - before, 0),
        "edge": (0, size - 1),
    }[mode]
    ranges = (0, before), (before + size, before + size + after)
    for (first, last), place in zip(ranges, places, strict=True):
        if first == last:
            continue
        margin = _cut(b, dy, axis, first, last, backwards=mode == "reflect")
        width = last - first
        if mode == "edge":
            margin, width = b.reduce_sum(margin, [axis], keepdims=True), 1
        parts.append(zeros_around(b, margin, {axis: (place, size - place - width)}))
    return b.total(parts)


def _cut(b: GraphBuilder, x: str, axis: int, first: int, last: int, backwards: bool = False) -> str:
    """The elements first..last-1 of an axis, perhaps in reverse order."""
    start, end, step = first, last, 1
    if backwards:
        start, end, step = last - 1, first - 1 if first else -(2**31), -1
    return b.op("Slice", x, *(b.constant([value]) for value in (start, end, axis, step)))
