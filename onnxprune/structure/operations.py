"""How many multiplications each operator makes, from the shapes of its operands and result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from onnx import NodeProto

from ..graph.attributes import integer, text
from ..model.domain import plain_domain
from ..model.tensors import subgraphs
from .sizes import Shape

__all__ = ["multiplications"]


class _Operands:
    """Shapes of one node; raises KeyError where one that is asked for is not known."""

    def __init__(self, node: NodeProto, shapes: Mapping[str, Shape]) -> None:
        self.node = node
        self._shapes = shapes

    def __getitem__(self, index: int) -> Shape:
        name = self.node.input[index] if index < len(self.node.input) else ""
        return self._shapes[name]

    @property
    def result(self) -> Shape:
        """Shape of the first result."""
        return self._shapes[self.node.output[0]]


def multiplications(node: NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Multiplications (each goes with an addition) of one node.

    Args:
        node: The node.
        shapes: Shapes of values by name.

    Returns:
        Their number; 0 for operators that work on each element by itself, None where shapes are
        not known or do not fit the operator, or the node holds a graph.
    """
    if any(True for _ in subgraphs(node, 0)):
        return None
    domain = plain_domain(node.domain)
    formula = _FORMULAS.get((domain, node.op_type))
    if formula is None:
        return 0
    try:
        return formula(_Operands(node, shapes))
    except (LookupError, ValueError, ZeroDivisionError):
        return None


Formula = Callable[[_Operands], int]


def _convolution(weight: int) -> Formula:
    """Every result is a sum over the inputs of its group and the taps: W is [M, C / group, ...]."""
    return lambda x: math.prod(x.result) * math.prod(x[weight][1:])


def _transposed(weight: int) -> Formula:
    """Every operand goes into the results of its group and the taps: W is [C, M / group, ...]."""
    return lambda x: math.prod(x[0]) * math.prod(x[weight][1:])


def _product(first: int = 0) -> Formula:
    """Every result is a sum over the last axis of the first operand."""
    return lambda x: math.prod(x.result) * x[first][-1]


def _gemm(x: _Operands) -> int:
    rows = integer(x.node, "transA", 0)
    return math.prod(x.result) * x[0][0 if rows else -1]


def _fused_product(x: _Operands) -> int:
    rows = integer(x.node, "transA", 0)
    return math.prod(x.result) * x[0][-2 if rows else -1]


def _einsum(x: _Operands) -> int:
    """Operands are joined from left to right; letters that nobody needs any more are summed."""
    equation = (text(x.node, "equation") or "").replace(" ", "").replace("...", "")
    left, _, result = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = x[index]
        for letter, size in zip(term, shape[len(shape) - len(term) :], strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    leading = [x[i][: len(x[i]) - len(term)] for i, term in enumerate(terms)]  # of "..."
    rest = max(math.prod(shape) for shape in leading)
    total, joined = 0, set(terms[0])
    for index, term in enumerate(terms[1:], 1):
        joined |= set(term)
        total += rest * math.prod(sizes[letter] for letter in joined)
        joined &= set(result).union(*terms[index + 1 :])
    return total


def _recurrent(x: _Operands) -> int:
    """Every step multiplies by W [directions, gates x hidden, input] and by R."""
    return x[0][0] * x[0][1] * (math.prod(x[1]) + math.prod(x[2]))


def _attention(query: int = 0, key: int = 1) -> Formula:
    """Queries times keys, then scores times values."""

    def formula(x: _Operands) -> int:
        return (math.prod(x[query]) + math.prod(x.result)) * x[key][-2]

    return formula


def _packed_attention(x: _Operands) -> int:
    """com.microsoft.Attention projects its input [batch, length, width] first: W [width, 3 h]."""
    batch, length, width = x[0]
    project = batch * length * width * x[1][1]
    return project + 2 * math.prod(x.result) * length


def _n_bits(x: _Operands) -> int:
    return math.prod(x[0]) * (integer(x.node, "N", 0) or 0)


_STANDARD: dict[str, Formula] = {
    "Attention": _attention(),
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed(1),
    "DeformConv": _convolution(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _product(),
    "MatMulInteger": _product(),
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product(),
    "RNN": _recurrent,
}
_MICROSOFT: dict[str, Formula] = {
    "Attention": _packed_attention,
    "DynamicQuantizeMatMul": _product(),
    "FusedConv": _convolution(1),
    "FusedGemm": _gemm,
    "FusedMatMul": _fused_product,
    "MatMulBnb4": _n_bits,
    "MatMulIntegerToFloat": _product(),
    "MatMulNBits": _n_bits,
    "MultiHeadAttention": _attention(),
    "QGemm": _gemm,
    "QLinearConv": _convolution(3),
}
_FORMULAS: dict[tuple[str, str], Formula] = {
    **{("", name): formula for name, formula in _STANDARD.items()},
    **{("com.microsoft", name): formula for name, formula in _MICROSOFT.items()},
}
