"""Gradients of convolutions, in the form that is fastest for their shapes.

The forms were measured on onnxruntime's CPU kernels; all give the same values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node, gradient
from .windows import Window, kernel_of, padded, spatial, transposed, window_of

__all__ = ["bias_gradient", "weight_gradient"]

Gradients = Sequence[str | None]

#: From so many kernel elements on, one convolution over transposed operands beats a product each.
_MANY_TAPS = 25
#: Up to so many channels, the elements under all kernel positions go into a single product.
_FEW_CHANNELS = 4
_TO_THE_END = np.iinfo(np.int64).max


@gradient("Conv")
def conv(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dx spreads dy back over the windows; dW correlates x with dy; db sums dy."""
    return _conv(b, node, str(grads[0]))


def _conv(b: GraphBuilder, node: Node, dy: str) -> list[str | None]:
    x, weight = node.inputs[:2]
    group = node.attribute("group", 1)
    window = window_of(b, node, x, kernel_of(b, node, weight))
    if window.pointwise and group == 1:
        by_input = _pointwise(b, dy, weight, x)
    else:
        by_input = transposed(b, dy, weight, window, x, group)
    found: list[str | None] = [by_input, None]
    if node.needs[1]:
        found[1] = weight_gradient(b, node, x, dy, weight, window)
    if node.input(2) is not None:
        found.append(bias_gradient(b, dy, window))
    return found


def _pointwise(b: GraphBuilder, dy: str, weight: str, x: str) -> str:
    """Wᵀ dy, a matrix product over the channels."""
    matrix = b.op("Flatten", weight, axis=1)
    found = b.op("MatMul", b.transpose(matrix, [1, 0]), b.reshape(dy, [0, 0, -1]))
    return b.reshape_like(found, x)


def bias_gradient(b: GraphBuilder, dy: str, window: Window) -> str:
    """dy summed over batch and positions."""
    return b.reduce_sum(dy, [0, *range(2, 2 + window.rank)])


def weight_gradient(
    b: GraphBuilder, node: Node, large: str, small: str, weight: str, window: Window
) -> str:
    """Sum over batch and positions of small[o] large[o · stride + k · dilation - begin].

    Args:
        b: The builder.
        node: The convolution, for its groups and for messages.
        large: What the window slides over, [N, Cl, ...].
        small: Values at the window's positions, [N, Cs, ...].
        weight: The weight, [Cs, Cl / group, *kernel].
        window: The window. Positions that fit must be those that `small` has.
    """
    group = node.attribute("group", 1)
    rows, columns = (b.shape(weight) or (None, None))[:2]
    if group > 1:
        if not isinstance(rows, int) or not isinstance(columns, int):
            raise ModelError(
                f"{node.op_type} '{node.label}' has groups and a weight '{weight}' of unknown "
                "shape, so the weight's gradient cannot be built; give it a fixed shape"
            )
        return _batched(b, large, small, window, (group, rows // group, columns))
    if window.taps >= _MANY_TAPS:
        return _by_convolution(b, large, small, window)
    places = spatial(b, small)
    if isinstance(columns, int) and columns <= _FEW_CHANNELS and window.taps > 1:
        return _by_patches(b, large, small, window)
    if places is not None and isinstance(rows, int) and isinstance(columns, int):
        # Products of single samples need a sum over the batch; products over the whole batch
        # need both operands transposed: whichever moves less data.
        moved = (rows + columns) * int(np.prod(places))
        if 2 * rows * columns * window.taps <= moved:
            return _batched(b, large, small, window, (1, rows, columns))
    return _by_taps(b, large, small, window)


def _taps(b: GraphBuilder, x: str, window: Window) -> list[str]:
    """For every kernel element the part of x (two axes, then spatial ones) that it meets."""
    x, window = padded(b, x, window)
    if window.pointwise:
        return [x]
    axes, steps = range(2, 2 + window.rank), b.constant(window.strides)
    found = []
    for tap in itertools.product(*map(range, window.kernel)):
        start = [k * step for k, step in zip(tap, window.dilations, strict=True)]
        # Counted from the end: right whatever the sizes are, for what is left over at the end is
        # less than a stride.
        end = [at - width + 1 for at, width in zip(start, window.extent, strict=True)]
        stop = b.constant([place or _TO_THE_END for place in end])
        found.append(b.op("Slice", x, b.constant(start), stop, b.constant(axes), steps))
    return found


def _batched(
    b: GraphBuilder, large: str, small: str, window: Window, sizes: tuple[int, int, int]
) -> str:
    """A product per kernel element, sample and group; summed over the samples."""
    group, rows, columns = sizes
    left = b.reshape(small, [0, group, rows, -1])
    parts = [
        b.op("MatMul", left, b.swap_last(b.reshape(part, [0, group, columns, -1])))
        for part in _taps(b, large, window)
    ]
    joined = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=3)
    summed = b.reshape(b.reduce_sum(joined, [0]), [group * rows, window.taps, columns])
    return b.reshape(b.transpose(summed, [0, 2, 1]), [group * rows, columns, *window.kernel])


def _by_taps(b: GraphBuilder, large: str, small: str, window: Window) -> str:
    """A product per kernel element, over batch and positions at once."""
    left = _channels_first(b, small, window)
    parts = [
        b.op("Gemm", b.op("Flatten", left, axis=1), b.op("Flatten", part, axis=1), transB=1)
        for part in _taps(b, _channels_first(b, large, window), window)
    ]
    joined = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=1)
    cube = b.reshape(joined, [0, window.taps, -1])
    return b.reshape(b.transpose(cube, [0, 2, 1]), [0, 0, *window.kernel])


def _by_patches(b: GraphBuilder, large: str, small: str, window: Window) -> str:
    """One product, with what lies under every kernel element side by side."""
    parts = _taps(b, _channels_first(b, large, window), window)
    patches = b.op("Concat", *(b.unsqueeze(part, [1]) for part in parts), axis=1)
    left = b.op("Flatten", _channels_first(b, small, window), axis=1)
    product = b.op("Gemm", left, b.op("Flatten", patches, axis=2), transB=1)
    return b.reshape(product, [0, -1, *window.kernel])


def _by_convolution(b: GraphBuilder, large: str, small: str, window: Window) -> str:
    """A convolution of x with dy, batch and channels exchanged, strides and dilations too."""
    if isinstance(window.pads, str):
        large, window = padded(b, large, window)
    found = b.op(
        "Conv",
        _channels_first(b, large, window),
        _channels_first(b, small, window),
        strides=window.dilations,
        dilations=window.strides,
        pads=window.pads,
    )
    pairs = zip(window.strides, window.dilations, strict=True)
    if any(step > dilation for step, dilation in pairs):
        # What is left over at the end of x made room for more positions.
        axes = b.constant(range(2, 2 + window.rank))
        found = b.op("Slice", found, b.constant([0] * window.rank), b.constant(window.kernel), axes)
    return _channels_first(b, found, window)


def _channels_first(b: GraphBuilder, x: str, window: Window) -> str:
    """The first two axes exchanged."""
    return b.transpose(x, [1, 0, *range(2, 2 + window.rank)])


# ---- onnxruntime's convolution with an activation --------------------------------------------


@gradient("FusedConv", domain="com.microsoft")
def fused_conv(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """activation(Conv(x, W, B) + Z): dZ is the gradient behind the activation."""
    dy = _through_activation(b, node, str(grads[0]))
    found = _conv(b, node, dy)
    return [*found, *[None] * (3 - len(found)), dy]


def _through_activation(b: GraphBuilder, node: Node, dy: str) -> str:
    """dy times the slope of the activation, which follows from its output."""
    y, kind = node.outputs[0], node.attribute("activation", "")
    parameters: Sequence[float] = node.attribute("activation_params", [])

    def passed(low: float | None, high: float | None = None) -> str:
        inside = [
            b.op(op_type, y, b.scalar(bound, y))
            for op_type, bound in (("Greater", low), ("Less", high))
            if bound is not None
        ]
        return b.cast(inside[0] if len(inside) == 1 else b.op("And", *inside), dy)

    if kind == "":
        return dy
    if kind == "Relu":
        return b.op("Mul", dy, passed(0))
    if kind == "Clip":
        return b.op("Mul", dy, passed(parameters[0], parameters[1]))
    if kind == "HardSigmoid":
        slope = b.op("Mul", passed(0, 1), b.scalar(parameters[0], dy))
        return b.op("Mul", dy, slope)
    if kind == "LeakyRelu" and parameters[0] >= 0:
        beneath = b.op("Mul", dy, b.scalar(parameters[0], dy))
        return b.op("Where", b.op("Greater", y, b.scalar(0, y)), dy, beneath)
    if kind in ("Sigmoid", "Tanh"):
        squared = b.op("Mul", y, y)
        slope = b.op("Sub", y if kind == "Sigmoid" else b.scalar(1, y), squared)
        return b.op("Mul", dy, slope)
    raise ModelError(
        f"FusedConv '{node.label}' has the activation '{kind}' {list(parameters)}, which has no "
        "gradient here; train the model before onnxruntime optimises it"
    )
