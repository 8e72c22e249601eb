"""Gradients of normalizations of every sample by itself: over the last axes (LayerNormalization
and its kin), over an axis by a norm (LpNormalization), over axes of choice
(MeanVarianceNormalization). Those by channel are in `channel_normalization`.

With u = (x - mean) / deviation and g = dy scale, dx = (g - mean(g) - u mean(g u)) / deviation.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ModelError
from ..builder import GraphBuilder
from .reduction import element_ratio
from .registry import Node, gradient

__all__ = ["inverse_deviation", "normalized"]

Gradients = Sequence[str | None]


def normalized(
    b: GraphBuilder,
    slope: str,
    unit: str,
    inverse: str,
    axes: Sequence[int],
    *,
    centred: bool = True,
) -> str:
    """The gradient of x, where unit = (x - mean) * inverse has the gradient `slope`.

    Args:
        b: The builder.
        slope: Gradient of `unit`.
        unit: The normalized value.
        inverse: 1 / deviation, with the reduced axes kept.
        axes: The axes of mean and deviation.
        centred: Whether the mean was subtracted.
    """
    along = b.op("ReduceMean", b.op("Mul", slope, unit), b.constant(axes), keepdims=1)
    if centred:
        slope = b.op("Sub", slope, b.op("ReduceMean", slope, b.constant(axes), keepdims=1))
    return b.op("Mul", b.op("Sub", slope, b.op("Mul", unit, along)), inverse)


def inverse_deviation(b: GraphBuilder, centred: str, axes: Sequence[int], epsilon: float) -> str:
    """1 / sqrt(mean(centred²) + epsilon), with the reduced axes kept."""
    square = b.op("Mul", centred, centred)
    variance = b.op("ReduceMean", square, b.constant(axes), keepdims=1)
    padded = b.op("Add", variance, b.scalar(epsilon, centred)) if epsilon else variance
    return b.op("Reciprocal", b.op("Sqrt", padded))


def _last_axes(b: GraphBuilder, node: Node) -> list[int]:
    """The axes that a layer normalization reduces, without the rank where that can be."""
    axis = node.attribute("axis", -1)
    return list(range(axis, 0 if axis < 0 else b.rank(node.inputs[0])))


@gradient("LayerNormalization")
def layer_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """By the mean and deviation that the forward node gives; these may have gradients too."""
    dy, d_mean, d_inverse = (*grads, None, None)[:3]
    x, scale = node.inputs[:2]
    axes = _last_axes(b, node)
    mean, inverse = (b.cast(node.output(b, index), x) for index in (1, 2))
    unit = b.op("Mul", b.op("Sub", x, mean), inverse)
    found: list[str] = []
    by_scale = by_bias = None
    if dy is not None:
        found.append(normalized(b, b.op("Mul", dy, scale), unit, inverse, axes))
        by_scale, by_bias = _affine(b, dy, unit, scale, node.input(2))
    count = element_ratio(b, x, mean)
    if d_mean is not None:
        share = b.op("Div", b.cast(d_mean, x), count)
        found.append(b.op("Expand", share, b.shape_of(x)))
    if d_inverse is not None:
        share = b.op("Div", b.op("Mul", b.cast(d_inverse, x), b.op("Mul", inverse, inverse)), count)
        found.append(b.op("Neg", b.op("Mul", share, unit)))
    return [b.total(found), by_scale, by_bias]


def _affine(
    b: GraphBuilder, dy: str, unit: str, scale: str, bias: str | None
) -> tuple[str, str | None]:
    """Gradients of scale and bias of scale * unit + bias."""
    by_scale = b.unbroadcast(b.op("Mul", dy, unit), scale)
    return by_scale, b.unbroadcast(dy, bias) if bias else None


@gradient("RMSNormalization")
def rms_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """As LayerNormalization, with the mean left in."""
    x, scale = node.inputs[:2]
    dx, by_scale = _root_mean_square(
        b, str(grads[0]), x, scale, _last_axes(b, node), node.attribute("epsilon", 1e-5)
    )
    return [dx, by_scale]


def _root_mean_square(
    b: GraphBuilder, dy: str, x: str, scale: str, axes: Sequence[int], epsilon: float
) -> tuple[str, str]:
    inverse = inverse_deviation(b, x, axes, epsilon)
    unit = b.op("Mul", x, inverse)
    dx = normalized(b, b.op("Mul", dy, scale), unit, inverse, axes, centred=False)
    return dx, _affine(b, dy, unit, scale, None)[0]


@gradient("SimplifiedLayerNormalization")
def simplified_layer_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """RMSNormalization by the name that onnxruntime has for it, in the standard domain."""
    _refuse_statistics(node, grads[1:])
    b.values.declare(str(grads[0]), node.inputs[0])
    return rms_normalization(b, node, grads)


@gradient("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """LayerNormalization of input + skip + bias, which is an output as well."""
    total, dy = _skip_sum(b, node), grads[0]
    gamma, beta, bias = node.inputs[2], node.input(3), node.input(4)
    by_gamma = by_beta = dx = None
    if dy is not None:
        ones, epsilon = b.ones_like(gamma), node.attribute("epsilon", 1e-12)
        unit, _, inverse = b.ops("LayerNormalization", total, ones, outputs=3, epsilon=epsilon)
        dx = normalized(b, b.op("Mul", dy, gamma), unit, inverse, [-1])
        by_gamma, by_beta = _affine(b, dy, unit, gamma, beta)
    by_input, by_skip, by_bias = _skipped(b, node, dx, grads, bias)
    return [by_input, by_skip, by_gamma, by_beta, by_bias]


@gradient("SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_simplified_layer_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """RMSNormalization of input + skip + bias, which is an output as well."""
    total, dy = _skip_sum(b, node), grads[0]
    by_gamma = dx = None
    if dy is not None:
        epsilon = node.attribute("epsilon", 1e-12)
        dx, by_gamma = _root_mean_square(b, dy, total, node.inputs[2], [-1], epsilon)
    by_input, by_skip, by_bias = _skipped(b, node, dx, grads, node.input(3))
    return [by_input, by_skip, by_gamma, by_bias]


def _skip_sum(b: GraphBuilder, node: Node) -> str:
    """What a skip normalization normalizes."""
    total = node.output(b, 3)
    b.values.declare(total, node.inputs[0])
    return total


def _skipped(
    b: GraphBuilder, node: Node, dx: str | None, grads: Gradients, bias: str | None
) -> tuple[str, str, str | None]:
    """Gradients of input, skip and bias from that of their normalized sum and of the sum."""
    _refuse_statistics(node, grads[1:3])
    whole = b.total([name for name in (dx, *grads[3:]) if name is not None])
    b.values.declare(whole, node.inputs[0])
    return whole, b.unbroadcast(whole, node.inputs[1]), b.unbroadcast(whole, bias) if bias else None


def _refuse_statistics(node: Node, grads: Gradients) -> None:
    if any(gradient is not None for gradient in grads):
        raise ModelError(
            f"the loss depends on the mean or deviation that {node.op_type} '{node.label}' gives, "
            "which has no gradient here; keep the weights in front of it frozen"
        )


@gradient("LpNormalization")
def lp_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """(dy - n sum(dy y)) / norm with n = y, or sign(x) for the 1-norm; 0 where the norm is 0."""
    dy, x, y = str(grads[0]), node.inputs[0], node.outputs[0]
    order, axis = node.attribute("p", 2), node.attribute("axis", -1)
    norm = b.op("ReduceL1" if order == 1 else "ReduceL2", x, b.constant([axis]), keepdims=1)
    along = b.reduce_sum(b.op("Mul", dy, y), [axis], keepdims=True)
    direction = b.op("Sign", x) if order == 1 else y
    slope = b.op("Sub", dy, b.op("Mul", direction, along))
    # A norm of 0 becomes 1, and then counts for nothing.
    some = b.cast(b.op("Greater", norm, b.scalar(0, norm)), norm)
    filled = b.op("Add", norm, b.op("Sub", b.scalar(1, norm), some))
    return [b.op("Mul", slope, b.op("Div", some, filled))]


@gradient("MeanVarianceNormalization")
def mean_variance_normalization(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """No scale; 1e-9 is added to the deviation, which the rule does without."""
    x, axes = node.inputs[0], node.attribute("axes", [0, 2, 3])
    centred = b.op("Sub", x, b.op("ReduceMean", x, b.constant(axes), keepdims=1))
    inverse = inverse_deviation(b, centred, axes, 1e-18)
    return [normalized(b, str(grads[0]), node.outputs[0], inverse, axes)]
