"""Operators that only lay values out anew, and where an axis goes through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx import NodeProto, helper

from ...model.domain import plain_domain
from ..builder import GraphBuilder
from ..values import FLOATS, Shape

__all__ = ["VIEWS", "axis_after", "is_unchanged", "is_view", "replayed"]


def is_view(node: NodeProto) -> bool:
    """Whether a node gives the elements of its first input in another shape or order."""
    return not plain_domain(node.domain) and node.op_type in VIEWS


def is_unchanged(b: GraphBuilder, node: NodeProto) -> bool:
    """Whether a node gives its first input as it is, up to the precision of its floats."""
    return (
        not plain_domain(node.domain)
        and node.op_type in _UNCHANGED
        and _UNCHANGED[node.op_type](b, node)
    )


def replayed(b: GraphBuilder, views: Sequence[NodeProto], name: str) -> str:
    """Append views, the first one first, on another value of the shape they began with."""
    for view in views:
        attributes = {a.name: helper.get_attribute_value(a) for a in view.attribute}
        name = b.op(view.op_type, name, *view.input[1:], **attributes)
    return name


def axis_after(b: GraphBuilder, view: NodeProto, axis: int) -> int | None:
    """Where an axis of a view's input is in its output; None where it is split, joined, unclear."""
    before, after = b.shape(view.input[0]), b.shape(view.output[0])
    if before is None or after is None:
        return None
    return VIEWS[view.op_type](b, view, axis, before, after)


# ---- where axes go -------------------------------------------------------------------------


def _transposed(b: GraphBuilder, view: NodeProto, axis: int, before: Shape, after: Shape) -> int:
    reverse = list(range(len(before)))[::-1]
    order = next((list(a.ints) for a in view.attribute if a.name == "perm"), reverse)
    return order.index(axis)


def _squeezed(
    b: GraphBuilder, view: NodeProto, axis: int, before: Shape, after: Shape
) -> int | None:
    if len(view.input) < 2:
        return _reshaped(b, view, axis, before, after)
    dropped = _axes(b, view, len(before))
    if dropped is None or axis in dropped:
        return None
    return axis - sum(other < axis for other in dropped)


def _unsqueezed(
    b: GraphBuilder, view: NodeProto, axis: int, before: Shape, after: Shape
) -> int | None:
    inserted = _axes(b, view, len(after))
    if inserted is None:
        return None
    return [other for other in range(len(after)) if other not in inserted][axis]


def _axes(b: GraphBuilder, view: NodeProto, rank: int) -> list[int] | None:
    value = b.constant_value(view.input[1])
    return None if value is None else [int(axis) % rank for axis in value.reshape(-1)]


def _reshaped(
    b: GraphBuilder, view: NodeProto, axis: int, before: Shape, after: Shape
) -> int | None:
    """The axis of the same size with as many elements behind it, or in front of it."""
    size = before[axis]
    if not isinstance(size, int):
        return None
    sides: tuple[Callable[[Shape, int], Shape], ...] = (
        lambda shape, place: shape[place + 1 :],
        lambda shape, place: shape[:place],
    )
    for place, other in enumerate(after):
        if other == size and any(
            _elements(side(before, axis)) == _elements(side(after, place)) for side in sides
        ):
            return place
    return None


def _elements(shape: Shape) -> tuple[int, list[str]]:
    """The number of elements: a factor, and the names of the sizes that multiply it."""
    known = math.prod(size for size in shape if isinstance(size, int))
    return known, sorted(str(size) for size in shape if not isinstance(size, int))


#: For every view, where an axis of its input goes.
VIEWS: dict[str, Callable[[GraphBuilder, NodeProto, int, Shape, Shape], int | None]] = {
    "Flatten": _reshaped,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}


# ---- what changes nothing ------------------------------------------------------------------


def _keeps_floats(b: GraphBuilder, node: NodeProto) -> bool:
    types = b.values.dtype(node.input[0]), b.values.dtype(node.output[0])
    return all(known in FLOATS for known in types)


def _is_inactive(b: GraphBuilder, node: NodeProto) -> bool:
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = b.constant_value(node.input[2])
    return training is not None and not training.any()


_UNCHANGED: dict[str, Callable[[GraphBuilder, NodeProto], bool]] = {
    "Cast": _keeps_floats,
    "CastLike": _keeps_floats,
    "Dropout": _is_inactive,
    "Identity": lambda b, node: True,
}
