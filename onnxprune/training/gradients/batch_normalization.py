"""The gradient of BatchNormalization, with frozen statistics or those of the batch."""

from __future__ import annotations

from collections.abc import Sequence

from ..builder import GraphBuilder
from .channel_normalization import channel_column, standardized
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("BatchNormalization")
def batch_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """By training_mode: 0 takes mean and variance as given, 1 computes them from the batch.

    The running statistics that training gives are no path for gradients.
    """
    if grads[0] is None:
        return []
    rank = b.rank(node.inputs[0])
    # A vector counts as one channel.
    axes = [0, *range(2, rank)]
    if node.attribute("training_mode", 0):
        return _of_batch(b, node, grads[0], rank, axes)
    return _frozen(b, node, grads[0], rank, axes)


def _of_batch(b: GraphBuilder, node: Node, dy: str, rank: int, axes: Sequence[int]) -> Gradients:
    x, scale, bias = node.inputs[:3]
    column = channel_column(b, scale, rank)
    epsilon = node.attribute("epsilon", 1e-5)
    dx, by_scale, by_bias = standardized(b, dy, x, column, axes, epsilon)
    return [dx, b.reshape_like(by_scale, scale), b.reshape_like(by_bias, bias)]


def _frozen(b: GraphBuilder, node: Node, dy: str, rank: int, axes: Sequence[int]) -> Gradients:
    """y = (x - mean) factor + bias with factor = scale / sqrt(variance + epsilon)."""
    x, scale, _, mean, variance = node.inputs
    padded = b.op("Add", variance, b.scalar(node.attribute("epsilon", 1e-5), variance))
    inverse = b.op("Reciprocal", b.op("Sqrt", padded))
    factor = b.op("Mul", scale, inverse)
    by_x = b.op("Mul", dy, channel_column(b, factor, rank))
    by_bias = b.reduce_sum(dy, axes, keepdims=rank == 1)
    centred = b.op("Sub", x, channel_column(b, mean, rank))
    along = b.reduce_sum(b.op("Mul", dy, centred), axes)
    by_scale = b.op("Mul", along, inverse)
    by_mean = b.op("Neg", b.op("Mul", by_bias, factor))
    bend = b.op("Mul", b.op("Mul", factor, inverse), b.scalar(-0.5, x))
    return [by_x, by_scale, by_bias, by_mean, b.op("Mul", by_scale, bend)]
