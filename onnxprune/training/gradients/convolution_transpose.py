"""Gradients of transposed convolutions: those of a convolution with its two sides exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...errors import ModelError
from ..builder import GraphBuilder
from .convolution import bias_gradient
from .correlation import weight_gradient
from .registry import Node, gradient
from .windows import (
    SAME,
    Window,
    kernel_of,
    padded,
    plain_window,
    share_padding,
    spatial,
    spatial_of,
)

Gradients = Sequence[str | None]


@gradient("ConvTranspose")
def conv_transpose(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dx = Conv(dy, W); dW is that of this convolution, over dy, with x as its output."""
    dy, (x, weight) = str(grads[0]), node.inputs[:2]
    window = _window(b, node, kernel_of(b, node, weight))
    by_weight = weight_gradient(b, node, dy, x, weight, window) if node.needs[1] else None
    return [_convolved(b, node, dy, window), by_weight, bias_gradient(b, dy, window)]


def _convolved(b: GraphBuilder, node: Node, dy: str, window: Window) -> str:
    if isinstance(window.pads, str):
        dy, window = padded(b, dy, window)
    return b.op(
        "Conv",
        dy,
        node.inputs[1],
        group=node.attribute("group", 1),
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
    )


def _window(b: GraphBuilder, node: Node, kernel: Sequence[int]) -> Window:
    """The window that slides over the output; padding cuts the output's ends off."""
    auto, window = node.attribute("auto_pad", "NOTSET"), plain_window(node, kernel)
    if auto not in SAME and not node.attribute("output_shape", []):
        return window
    if auto in SAME and any(node.attribute("output_padding", list[int]())):
        raise ModelError(
            f"{node.op_type} '{node.label}' has auto_pad and output_padding, which runtimes "
            "understand differently; give it explicit pads"
        )
    return replace(window, pads=share_padding(b, _excess(b, node, window), auto == "SAME_UPPER"))


def _excess(b: GraphBuilder, node: Node, window: Window) -> Sequence[int] | str:
    """Elements per axis that the output would have too many without padding."""
    x, wanted = node.inputs[0], node.attribute("output_shape", list[int]())
    more = node.attribute("output_padding", [0] * window.rank)
    reach = [width + extra for width, extra in zip(window.extent, more, strict=True)]
    if not wanted:  # size · stride elements, out of (size - 1) · stride + reach
        return [end - step for end, step in zip(reach, window.strides, strict=True)]
    sizes = spatial(b, x)
    if sizes is not None:
        made = zip(sizes, window.strides, reach, wanted, strict=True)
        return [(size - 1) * step + end - kept for size, step, end, kept in made]
    steps = b.op("Mul", b.op("Sub", spatial_of(b, x), b.constant([1])), b.constant(window.strides))
    rest = [end - kept for end, kept in zip(reach, wanted, strict=True)]
    return b.op("Add", steps, b.constant(rest))
