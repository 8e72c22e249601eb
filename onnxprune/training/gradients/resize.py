"""Gradients of resizing and of moving space to channels and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import ModelError
from ..builder import GraphBuilder
from ..values import Dim
from .registry import Node, gradient
from .windows import spatial_of

Gradients = Sequence[str | None]

#: Attributes of Resize that shape its interpolation. The extrapolation value is none of them: it
#: is added to the result, whatever the input.
_INTERPOLATION = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "mode",
    "nearest_mode",
)


@gradient("Resize")
def resize(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """The transposed interpolation matrix of every axis times dy.

    Resizing is linear and treats each axis by itself. Its matrix is what it makes of an identity
    matrix; onnxruntime computes that once, when it loads the model, where sizes are known.
    """
    if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ModelError(
            f"Resize '{node.label}' keeps the aspect ratio, which has no gradient here; "
            "give it the sizes that it ends up with"
        )
    found, x = str(grads[0]), node.inputs[0]
    rank = b.rank(x)
    axes = [axis % rank for axis in node.attribute("axes", list(range(rank)))]
    if b.shape(x) == b.shape(node.outputs[0]):
        return [found]
    factors = _repeats(b, node, axes)
    if factors is not None:
        return [_block_sums(b, found, factors)]
    for index, axis in enumerate(axes):
        if not _unchanged(b, node, index, axis):
            found = _along(b, found, _matrix(b, node, index, axis, len(axes)), axis, rank)
    return [found]


def _sized(node: Node) -> bool:
    """Whether the node has output sizes rather than scales."""
    return node.input(3) is not None


def _cropping(node: Node) -> bool:
    return node.attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize"


def _unchanged(b: GraphBuilder, node: Node, index: int, axis: int) -> bool:
    """Whether an axis is known to stay as it is."""
    if _cropping(node):
        return False
    if not _sized(node):
        scales = b.constant_value(node.input(2))
        return scales is not None and bool(scales[index] == 1)
    size = b.shape(node.inputs[0]) or ()
    # onnxruntime interpolates between samples of a batch in no form.
    batch = axis == 0 and len(size) > 3 and node.attribute("mode", "nearest") != "nearest"
    return batch or size[axis] == _entry(b, node.inputs[3], index)


def _entry(b: GraphBuilder, vector: str, index: int) -> Dim:
    """An element of a vector of sizes: its value, or which unknown size it is; None: neither.

    Follows the ways in which exporters put together the sizes of other values.
    """
    known = b.constant_value(vector)
    if known is not None:
        return int(known.reshape(-1)[index])
    maker = next((node for node in b.graph.node if vector in node.output), None)
    if maker is None:
        return None
    node = Node(maker, "", ())
    first = node.inputs[0]
    if node.op_type == "Shape":
        shape, start = b.shape(first), node.attribute("start", 0)
        return shape[start:][index] if shape is not None else None
    if node.op_type in ("Cast", "Identity", "Unsqueeze"):
        return _entry(b, first, index)
    if node.op_type == "Concat":
        return _entry_of_parts(b, node.inputs, index)
    if node.op_type in ("Gather", "Slice"):
        chosen, step = b.constant_value(node.inputs[1]), b.constant_value(node.input(4))
        length = (b.shape(first) or (None,))[0]
        if chosen is None or not isinstance(length, int) or (step is not None and step != 1):
            return None
        places = chosen.reshape(-1)
        place = places[index] if node.op_type == "Gather" else places[0] + index
        return _entry(b, first, int(place) % length)
    return None


def _entry_of_parts(b: GraphBuilder, parts: Sequence[str], index: int) -> Dim:
    for part in parts:
        length = (b.shape(part) or (None,))[0]
        if not isinstance(length, int):
            return None
        if index < length:
            return _entry(b, part, index)
        index -= length
    return None


def _matrix(b: GraphBuilder, node: Node, index: int, axis: int, count: int) -> str:
    """Weight of every input position (rows) in every output position (columns) of an axis."""
    x = node.inputs[0]
    known = (b.shape(x) or ())[axis]
    size = (
        b.constant([known])
        if isinstance(known, int)
        else b.op("Shape", x, start=axis, end=axis + 1)
    )
    identity = b.op("EyeLike", b.op("ConstantOfShape", b.op("Concat", size, size, axis=0)))
    # Rows as channels; an axis between that becomes larger, for onnxruntime copies what keeps
    # its shape, whatever the scales are.
    identity = b.cast(b.unsqueeze(identity, [0, 2]), x)
    place = b.constant([index])
    region = scales = sizes = None
    if _cropping(node):
        start, end = (
            b.op("Gather", node.inputs[1], b.constant([at])) for at in (index, index + count)
        )
        zeros, ones = (b.cast(b.constant(np.full(3, at, np.float32)), start) for at in (0, 1))
        region = b.op("Concat", zeros, start, ones, end, axis=0)
    if _sized(node):
        made = b.op("Gather", node.inputs[3], place)
        sizes = b.op("Concat", b.constant([1]), size, b.constant([2]), made, axis=0)
    else:
        lead = b.constant(np.array([1, 1, 2], np.float32))
        scales = b.op("Concat", lead, b.op("Gather", node.inputs[2], place), axis=0)
    given: dict[str, Any] = {name: node.attribute(name, None) for name in _INTERPOLATION}
    found = b.op("Resize", identity, region, scales, sizes, **given)
    return b.squeeze(b.op("Gather", found, b.constant(np.array(0, np.int64)), axis=2), [0])


def _along(b: GraphBuilder, dy: str, matrix: str, axis: int, rank: int) -> str:
    """Contract an axis of dy with the columns of a matrix."""
    if axis == rank - 2:
        return b.op("MatMul", matrix, dy)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    found = b.op("MatMul", b.transpose(dy, order), b.swap_last(matrix))
    return b.transpose(found, order)


# ---- the common case: every element repeated ---------------------------------------------------


def _repeats(b: GraphBuilder, node: Node, axes: Sequence[int]) -> list[int] | None:
    """How often each spatial element is repeated; None where resizing does anything else."""
    factors = _factors(b, node, axes)
    rank = b.rank(node.inputs[0])
    if factors is None or not 3 <= rank <= 5 or node.attribute("mode", "nearest") != "nearest":
        return None
    by_axis = dict(zip(axes, factors, strict=True))
    if any(by_axis.get(axis, 1) != 1 for axis in (0, 1)):
        return None
    wanted = [by_axis.get(axis, 1) for axis in range(2, rank)]
    return wanted if all(_plain_repeat(node, factor) for factor in wanted) else None


def _factors(b: GraphBuilder, node: Node, axes: Sequence[int]) -> list[int] | None:
    """Scales of the axes where all are known whole numbers."""
    if _sized(node):
        before, after = b.shape(node.inputs[0]), b.shape(node.outputs[0])
        if before is None or after is None:
            return None
        found = []
        for axis in axes:
            size, made = before[axis], after[axis]
            if size == made:
                found.append(1)
            elif isinstance(size, int) and isinstance(made, int) and size and made % size == 0:
                found.append(made // size)
            else:
                return None
        return found
    scales = b.constant_value(node.input(2))
    if scales is None or any(scale < 1 or scale != int(scale) for scale in scales):
        return None
    return [int(scale) for scale in scales]


def _plain_repeat(node: Node, factor: int) -> bool:
    """Whether nearest-neighbour resizing by a whole number takes each element that many times."""
    places = np.arange(factor)  # of the first element; those of the others lie alike
    coordinates = node.attribute("coordinate_transformation_mode", "half_pixel")
    if coordinates == "asymmetric":
        source = places / factor
    elif coordinates == "half_pixel":
        source = (places + 0.5) / factor - 0.5
    else:
        return factor == 1 and coordinates != "tf_crop_and_resize"
    rounding: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda at: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    }
    chosen = rounding[node.attribute("nearest_mode", "round_prefer_floor")](source)
    return not chosen.any()


def _block_sums(b: GraphBuilder, dy: str, factors: Sequence[int]) -> str:
    """Sums over blocks of the given sizes, by pooling."""
    if set(factors) == {1}:
        return dy
    mean = b.op("AveragePool", dy, kernel_shape=factors, strides=factors)
    return b.op("Mul", mean, b.scalar(float(np.prod(factors)), mean))


# ---- space and depth ---------------------------------------------------------------------------


@gradient("DepthToSpace")
def depth_to_space(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """The way back: SpaceToDepth, of each channel by itself where it stays outermost (CRD)."""
    dy, x, size = str(grads[0]), node.inputs[0], node.attribute("blocksize", 1)
    if node.attribute("mode", "DCR") == "DCR":
        return [b.op("SpaceToDepth", dy, blocksize=size)]
    planes = b.op("Concat", b.constant([-1, 1]), spatial_of(b, dy), axis=0)
    blocks = b.op("SpaceToDepth", b.op("Reshape", dy, planes), blocksize=size)
    return [b.reshape_like(blocks, x)]


@gradient("SpaceToDepth")
def space_to_depth(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """The way back."""
    size = node.attribute("blocksize", 1)
    return [b.op("DepthToSpace", str(grads[0]), blocksize=size, mode="DCR")]
