"""Gradients of transposed convolutions: those of a convolution with its two sides exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..builder import GraphBuilder
from .convolution import bias_gradient, weight_gradient
from .registry import Node, gradient
from .windows import SAME, Window, kernel_of, padded, spatial, spatial_of, split_padding, window_of

Gradients = Sequence[str | None]


@gradient("ConvTranspose")
def conv_transpose(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dx = Conv(dy, W); dW is that of this convolution, over dy, with x as its output."""
    dy, (x, weight) = str(grads[0]), node.inputs[:2]
    window = _window(b, node, kernel_of(b, node, weight))
    by_weight = weight_gradient(b, node, dy, x, weight, window) if node.needs[1] else None
    found = [_convolved(b, node, dy, window), by_weight]
    if node.input(2) is not None:
        found.append(bias_gradient(b, dy, window))
    return found


def _convolved(b: GraphBuilder, node: Node, dy: str, window: Window) -> str:
    if isinstance(window.pads, str):
        dy, window = padded(b, dy, window)
    return b.op(
        "Conv",
        dy,
        node.inputs[1],
        group=node.attribute("group", 1),
        kernel_shape=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
    )


def _window(b: GraphBuilder, node: Node, kernel: Sequence[int]) -> Window:
    """The window that slides over the output; padding cuts the output's ends off."""
    auto = node.attribute("auto_pad", "NOTSET")
    more = node.attribute("output_padding", [0] * len(kernel))
    wanted: Sequence[int] | None = node.attribute("output_shape", None)
    plain = _without_auto_pad(b, node, kernel)
    if wanted is None and auto not in SAME:
        return plain
    upper = auto == "SAME_UPPER"
    x = node.inputs[0]
    reach = [width + extra for width, extra in zip(plain.extent, more, strict=True)]
    if wanted is None:
        # size · stride elements are wanted, of (size - 1) · stride + reach
        pairs = zip(reach, plain.strides, strict=True)
        return replace(plain, pads=_shared([end - step for end, step in pairs], upper))
    sizes = spatial(b, x)
    if sizes is not None:
        made = zip(sizes, plain.strides, reach, wanted[-plain.rank :], strict=True)
        totals = [(size - 1) * step + end - kept for size, step, end, kept in made]
        return replace(plain, pads=_shared(totals, upper))
    steps = b.op("Sub", spatial_of(b, x), b.constant([1]))
    rest = [end - kept for end, kept in zip(reach, wanted[-plain.rank :], strict=True)]
    made_ = b.op("Add", b.op("Mul", steps, b.constant(plain.strides)), b.constant(rest))
    return replace(plain, pads=split_padding(b, made_, upper))
