"""Operators that work on each element by itself."""

from __future__ import annotations

from ..broadcasting import axes_behind
from ..registry import Site, rule

_UNARY_NAMES = """
    Abs Acos Acosh Affine Asin Asinh Atan Atanh BitCast BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf
    Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not
    ParametricSoftplus Reciprocal Relu Round ScaledTanh Selu Shrink Sigmoid Sign Sin Sinh Softplus
    Softsign Sqrt Swish Tan Tanh ThresholdedRelu
"""
_VARIADIC_NAMES = """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
    LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum SwiGLU Where Xor
"""
_CONTRIB = ["Gelu", "FastGelu", "BiasGelu", "QuickGelu"]


@rule(*_UNARY_NAMES.split())
def unary(site: Site) -> None:
    """The result is cut as the operand is."""
    site.set(site.axes(0))


@rule("Clip", "CastLike", "Dropout")
def first(site: Site) -> None:
    """As unary: further operands are scalars or types; a mask is as large as the result."""
    if site.node.op_type == "CastLike":
        site.followed.add(site.node.input[1])
    for index in range(len(site.node.output)):
        site.set(site.axes(0), index)


@rule(*_VARIADIC_NAMES.split())
def variadic(site: Site) -> None:
    """Aligned axes are equal, those of size one go along with any other."""
    operands = [site.axes(index) for index in range(len(site.node.input))]
    if len(operands) == 2:
        operands[1] = (*operands[1], *(site.fixed(1) for _ in range(axes_behind(site))))
    site.set(site.broadcast(operands))


@rule(*_CONTRIB, domain="com.microsoft")
def contrib(site: Site) -> None:
    """Activations, some with a bias along the last axis."""
    operands = [site.axes(index) for index in range(len(site.node.input)) if site.has(index)]
    site.set(site.broadcast(operands))
