"""Gradients of pooling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from ..builder import GraphBuilder
from .registry import Node, gradient
from .windows import Window, spatial, spatial_of, transposed, window_of

Gradients = Sequence[str | None]

_MAX_POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


@gradient("MaxPool")
def max_pool(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy, added up at the places of the maxima."""
    dy, x = str(grads[0]), node.inputs[0]
    window = window_of(b, node, x, node.attribute("kernel_shape", []))
    if _tiles(b, node, window):
        return [_at_first_maxima(b, node, dy, window)]
    places = _places(b, node)
    if all(step >= width for step, width in zip(window.strides, window.extent, strict=True)):
        # No element is in two windows.
        shape = b.shape_of(x)
        return [b.op("MaxUnpool", dy, places, shape, kernel_shape=window.kernel)]
    flat = b.op("ReduceProd", b.shape_of(x))
    zero = helper.make_tensor("zero", b.dtype(x), [1], [0.0])
    nothing = b.op("ConstantOfShape", flat, value=zero)
    values, indices = b.reshape(dy, [-1]), b.reshape(places, [-1])
    found = b.op("ScatterElements", nothing, indices, values, axis=0, reduction="add")
    return [b.reshape_like(found, x)]


def _tiles(b: GraphBuilder, node: Node, window: Window) -> bool:
    """Whether the windows are tiles of 2x2 and nothing asks where the maxima are.

    Larger tiles have more elements to enlarge for every maximum: their places are faster.
    """
    sizes = spatial(b, node.inputs[0])
    if sizes is None or any(size % 2 for size in sizes) or any(node.outputs[1:]):
        return False
    return window == Window((2, 2), strides=(2, 2), dilations=(1, 1), pads=(0, 0, 0, 0))


def _at_first_maxima(b: GraphBuilder, node: Node, dy: str, window: Window) -> str:
    """dy at the first of the largest elements of every tile.

    Pooling is many times slower where it gives their places too. So maxima are numbered, from the
    end of a tile to its start, and the largest number is that of the first.
    """
    x = node.inputs[0]
    tile = np.array([[4, 3], [2, 1]], helper.tensor_dtype_to_np_dtype(b.dtype(x)))
    numbers = np.tile(tile, [size // 2 for size in spatial(b, x) or ()])
    maxima = b.cast(b.op("Equal", x, _enlarged(b, node.outputs[0], window)), x)
    numbered = b.op("Mul", maxima, b.constant(numbers))
    first = b.op("MaxPool", numbered, kernel_shape=window.kernel, strides=window.strides)
    hits = b.cast(b.op("Equal", numbered, _enlarged(b, first, window)), x)
    return b.op("Mul", hits, _enlarged(b, dy, window))


def _enlarged(b: GraphBuilder, x: str, window: Window) -> str:
    """Every element repeated along every axis as often as the kernel is large."""
    return b.op(
        "Resize",
        x,
        None,
        b.constant(np.array([1, 1, *window.kernel], np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _places(b: GraphBuilder, node: Node) -> str:
    """Positions of the maxima in the flattened input."""
    if not node.attribute("storage_order", 0):
        return node.output(b, 1)
    # Column-major positions are of no use here.
    given: dict[str, Any] = {name: node.attribute(name, None) for name in _MAX_POOL}
    return b.ops("MaxPool", node.inputs[0], outputs=2, **given)[1]


@gradient("MaxUnpool")
def max_unpool(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy at the places that the input went to."""
    dy, (x, places) = b.reshape(str(grads[0]), [-1]), node.inputs[:2]
    found = b.op("GatherElements", dy, b.reshape(places, [-1]), axis=0)
    return [b.reshape_like(found, x)]


@gradient("AveragePool")
def average_pool(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy over the number of elements averaged, spread over these."""
    dy, x = str(grads[0]), node.inputs[0]
    window = window_of(b, node, x, node.attribute("kernel_shape", []))
    return [_spread(b, b.op("Mul", dy, _shares(b, node, window, dy)), window, x)]


def _shares(b: GraphBuilder, node: Node, window: Window, dy: str) -> str:
    """One over the number of elements that every position averages."""
    with_pads = bool(node.attribute("count_include_pad", 0))
    if not node.attribute("ceil_mode", 0) and (with_pads or window.unpadded):
        return b.scalar(1 / window.taps, dy)
    counts = [
        _counts(b, axis, window, (dy, node.inputs[0]), with_pads) for axis in range(window.rank)
    ]
    count = reduce(lambda left, right: b.op("Mul", left, right), counts)
    return b.op("Reciprocal", b.cast(b.op("Max", count, b.constant([1])), dy))


def _counts(
    b: GraphBuilder, axis: int, window: Window, values: tuple[str, str], with_pads: bool
) -> str:
    """Elements under the window along one axis, for every position; broadcasts with the others.

    Where the sizes are known onnxruntime computes this once, when it loads the model.
    """
    positions, size = (_entry(b, spatial_of(b, name), axis) for name in values)
    pads = b.constant(window.pads) if isinstance(window.pads, tuple) else window.pads
    before, after = (_entry(b, pads, at) for at in (axis, axis + window.rank))
    zero, one = (b.constant(np.array(value, np.int64)) for value in (0, 1))
    step = b.constant(np.array(window.strides[axis], np.int64))
    start = b.op("Sub", b.op("Mul", b.op("Range", zero, positions, one), step), before)
    offsets = range(0, window.extent[axis], window.dilations[axis])
    places = b.op("Add", b.unsqueeze(start, [1]), b.constant(offsets))
    first = b.op("Neg", before) if with_pads else zero
    last = b.op("Add", size, after) if with_pads else size
    inside = b.op("And", b.op("GreaterOrEqual", places, first), b.op("Less", places, last))
    count = b.reduce_sum(b.op("Cast", inside, to=TensorProto.INT64), [1])
    return b.reshape(count, [-1] + [1] * (window.rank - 1 - axis))


def _entry(b: GraphBuilder, vector: str, index: int) -> str:
    """An element of a vector, as a scalar."""
    return b.op("Gather", vector, b.constant(np.array(index, np.int64)))


def _spread(b: GraphBuilder, dy: str, window: Window, x: str) -> str:
    """dy added to every element under the window at its position."""
    compact = window.extent == window.kernel
    inner, outer = spatial(b, dy), spatial(b, x)
    if compact and window.dense:
        # Adding up is pooling again.
        reach = window.kernel * 2
        pads = [
            width - 1 - pad for width, pad in zip(reach, window.begin + window.end, strict=True)
        ]
        mean = b.op("AveragePool", dy, kernel_shape=window.kernel, pads=pads, count_include_pad=1)
        return b.op("Mul", mean, b.scalar(window.taps, mean))
    apart = compact and window.strides == window.kernel and window.unpadded
    if apart and inner is not None and outer is not None:
        return _repeated(b, dy, window, inner, outer)
    # One channel at a time: a kernel of ones for all.
    sizes = b.op("Concat", b.constant([-1, 1]), spatial_of(b, dy), axis=0)
    ones = b.constant(np.ones((1, 1, *window.kernel), np.float32))
    spread = transposed(b, b.op("Reshape", dy, sizes), b.cast(ones, dy), window, x)
    return b.reshape_like(spread, x)


def _repeated(
    b: GraphBuilder, dy: str, window: Window, inner: tuple[int, ...], outer: tuple[int, ...]
) -> str:
    """dy repeated along every axis as often as the kernel is large, cut or filled up at the end."""
    made = [count * width for count, width in zip(inner, window.kernel, strict=True)]
    found = _enlarged(b, dy, window)
    rest = [size - have for size, have in zip(outer, made, strict=True)]
    if not any(rest):
        return found
    axes = b.constant(range(2, 2 + window.rank))
    return b.op("Pad", found, b.constant([0] * window.rank + rest), None, axes)


@gradient("LpPool")
def lp_pool(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """sign(x) |x|^(p-1) times dy y^(1-p), spread over the windows."""
    x = node.inputs[0]
    window = window_of(b, node, x, node.attribute("kernel_shape", []))
    outer, inner = _norm_slope(b, node, str(grads[0]))
    return [b.op("Mul", inner, _spread(b, outer, window, x))]


def _norm_slope(b: GraphBuilder, node: Node, dy: str) -> tuple[str, str]:
    """dy y^(1-p) and sign(x) |x|^(p-1), whose product is the gradient; 0 where y is 0."""
    x, y, power = node.inputs[0], node.outputs[0], node.attribute("p", 2)
    if power == 1:
        return dy, b.op("Sign", x)
    # Where the norm is 0, so are the inputs: any other divisor will do.
    norm = b.op("Where", b.op("Equal", y, b.scalar(0, y)), b.scalar(1, y), y)
    if power == 2:
        return b.op("Div", dy, norm), x
    outer = b.op("Div", dy, b.op("Pow", norm, b.scalar(power - 1, y)))
    return outer, b.op("Mul", x, b.op("Pow", b.op("Abs", x), b.scalar(power - 2, x)))


@gradient("GlobalAveragePool")
def global_average_pool(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy over the number of positions, everywhere."""
    dy, x = str(grads[0]), node.inputs[0]
    sizes = spatial(b, x)
    if sizes is not None:
        share = b.op("Mul", dy, b.scalar(1 / prod(sizes), dy))
    else:
        share = b.op("Div", dy, b.cast(b.op("ReduceProd", spatial_of(b, x)), dy))
    return [b.op("Expand", share, b.shape_of(x))]


@gradient("GlobalMaxPool")
def global_max_pool(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the maximum, shared among equal ones."""
    dy, x = str(grads[0]), node.inputs[0]
    hits = b.cast(b.op("Equal", x, node.outputs[0]), dy)
    count = b.reduce_sum(hits, range(2, b.rank(x)), keepdims=True)
    return [b.op("Mul", hits, b.op("Div", dy, count))]
