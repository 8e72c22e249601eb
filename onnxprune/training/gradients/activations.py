"""Gradients of activation functions.

A mask (`_above`) times a tensor is several times as fast as Where in onnxruntime, so slopes that
have two branches are sums of a mask's multiple and of what a Clip makes zero on the other side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..builder import GraphBuilder
from .registry import Node, gradient

Gradients = Sequence[str | None]


def _above(b: GraphBuilder, x: str, threshold: float = 0.0) -> str:
    """1 where x > threshold, else 0."""
    return b.cast(b.op("Greater", x, b.scalar(threshold, x)), x)


def _times(b: GraphBuilder, x: str, factor: float) -> str:
    return x if factor == 1 else b.op("Mul", x, b.scalar(factor, x))


def _plus(b: GraphBuilder, x: str, addend: float) -> str:
    return x if addend == 0 else b.op("Add", x, b.scalar(addend, x))


def _at_most(b: GraphBuilder, x: str, bound: float) -> str:
    return b.op("Clip", x, None, b.scalar(bound, x))


@gradient("Relu")
def relu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where y > 0; 0 at 0."""
    return [b.op("Mul", grads[0], _above(b, node.outputs[0]))]


@gradient("LeakyRelu")
def leaky_relu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where x > 0, else alpha dy."""
    alpha = node.attribute("alpha", 0.01)
    mask = _above(b, node.inputs[0])
    if 0 <= alpha <= 1:
        slope = b.op("Clip", mask, b.scalar(alpha, mask))
    else:
        slope = _plus(b, _times(b, mask, 1 - alpha), alpha)
    return [b.op("Mul", grads[0], slope)]


@gradient("PRelu")
def prelu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where x > 0, else slope dy; the slope gets dy x where x <= 0."""
    dy = str(grads[0])
    x, slope = node.inputs
    scaled = b.op("Mul", dy, slope)
    by_x = b.op("Add", scaled, b.op("Mul", b.op("Sub", dy, scaled), _above(b, x)))
    by_slope = b.op("Mul", dy, _at_most(b, x, 0))
    return [by_x, b.unbroadcast(by_slope, slope)]


@gradient("ThresholdedRelu")
def thresholded_relu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where x > alpha."""
    return [b.op("Mul", grads[0], _above(b, node.inputs[0], node.attribute("alpha", 1.0)))]


@gradient("Shrink")
def shrink(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where |x| > lambd."""
    size = b.op("Abs", node.inputs[0])
    return [b.op("Mul", grads[0], _above(b, size, node.attribute("lambd", 0.5)))]


@gradient("Elu")
def elu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where x > 0, else dy (y + alpha)."""
    return _exponential(b, node, grads, 1.0, node.attribute("alpha", 1.0))


@gradient("Selu")
def selu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """gamma dy where x > 0, else dy (y + gamma alpha)."""
    alpha = node.attribute("alpha", 1.6732631921768188)
    gamma = node.attribute("gamma", 1.0507010221481323)
    return _exponential(b, node, grads, gamma, gamma * alpha)


def _exponential(
    b: GraphBuilder, node: Node, grads: Gradients, above: float, offset: float
) -> Gradients:
    """Slope `above` where x > 0, else y + offset."""
    x, y = node.inputs[0], node.outputs[0]
    if above == offset > 0:
        slope = _at_most(b, _plus(b, y, offset), above)
    else:
        # y has any sign below 0 where alpha does: it is x that decides.
        positive = _above(b, x)
        below = b.op("Mul", _plus(b, y, offset), b.op("Sub", b.scalar(1, x), positive))
        slope = b.op("Add", below, _times(b, positive, above))
    return [b.op("Mul", grads[0], slope)]


@gradient("Celu")
def celu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy where x > 0, else dy exp(x / alpha)."""
    alpha = node.attribute("alpha", 1.0)
    below = b.op("Exp", _times(b, _at_most(b, node.inputs[0], 0), 1 / alpha))
    return [b.op("Mul", grads[0], below)]


@gradient("Softplus")
def softplus(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy sigmoid(x)."""
    return [b.op("Mul", grads[0], b.op("Sigmoid", node.inputs[0]))]


@gradient("Softsign")
def softsign(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy / (1 + |x|)²."""
    root = _plus(b, b.op("Abs", node.inputs[0]), 1)
    return [b.op("Div", grads[0], b.op("Mul", root, root))]


@gradient("Sigmoid")
def sigmoid(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy y (1 - y)."""
    y = node.outputs[0]
    return [b.op("Mul", grads[0], b.op("Sub", y, b.op("Mul", y, y)))]


@gradient("Tanh")
def tanh(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy (1 - y²)."""
    y = node.outputs[0]
    return [b.op("Mul", grads[0], _bell(b, y))]


def _bell(b: GraphBuilder, tanh_value: str) -> str:
    """1 - t²."""
    return b.op("Sub", b.scalar(1, tanh_value), b.op("Mul", tanh_value, tanh_value))


@gradient("HardSigmoid")
def hard_sigmoid(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Alpha dy where 0 < y < 1."""
    y = node.outputs[0]
    inside = b.op("And", b.op("Greater", y, b.scalar(0, y)), b.op("Less", y, b.scalar(1, y)))
    scaled = _times(b, str(grads[0]), node.attribute("alpha", 0.2))
    return [b.op("Mul", scaled, b.cast(inside, y))]


@gradient("HardSwish")
def hard_swish(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy (h + (h - 1/2) [|x| < 3]) with h = clip(x / 6 + 1/2, 0, 1)."""
    x = node.inputs[0]
    gate = b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    inside = b.cast(b.op("Less", b.op("Abs", x), b.scalar(3, x)), x)
    slope = b.op("Add", gate, b.op("Mul", _plus(b, gate, -0.5), inside))
    return [b.op("Mul", grads[0], slope)]


@gradient("Mish")
def mish(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy (t + x (1 - t²) sigmoid(x)) with t = tanh(softplus(x))."""
    x = node.inputs[0]
    gate = b.op("Tanh", b.op("Softplus", x))
    bend = b.op("Mul", b.op("Mul", x, _bell(b, gate)), b.op("Sigmoid", x))
    return [b.op("Mul", grads[0], b.op("Add", gate, bend))]


@gradient("Swish")
def swish(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """x sigmoid(alpha x): dy (s + alpha y (1 - s))."""
    return _swish(b, node, grads, node.attribute("alpha", 1.0))


@gradient("QuickGelu", domain="com.microsoft")
def quick_gelu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """As Swish, with another default."""
    return _swish(b, node, grads, node.attribute("alpha", 1.702))


def _swish(b: GraphBuilder, node: Node, grads: Gradients, alpha: float) -> Gradients:
    x, y = node.inputs[0], node.outputs[0]
    gate = b.op("Sigmoid", _times(b, x, alpha))
    bend = b.op("Mul", _times(b, y, alpha), b.op("Sub", b.scalar(1, x), gate))
    return [b.op("Mul", grads[0], b.op("Add", gate, bend))]


@gradient("Gelu")
def gelu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Exact, or with the tanh approximation."""
    by_tanh = node.attribute("approximate", "none") == "tanh"
    slope = (_tanh_gelu_slope if by_tanh else _gelu_slope)(b, node.inputs[0])
    return [b.op("Mul", grads[0], slope)]


@gradient("Gelu", "BiasGelu", domain="com.microsoft")
def bias_gelu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Exact Gelu of x, or of x + bias."""
    return _biased(b, node, grads, _gelu_slope(b, _with_bias(b, node)))


@gradient("FastGelu", domain="com.microsoft")
def fast_gelu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Gelu by tanh of x, or of x + bias."""
    return _biased(b, node, grads, _tanh_gelu_slope(b, _with_bias(b, node)))


def _with_bias(b: GraphBuilder, node: Node) -> str:
    bias = node.input(1)
    return node.inputs[0] if bias is None else b.op("Add", node.inputs[0], bias)


def _biased(b: GraphBuilder, node: Node, grads: Gradients, slope: str) -> Gradients:
    dx = b.op("Mul", grads[0], slope)
    bias = node.input(1)
    return [dx] if bias is None else [dx, b.unbroadcast(dx, bias)]


def _gelu_slope(b: GraphBuilder, x: str) -> str:
    """(1 + erf(z)) / 2 + z exp(-z²) / sqrt(pi) with z = x / sqrt(2)."""
    z = _times(b, x, math.sqrt(0.5))
    # The factor is a part of the exponent.
    exponent = b.op("Sub", b.scalar(math.log(2 / math.sqrt(math.pi)), x), b.op("Mul", z, z))
    bend = b.op("Mul", z, b.op("Exp", exponent))
    return _times(b, b.op("Add", _plus(b, b.op("Erf", z), 1), bend), 0.5)


def _tanh_gelu_slope(b: GraphBuilder, x: str) -> str:
    """(1 + t) / 2 + x (1 - t²) u' / 2 with t = tanh(u), u = c (x + a x³)."""
    a, c = 0.044715, math.sqrt(2 / math.pi)
    square = b.op("Mul", x, x)
    u = b.op("Mul", x, _plus(b, _times(b, square, a * c), c))
    rise = b.op("Mul", x, _plus(b, _times(b, square, 3 * a * c), c))
    t = b.op("Tanh", u)
    bend = b.op("Mul", rise, _bell(b, t))
    return _times(b, b.op("Add", _plus(b, t, 1), bend), 0.5)


@gradient("Softmax")
def softmax(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """y (dy - sum(dy y)) along the axis."""
    dy, y = str(grads[0]), node.outputs[0]
    mean = b.reduce_sum(b.op("Mul", dy, y), [node.attribute("axis", -1)], keepdims=True)
    return [b.op("Mul", b.op("Sub", dy, mean), y)]


@gradient("LogSoftmax")
def log_softmax(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy - exp(y) sum(dy) along the axis."""
    dy, y = str(grads[0]), node.outputs[0]
    whole = b.reduce_sum(dy, [node.attribute("axis", -1)], keepdims=True)
    return [b.op("Sub", dy, b.op("Mul", b.op("Exp", y), whole))]
