"""Gradients of normalizations of images by channel: InstanceNormalization, GroupNormalization and
LRN. BatchNormalization is in `batch_normalization`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..builder import GraphBuilder
from .normalization import inverse_deviation, normalized
from .reduction import element_ratio
from .registry import Node, gradient

__all__ = ["channel_column", "standardized"]

Gradients = Sequence[str | None]


def channel_column(b: GraphBuilder, values: str, rank: int) -> str:
    """Values by channel, shaped to broadcast along axis 1 of a value of this rank."""
    return b.unsqueeze(values, list(range(1, rank - 1)))


def standardized(
    b: GraphBuilder, dy: str, x: str, scale: str, axes: Sequence[int], epsilon: float
) -> tuple[str, str, str]:
    """Gradients of scale * (x - mean) / deviation + bias, the statistics being those of `x`.

    Args:
        b: The builder.
        dy: Gradient of the result.
        x: What is normalized.
        scale: Broadcasts with `x` and does not change along the axes.
        axes: The axes of mean and deviation.
        epsilon: Added to the variance.

    Returns:
        The gradient of x, and those of scale and bias, the reduced axes kept at size one.
    """
    mean = b.op("ReduceMean", x, b.constant(axes), keepdims=1)
    centred = b.op("Sub", x, mean)
    inverse = inverse_deviation(b, centred, axes, epsilon)
    by_bias = b.reduce_sum(dy, axes, keepdims=True)
    by_scale = b.op("Mul", b.reduce_sum(b.op("Mul", dy, centred), axes, keepdims=True), inverse)
    # As the scale is one number for all elements, the means are those sums.
    count = element_ratio(b, x, mean)
    level, along = (b.op("Div", name, count) for name in (by_bias, by_scale))
    tilt = b.op("Mul", centred, b.op("Mul", along, inverse))
    slope = b.op("Sub", b.op("Sub", dy, level), tilt)
    return b.op("Mul", slope, b.op("Mul", inverse, scale)), by_scale, by_bias


@gradient("InstanceNormalization")
def instance_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """By channel and sample."""
    x, scale = node.inputs[:2]
    rank = b.rank(x)
    column, axes = channel_column(b, scale, rank), range(2, rank)
    epsilon = node.attribute("epsilon", 1e-5)
    dx, *others = standardized(b, str(grads[0]), x, column, axes, epsilon)
    return [dx, *(b.reduce_sum(name, [0, *axes]) for name in others)]


@gradient("GroupNormalization")
def group_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """By sample and group of neighbouring channels; scale and bias are by channel."""
    dy, x, scale = str(grads[0]), node.inputs[0], node.inputs[1]
    rank, groups = b.rank(x), [0, node.attribute("num_groups", 1), -1]
    slope = b.op("Mul", dy, channel_column(b, scale, rank))
    grouped, slope = (b.reshape(name, groups) for name in (x, slope))
    centred = b.op("Sub", grouped, b.op("ReduceMean", grouped, b.constant([2]), keepdims=1))
    inverse = inverse_deviation(b, centred, [2], node.attribute("epsilon", 1e-5))
    unit = b.op("Mul", centred, inverse)
    dx = b.reshape_like(normalized(b, slope, unit, inverse, [2]), x)
    axes = [0, *range(2, rank)]
    by_scale = b.reduce_sum(b.op("Mul", dy, b.reshape_like(unit, x)), axes)
    return [dx, by_scale, b.reduce_sum(dy, axes)]


@gradient("LRN")
def lrn(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """y = x s^-beta with s = bias + alpha * (mean of x² over a window of channels).

    The size of the window, which onnxruntime wants odd, divides at its borders too.
    """
    dy, x = str(grads[0]), node.inputs[0]
    alpha, beta = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    size = node.attribute("size", 1)
    mean = _window_mean(b, b.op("Mul", x, x), size)
    inside = b.op("Mul", mean, b.scalar(alpha, x))
    inside = b.op("Add", inside, b.scalar(node.attribute("bias", 1.0), x))
    direct = b.op("Mul", dy, b.op("Pow", inside, b.scalar(-beta, x)))
    # What an element does to its neighbours is what they do to it.
    felt = _window_mean(b, b.op("Div", b.op("Mul", direct, x), inside), size)
    through = b.op("Mul", b.op("Mul", x, felt), b.scalar(2 * alpha * beta, x))
    return [b.op("Sub", direct, through)]


def _window_mean(b: GraphBuilder, x: str, size: int) -> str:
    """Mean over a window of channels around each, zeros beyond them: a pooling."""
    rest = [0] * (b.rank(x) - 2)
    pooled = b.op(
        "AveragePool",
        b.unsqueeze(x, [1]),
        kernel_shape=[size, *(1 for _ in rest)],
        pads=[size // 2, *rest] * 2,
        count_include_pad=1,
    )
    return b.squeeze(pooled, [1])
