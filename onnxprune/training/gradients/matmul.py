"""Gradients of matrix products.

Two-dimensional products use Gemm, which transposes for free; others Transpose and MatMul, which
onnxruntime fuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("MatMul")
def matmul(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """da = dy bᵀ, db = aᵀ dy, summed over broadcast batch axes; vectors count as matrices."""
    left, right = node.inputs
    return _product(b, left, right, str(grads[0]))


def _product(b: GraphBuilder, left: str, right: str, dy: str) -> Gradients:
    """Gradients of left @ right, of any ranks."""
    row, column = b.rank(left) == 1, b.rank(right) == 1
    axes = [-2] * row + [-1] * column
    dy = b.unsqueeze(dy, sorted(axes))
    matrix = b.unsqueeze(left, [0]) if row else left
    other = b.unsqueeze(right, [1]) if column else right
    by_left, by_right = _matrices(b, matrix, other, dy)
    return [
        b.squeeze(by_left, [0]) if row else by_left,
        b.squeeze(by_right, [1]) if column else by_right,
    ]


def _matrices(b: GraphBuilder, left: str, right: str, dy: str) -> tuple[str, str]:
    """Gradients of left @ right, both of rank 2 or more."""
    ranks = b.rank(left), b.rank(right)
    if ranks == (2, 2):
        return b.op("Gemm", dy, right, transB=1), b.op("Gemm", left, dy, transA=1)
    by_left = b.unbroadcast(b.op("MatMul", dy, b.swap_last(right)), left)
    if ranks[1] == 2:
        # All rows of the batch in one product, rather than one product each and a sum.
        rows = (b.op("Flatten", name, axis=-1) for name in (left, dy))
        return by_left, b.op("Gemm", *rows, transA=1)
    return by_left, b.unbroadcast(b.op("MatMul", b.swap_last(left), dy), right)


@gradient("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def fused_matmul(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """MatMul of operands that are transposed first, times alpha."""
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise ModelError(
            f"{node.op_type} '{node.label}' transposes batch axes, which has no gradient here; "
            "train the model before onnxruntime optimises it"
        )
    dy = str(grads[0])
    alpha = node.attribute("alpha", 1.0)
    if alpha != 1:
        dy = b.op("Mul", dy, b.scalar(alpha, dy))
    left, right = node.inputs
    # Vectors have nothing to transpose.
    turned = [
        bool(node.attribute(name, 0)) and b.rank(operand) > 1
        for name, operand in (("transA", left), ("transB", right))
    ]
    operands = [
        b.swap_last(operand) if turn else operand
        for operand, turn in zip((left, right), turned, strict=True)
    ]
    found = _product(b, operands[0], operands[1], dy)
    return [
        b.swap_last(str(slope)) if turn else slope
        for slope, turn in zip(found, turned, strict=True)
    ]


@gradient("Gemm")
def gemm(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """y = alpha a b + beta c, a and b perhaps transposed, c broadcast."""
    dy = str(grads[0])
    left, right = node.inputs[:2]
    alpha = node.attribute("alpha", 1.0)
    turn_left, turn_right = node.attribute("transA", 0), node.attribute("transB", 0)
    if turn_left:
        by_left = b.op("Gemm", right, dy, alpha=alpha, transA=turn_right, transB=1)
    else:
        by_left = b.op("Gemm", dy, right, alpha=alpha, transB=1 - turn_right)
    if turn_right:
        by_right = b.op("Gemm", dy, left, alpha=alpha, transA=1, transB=turn_left)
    else:
        by_right = b.op("Gemm", left, dy, alpha=alpha, transA=1 - turn_left)
    bias = node.input(2)
    if bias is None:
        return [by_left, by_right]
    by_bias = b.unbroadcast(dy, bias)
    beta = node.attribute("beta", 1.0)
    if beta != 1:
        by_bias = b.op("Mul", by_bias, b.scalar(beta, by_bias))
    return [by_left, by_right, by_bias]
