"""Nodes that show a constant with the same values in another shape, order or type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .attributes import find_attribute, integer, integers
from .constants import Constants, Stored
from .index import Node
from .quantization import stored_quantization
from .views import (
    View,
    flattened,
    joined,
    obscured,
    reshaped,
    sliced,
    split,
    squeezed,
    transposed,
    unsqueezed,
)

__all__ = ["is_join", "is_view", "join", "viewed"]


def is_view(node: Node) -> bool:
    """Whether a node shows its first input, or a part of it, with the same values."""
    if node.domain == "com.microsoft":
        return node.op_type in ("QuantizeLinear", "DequantizeLinear")
    return not node.domain and (node.op_type in _VIEWS or node.op_type == "Split")


def is_join(node: Node) -> bool:
    """Whether a node lays all its inputs side by side."""
    return node.op_type == "Concat" and not node.domain


def viewed(constants: Constants, node: Node, part: int, view: View, stored: Stored) -> View:
    """What the reader of a view node's output of number `part` sees, from what the node sees."""
    if node.op_type == "Split":
        return _split(constants, node, part, view)
    return _VIEWS[node.op_type](constants, node, view, stored)


def join(node: Node, view: View, parts: Sequence[View]) -> View:
    """What the reader of a Concat sees of one of its parts."""
    return joined(view, parts, integer(node.proto, "axis", 1))


def _same(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    return view


def _cast(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    return replace(view, cast=True)


def _transpose(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    attribute = find_attribute(node.proto, "perm")
    if attribute is not None and attribute.ref_attr_name:
        return obscured(view)
    return transposed(view, integers(node.proto, "perm"))


def _axes(constants: Constants, node: Node) -> tuple[int, ...] | None:
    """Axes of a Squeeze or Unsqueeze: an attribute below opset 13, the second input from 13 on."""
    listed = integers(node.proto, "axes")
    return listed if listed is not None else constants.numbers(node.input(1))


def _unsqueeze(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    return unsqueezed(view, _axes(constants, node))


def _squeeze(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    axes = _axes(constants, node)
    if axes is None and (node.input(1) is not None or find_attribute(node.proto, "axes")):
        return obscured(view)
    return squeezed(view, axes)


def _flatten(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    return flattened(view, integer(node.proto, "axis", 1))


def _reshape(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    listed = integers(node.proto, "shape")
    target = listed if listed is not None else constants.numbers(node.input(1))
    return reshaped(view, target, allow_zero=bool(integer(node.proto, "allowzero", 0)))


def _quantize(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    return replace(view, requantized=True)


def _dequantize(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    if view.requantized:
        return view
    if view.quantization is not None:
        return replace(view, problem="it is dequantised twice")
    scale = constants.constant(node.input(1))
    if scale is None:
        return replace(view, problem="its scale is made at run time")
    zero_point = constants.zero_point(node.input(2), stored)
    if zero_point is None:
        return replace(view, problem="its zero point is made at run time")
    axis = integer(node.proto, "axis", 1)
    block = integer(node.proto, "block_size", 0) or 0
    found = stored_quantization(view, stored.shape, scale, zero_point, axis, block)
    if isinstance(found, str):
        return replace(view, problem=found)
    return replace(view, quantization=found)


def _slice(constants: Constants, node: Node, view: View, stored: Stored) -> View:
    """Bounds are attributes below opset 10, inputs from 10 on."""

    def bounds(name: str, position: int) -> tuple[int, ...] | None:
        listed = integers(node.proto, name)
        return listed if listed is not None else constants.numbers(node.input(position))

    given = [bounds(*place) for place in (("starts", 1), ("ends", 2), ("axes", 3), ("steps", 4))]
    if any(node.input(i) is not None and given[i - 1] is None for i in (3, 4)):
        return obscured(view)
    return sliced(view, *given)


def _split(constants: Constants, node: Node, part: int, view: View) -> View:
    axis = integer(node.proto, "axis", 0)
    listed = integers(node.proto, "split")
    sizes = listed if listed is not None else constants.numbers(node.input(1))
    count = len(node.outputs)
    rank = view.rank
    if sizes is None and node.input(1) is None and view.shape and count and axis is not None:
        if rank is None or not -rank <= axis < rank:
            return obscured(view)
        total = view.shape[axis]
        even = -(-total // count)
        sizes = tuple(min(even, max(total - i * even, 0)) for i in range(count))
    return split(view, axis, sizes, part)


_VIEWS: dict[str, Callable[[Constants, Node, View, Stored], View]] = {
    "Identity": _same,
    "Cast": _cast,
    "CastLike": _cast,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Slice": _slice,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
