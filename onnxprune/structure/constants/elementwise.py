"""Operators that work on each element by itself: constants in, a constant out."""

from __future__ import annotations

from collections.abc import Sequence
from math import erf, prod, sqrt
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from ...graph.attributes import find_attribute
from ...model.domain import plain_domain
from ..broadcasting import axes_behind
from ..registry import Site
from .known import LIMIT, Known, known, wide
from .registry import Fact, constant

#: Functions without jumps: where a runtime rounds otherwise, the result is all but the same.
#: Not among them are Sign, Round, comparisons and casts to whole numbers.
_SMOOTH = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh Celu Cos Cosh Div Elu Erf Exp HardSigmoid HardSwish
    LeakyRelu Log Max Mean Min Mish Neg Not Or PRelu Pow Reciprocal Relu Selu Shrink Sigmoid Sin
    Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""


@constant(*_SMOOTH.split())
def smooth(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """The operator itself on the constants, as the reference implementation of ONNX has it."""
    return [_computed(site, _aligned(site, operands))]


@constant("Mul")
def mul(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """As the others; besides, zero times anything is zero: activations count as finite."""
    aligned = _aligned(site, operands)
    found = _computed(site, aligned)
    for operand in aligned:
        zero = None if operand is None or not operand.zero.any() else operand.zero
        if zero is None:
            continue
        if found is None:
            found = known(np.zeros(zero.shape), zero)
        elif zero.size <= LIMIT:
            found = known(found.values, found.mask | zero)
    return [found]


@constant("Identity", "Dropout")
def same(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Unchanged; a Dropout that may be training is not."""
    flag = site.constant(2)
    training = site.has(2) and (flag is None or bool(flag.any()))
    if site.node.op_type == "Dropout" and site.opset < 7:
        training = not site.integer("is_test", 0)
    return [None if training else operands[0]]


@constant("Cast")
def cast(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Between types of floating-point numbers, and from whole numbers to these."""
    attribute = find_attribute(site.node, "to")
    if attribute is None or attribute.i not in _FLOATS or operands[0] is None:
        return [None]
    return [known(wide(operands[0].values.astype(_FLOATS[attribute.i])), operands[0].mask)]


_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}


@constant("Clip")
def clip(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Bounds are attributes in older opsets."""
    bounds: list[Any] = []
    for index, name in ((1, "min"), (2, "max")):
        attribute, operand = find_attribute(site.node, name), site.has(index)
        bound = operands[index] if operand else None
        if operand and (bound is None or bound.values.size != 1 or not bound.mask.all()):
            return [None]
        given = None if attribute is None else attribute.f
        bounds.append(given if bound is None else wide(bound.values).reshape(()))
    x = operands[0]
    if x is None or bounds == [None, None]:
        return [x]
    return [known(np.clip(wide(x.values), *bounds), x.mask)]


@constant("Gelu")
@constant("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain="com.microsoft")
def gelu(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """x P(Z < x) or an approximation of it (Hendrycks and Gimpel 2016); some with a bias."""
    x, name = operands[0], site.node.op_type
    if x is None:
        return [None]
    values, mask = wide(x.values), x.mask
    if site.has(1):
        bias = operands[1]
        if bias is None:
            return [None]
        values, mask = values + wide(bias.values), mask & bias.mask
    if name == "QuickGelu":
        attribute = find_attribute(site.node, "alpha")
        alpha = 1.702 if attribute is None else attribute.f
        return [known(values / (1 + np.exp(-alpha * values)), mask)]
    if name == "FastGelu" or site.text("approximate", "none") == "tanh":
        inner = sqrt(2 / np.pi) * (values + 0.044715 * values**3)
        return [known(0.5 * values * (1 + np.tanh(inner)), mask)]
    return [known(0.5 * values * (1 + np.vectorize(erf, [float])(values / sqrt(2))), mask)]


@constant("DequantizeLinear")
@constant("DequantizeLinear", domain="com.microsoft")
def dequantize(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """(x - zero point) x scale, with scalars or along an axis."""
    x, scale = operands[:2]
    if x is None or scale is None or site.integer("block_size", 0):
        return [None]
    zero = operands[2] if len(operands) > 2 and site.has(2) else None
    if (site.has(2) and zero is None) or prod(x.mask.shape) > LIMIT:
        return [None]
    axis = site.integer("axis", 1)
    parts = [_placed(part, x, axis) for part in (scale, zero) if part is not None]
    if any(not part.mask.all() for part in parts):
        return [None]
    shift = parts[1].values.astype(np.float64) if zero is not None else 0.0
    values = (x.values.astype(np.float64) - shift) * wide(parts[0].values)
    return [known(values, x.mask)]


def _placed(part: Known, x: Known, axis: int) -> Known:
    """A vector of scales laid along an axis of x."""
    if part.mask.size == 1:
        return Known(part.values.reshape(()), part.mask.reshape(()))
    shape = [1] * x.mask.ndim
    shape[axis] = part.mask.size
    return Known(part.values.reshape(shape), part.mask.reshape(shape))


def _aligned(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Operands as they broadcast since opset 7."""
    found = list(operands)
    second = found[1] if len(found) == 2 else None
    if second is not None:
        shape = (*second.mask.shape, *(1 for _ in range(axes_behind(site))))
        found[1] = Known(second.values.reshape(shape), second.mask.reshape(shape))
    return found


def _computed(site: Site, operands: Sequence[Fact]) -> Fact:
    """The node evaluated on constants."""
    given = [operand for operand in operands if operand is not None]
    if not given or len(given) < len(operands):
        return None
    shape = np.broadcast_shapes(*(operand.mask.shape for operand in given))
    if prod(shape) > LIMIT:
        return None
    mask = np.ones(shape, bool)
    for operand in given:
        mask &= operand.mask
    if not mask.any():
        return None
    arrays = [wide(operand.values) for operand in given]
    found = _evaluated(site, arrays)
    return None if found is None else known(found, mask)


def _evaluated(site: Site, arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    node = site.node
    feeds: dict[str, Any] = dict(zip(node.input, arrays, strict=True))
    domain = plain_domain(node.domain)
    try:
        with np.errstate(all="ignore"):
            found: Any = ReferenceEvaluator(node, opsets={domain: site.opset}).run(None, feeds)
    except Exception:
        return None  # a form that the reference does not take, such as those of old opsets
    return np.asarray(found[0])
