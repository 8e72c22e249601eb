"""Gradients of convolutions, in the form that is fastest for their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..builder import GraphBuilder
from .correlation import weight_gradient
from .registry import Node, gradient
from .windows import Window, kernel_of, spatial, transposed, window_of

__all__ = ["bias_gradient", "convolution_gradients", "flipped", "pointwise"]

Gradients = Sequence[str | None]

#: A convolution with the flipped kernel reads every channel of dy for every position of x, a
#: transposed one writes every channel of x for every position of dy, which costs so much more.
_COST_OF_WRITES = 2
#: Up to so many elements of the weight, flipping it costs next to nothing.
_MOST_FLIPPED = 2**17
_BACKWARDS = np.iinfo(np.int64).min + 1


@gradient("Conv")
def conv(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dx spreads dy back over the windows; dW correlates x with dy; db sums dy."""
    return convolution_gradients(b, node, str(grads[0]))


def convolution_gradients(b: GraphBuilder, node: Node, dy: str) -> list[str | None]:
    """Gradients of x, W and B from that of what the convolution gives."""
    x, weight = node.inputs[:2]
    window = window_of(b, node, x, kernel_of(b, node, weight))
    return [
        _input_gradient(b, node, dy, window),
        weight_gradient(b, node, x, dy, weight, window) if node.needs[1] else None,
        bias_gradient(b, dy, window),
    ]


def bias_gradient(b: GraphBuilder, dy: str, window: Window) -> str:
    """dy summed over batch and positions."""
    return b.reduce_sum(dy, [0, *range(2, 2 + window.rank)])


def _input_gradient(b: GraphBuilder, node: Node, dy: str, window: Window) -> str:
    x, weight = node.inputs[:2]
    group = node.attribute("group", 1)
    if window.pointwise and group == 1:
        return pointwise(b, dy, weight, x)
    if _flips(b, node, dy, window):
        return flipped(b, dy, weight, window, group)
    return transposed(b, dy, weight, window, x, group)


def pointwise(b: GraphBuilder, dy: str, weight: str, x: str) -> str:
    """Wᵀ dy, a matrix product over the channels."""
    matrix = b.op("Flatten", weight, axis=1)
    found = b.op("MatMul", b.transpose(matrix, [1, 0]), b.reshape(dy, [0, 0, -1]))
    return b.reshape_like(found, x)


def _flips(b: GraphBuilder, node: Node, dy: str, window: Window) -> bool:
    """Whether a convolution with the flipped kernel is possible, and the faster form."""
    shape, group = b.static_shape(node.inputs[1]), node.attribute("group", 1)
    if shape is None or not window.dense or min(_pads_of_flipped(window)) < 0:
        return False
    inner, outer = spatial(b, dy), spatial(b, node.inputs[0])
    # Where sizes are unknown: both have about as many positions.
    ends, starts = (prod(inner), prod(outer)) if inner and outer else (1, 1)
    reads, writes = shape[0] * starts, group * shape[1] * ends
    return prod(shape) <= _MOST_FLIPPED and reads <= _COST_OF_WRITES * writes


def _pads_of_flipped(window: Window) -> list[int]:
    """Padding with which the flipped kernel reaches from dy all over x.

    Without steps the window's own does not depend on sizes, so it is known.
    """
    pads = window.begin + window.end
    return [width - 1 - pad for width, pad in zip(window.extent * 2, pads, strict=True)]


def flipped(b: GraphBuilder, dy: str, weight: str, window: Window, group: int) -> str:
    """dy convolved with the kernel turned around, its two channel axes exchanged.

    Only where the window has no steps, and pads of known sizes that its extent exceeds.
    """
    rows, columns = (b.static_shape(weight) or ())[:2]
    ends, axes = [b.constant([at] * window.rank) for at in (-1, _BACKWARDS)], range(window.rank)
    kernel = b.op("Slice", weight, *ends, b.constant([2 + axis for axis in axes]), ends[0])
    split = b.reshape(kernel, [group, rows // group, columns, *window.kernel])
    exchanged = b.transpose(split, [0, 2, 1, *(3 + axis for axis in axes)])
    return b.op(
        "Conv",
        dy,
        b.reshape(exchanged, [group * columns, rows // group, *window.kernel]),
        group=group,
        dilations=window.dilations,
        pads=_pads_of_flipped(window),
    )
