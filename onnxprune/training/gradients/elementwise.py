"""Gradients of arithmetic, with broadcasting, and of elementary functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..builder import GraphBuilder
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("Add")
def add(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """d(x + y) = dx + dy."""
    dy = str(grads[0])
    return [b.unbroadcast(dy, name) for name in node.inputs]


@gradient("Sum")
def sum_(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """As Add, of any number of inputs."""
    return add(b, node, grads)


@gradient("Mean")
def mean(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """As Sum, divided by the number of inputs."""
    dy = str(grads[0])
    share = b.op("Mul", dy, b.scalar(1 / len(node.inputs), dy))
    return [b.unbroadcast(share, name) for name in node.inputs]


@gradient("Sub")
def sub(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """d(x - y) = dx - dy; the sum over broadcast axes comes before the sign, on less data."""
    dy = str(grads[0])
    left, right = node.inputs
    return [b.unbroadcast(dy, left), b.op("Neg", b.unbroadcast(dy, right))]


@gradient("Mul")
def mul(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """d(x y) = y dx + x dy."""
    dy = str(grads[0])
    left, right = node.inputs
    return [
        b.unbroadcast(b.op("Mul", dy, right), left),
        b.unbroadcast(b.op("Mul", dy, left), right),
    ]


@gradient("Div")
def div(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """d(x / y) = dx / y - (x / y) dy / y."""
    dy = str(grads[0])
    left, right = node.inputs
    scaled = b.op("Div", dy, right)
    slope = b.unbroadcast(b.op("Mul", scaled, node.outputs[0]), right)
    return [b.unbroadcast(scaled, left), b.op("Neg", slope)]


@gradient("Mod")
def mod(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """x - y trunc(x / y), which is what fmod=1 computes; floats have no other."""
    dy = str(grads[0])
    left, right = node.inputs
    whole = b.op("Div", b.op("Sub", left, node.outputs[0]), right)
    slope = b.op("Mul", dy, whole)
    return [b.unbroadcast(dy, left), b.op("Neg", b.unbroadcast(slope, right))]


@gradient("Pow")
def pow_(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """p x^(p-1) dx + x^p log(x) dp, 0 where the logarithm is undefined (x <= 0)."""
    dy = str(grads[0])
    base, exponent = node.inputs
    slope = _power_slope(b, node) if node.needs[0] else None
    by_base = None if slope is None else b.unbroadcast(b.op("Mul", dy, slope), base)
    if not node.needs[1]:
        return [by_base]
    zero, one = b.scalar(0, base), b.scalar(1, base)
    positive = b.op("Greater", base, zero)
    logarithm = b.op("Log", b.op("Where", positive, base, one))
    by_exponent = b.op("Mul", dy, b.op("Mul", node.outputs[0], logarithm))
    return [by_base, b.cast(b.unbroadcast(by_exponent, exponent), exponent)]


def _power_slope(b: GraphBuilder, node: Node) -> str:
    """p x^(p-1), without Pow for the exponents that are common."""
    base, exponent = node.inputs
    constant = b.constant_value(exponent)
    value = float(constant.reshape(-1)[0]) if constant is not None and constant.size == 1 else None
    if value == 2:
        return b.op("Add", base, base)
    if value == 3:
        return b.op("Mul", b.op("Mul", base, base), b.scalar(3, base))
    if value == 0.5:
        return b.op("Div", b.scalar(0.5, base), node.outputs[0])
    if value == 1:
        return b.scalar(1, base)
    power = b.cast(exponent, base)
    less = b.op("Pow", base, b.op("Sub", power, b.scalar(1, base)))
    slope = b.op("Mul", power, less)
    if value is not None and value != 0:
        return slope
    # 0 x^-1 is no number at x = 0.
    zero = b.scalar(0, base)
    return b.op("Where", b.op("Equal", power, zero), zero, slope)


@gradient("Max")
def max_(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the largest input; to the first of two equal ones, shared among more than two."""
    return _extreme(b, node, grads, "GreaterOrEqual")


@gradient("Min")
def min_(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the smallest input, as Max."""
    return _extreme(b, node, grads, "LessOrEqual")


def _extreme(b: GraphBuilder, node: Node, grads: Gradients, wins: str) -> Gradients:
    dy, names = str(grads[0]), node.inputs
    if len(names) == 1:
        return [dy]
    if len(names) == 2:
        first = b.op("Mul", dy, b.cast(b.op(wins, *names), dy))
        second = b.op("Sub", dy, first)
        return [b.unbroadcast(first, names[0]), b.unbroadcast(second, names[1])]
    hits = [b.cast(b.op("Equal", name, node.outputs[0]), dy) for name in names]
    share = b.op("Div", dy, b.total(hits))
    return [
        b.unbroadcast(b.op("Mul", share, hit), name) for hit, name in zip(hits, names, strict=True)
    ]


@gradient("Where")
def where(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the branch that was taken."""
    dy = str(grads[0])
    condition, left, right = node.inputs
    # A mask times dy is several times as fast as Where in onnxruntime.
    taken = b.op("Mul", dy, b.cast(condition, dy))
    return [None, b.unbroadcast(taken, left), b.unbroadcast(b.op("Sub", dy, taken), right)]


@gradient("Clip")
def clip(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """To the input where it is the output (on the bounds too), else to the bound."""
    dy, x, y = str(grads[0]), node.inputs[0], node.outputs[0]
    found: list[str | None] = [b.op("Mul", dy, b.cast(b.op("Equal", x, y), dy))]
    for index, beyond in ((1, "Less"), (2, "Greater")):
        bound = node.input(index)
        if bound is None or not node.needs[index]:
            found.append(None)
            continue
        outside = b.cast(b.op(beyond, x, bound), dy)
        found.append(b.unbroadcast(b.op("Mul", dy, outside), bound))
    return found


# ---- functions of one input ----------------------------------------------------------------

#: Appends dy times the slope at x, given the builder, dy, x and the forward output y.
Unary = Callable[[GraphBuilder, str, str, str], str]


def _unary(op_type: str, rule: Unary) -> None:
    """Register the rule of a function of one input."""

    def apply(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
        return [rule(b, str(grads[0]), node.inputs[0], node.outputs[0])]

    gradient(op_type)(apply)


def _square(b: GraphBuilder, x: str) -> str:
    return b.op("Mul", x, x)


def _over_root(b: GraphBuilder, dy: str, op_type: str, left: str, right: str) -> str:
    """dy / sqrt(left ± right)."""
    return b.op("Div", dy, b.op("Sqrt", b.op(op_type, left, right)))


def _asin(b: GraphBuilder, dy: str, x: str, y: str) -> str:
    return _over_root(b, dy, "Sub", b.scalar(1, x), _square(b, x))


def _tan(b: GraphBuilder, dy: str, x: str, y: str) -> str:
    return b.op("Mul", dy, b.op("Add", _square(b, y), b.scalar(1, y)))


def _erf(b: GraphBuilder, dy: str, x: str, y: str) -> str:
    # 2 / sqrt(pi) exp(-x²), the factor as a part of the exponent: a pass less.
    exponent = b.op("Sub", b.scalar(math.log(2 / math.sqrt(math.pi)), x), _square(b, x))
    return b.op("Mul", dy, b.op("Exp", exponent))


_FUNCTIONS: dict[str, Unary] = {
    "Neg": lambda b, dy, x, y: b.op("Neg", dy),
    "Abs": lambda b, dy, x, y: b.op("Mul", dy, b.op("Sign", x)),
    "Sqrt": lambda b, dy, x, y: b.op("Div", b.op("Mul", dy, b.scalar(0.5, y)), y),
    "Exp": lambda b, dy, x, y: b.op("Mul", dy, y),
    "Log": lambda b, dy, x, y: b.op("Div", dy, x),
    "Reciprocal": lambda b, dy, x, y: b.op("Neg", b.op("Mul", dy, _square(b, y))),
    "Sin": lambda b, dy, x, y: b.op("Mul", dy, b.op("Cos", x)),
    "Cos": lambda b, dy, x, y: b.op("Neg", b.op("Mul", dy, b.op("Sin", x))),
    "Tan": _tan,
    "Sinh": lambda b, dy, x, y: b.op("Mul", dy, b.op("Cosh", x)),
    "Cosh": lambda b, dy, x, y: b.op("Mul", dy, b.op("Sinh", x)),
    "Asin": _asin,
    "Acos": lambda b, dy, x, y: b.op("Neg", _asin(b, dy, x, y)),
    "Atan": lambda b, dy, x, y: b.op("Div", dy, b.op("Add", _square(b, x), b.scalar(1, x))),
    "Asinh": lambda b, dy, x, y: _over_root(b, dy, "Add", _square(b, x), b.scalar(1, x)),
    "Acosh": lambda b, dy, x, y: _over_root(b, dy, "Sub", _square(b, x), b.scalar(1, x)),
    "Atanh": lambda b, dy, x, y: b.op("Div", dy, b.op("Sub", b.scalar(1, x), _square(b, x))),
    "Erf": _erf,
}
for _op_type, _rule in _FUNCTIONS.items():
    _unary(_op_type, _rule)


# ---- the same value ------------------------------------------------------------------------


@gradient("Identity")
def identity(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy."""
    return [grads[0]]


@gradient("Cast", "CastLike")
def cast(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy in the input's type; casts to and from integers are no path for gradients."""
    return [b.cast(str(grads[0]), node.inputs[0])]


@gradient("Dropout")
def dropout(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy / (1 - ratio) where the mask let the input through; dy outside training."""
    dy, ratio, training = str(grads[0]), node.input(1), node.input(2)
    mode = b.constant_value(training)
    if training is None or (mode is not None and not mode.item()):
        return [dy]
    mask = b.cast(node.output(b, 1), dy)
    dropping = b.constant_value(ratio) if ratio else np.float32(0.5)
    if dropping is not None:
        scale = b.scalar(1 / (1 - float(dropping)), dy)
    else:
        scale = b.op("Reciprocal", b.op("Sub", b.scalar(1, dy), b.cast(str(ratio), dy)))
    dropped = b.op("Mul", dy, b.op("Mul", mask, scale))
    return [dropped if mode is not None else b.op("Where", training, dropped, dy)]
