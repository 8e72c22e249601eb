"""The one table of operators that use weights: which inputs, laid out how, quantised by what.

Sources: the ONNX operator schemas (opsets 1 to 28) and the schemas that onnxruntime 1.32 registers
for its own domains. An operator that is not here has no layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import layout
from .index import Node
from .layout import Layout

__all__ = ["Operand", "operands"]


@dataclass(frozen=True)
class Operand:
    """An input that may be a weight.

    Args:
        index: position among the node's inputs.
        layout: roles of its axes.
        scale: input that scales the integer codes, where the operator takes quantised weights.
        zero_point: input that holds their zero point.
        quantized: whether the operator reads integer codes.
        either: whether activations are as usual here as weights (a side of a matrix product).
        table: whether rows are looked up, not multiplied: an embedding.
        packed: why such weights cannot be pruned at all.
        least_rank: tensors of fewer axes are no weights here.
        unless: input that is the weight where both are constant and this one is no stored matrix.
    """

    index: int
    layout: Layout
    scale: int | None = None
    zero_point: int | None = None
    quantized: bool = False
    either: bool = False
    table: bool = False
    packed: str | None = None
    least_rank: int = 0
    unless: int | None = None


def _weight(index: int, how: Layout) -> tuple[Operand, ...]:
    return (Operand(index, how),)


def _codes(
    index: int,
    how: Layout,
    scale: int | None,
    zero_point: int | None,
    *,
    either: bool = False,
    unless: int | None = None,
) -> Operand:
    return Operand(index, how, scale, zero_point, quantized=True, either=either, unless=unless)


def _packed(reason: str, *indices: int) -> tuple[Operand, ...]:
    return tuple(Operand(index, layout.opaque, packed=reason) for index in indices)


_CONV = _weight(1, layout.conv)
_CONV_TRANSPOSE = _weight(1, layout.conv_transpose)
_RECURRENT = layout.fixed("direction", "output", "input")
_RECURRENT_TURNED = layout.fixed("direction", "input", "output")
_EXPERTS = layout.fixed("group", "output", "input")
_DENSE = layout.fixed("input", "output")
_LINEAR = _weight(1, _DENSE)
_PRODUCT = (
    Operand(0, layout.left, either=True, unless=1),
    Operand(1, layout.right, either=True),
)
# The second operand of a Gemm is its weight by convention: where it is not a constant, say so.
_GEMM = (Operand(0, layout.left, either=True, unless=1), Operand(1, layout.right))
_RNN = (Operand(1, _RECURRENT), Operand(2, _RECURRENT))
_QLINEAR_CONV = (_codes(3, layout.conv, 4, 5),)
_QLINEAR_CONV_TRANSPOSE = (_codes(3, layout.conv_transpose, 4, 5),)
_TABLE = (Operand(0, _DENSE, table=True),)

_BLOCKS = "its codes are packed in blocks: onnxprune cannot set one weight to zero"
_ORDERED = "its codes are stored in a device's own tile order"
_HIDDEN_SHAPE = "its shape is hidden in a packed blob"

_STANDARD: dict[str, tuple[Operand, ...]] = {
    "Conv": _CONV,
    "ConvTranspose": _CONV_TRANSPOSE,
    "DeformConv": _CONV,
    "CausalConvWithState": _CONV,
    "Gemm": _GEMM,
    "MatMul": _PRODUCT,
    "LSTM": _RNN,
    "GRU": _RNN,
    "RNN": _RNN,
    "QLinearConv": _QLINEAR_CONV,
    "ConvInteger": (_codes(1, layout.conv, None, 3),),
    "QLinearMatMul": (
        _codes(0, layout.left, 1, 2, either=True, unless=3),
        _codes(3, layout.right, 4, 5, either=True),
    ),
    "MatMulInteger": (
        _codes(0, layout.left, None, 2, either=True, unless=1),
        _codes(1, layout.right, None, 3, either=True),
    ),
    "Gather": _TABLE,
}

_MICROSOFT: dict[str, tuple[Operand, ...]] = {
    "FusedConv": _CONV,
    "NhwcConv": _CONV,
    "NhwcFusedConv": _CONV,
    "CausalConvWithState": _CONV,
    "VarlenCausalConvWithState": _CONV,
    "ConvTransposeWithDynamicPads": _CONV_TRANSPOSE,
    "WordConvEmbedding": _weight(1, layout.opaque),
    "FusedMatMul": _PRODUCT,
    "FusedMatMulActivation": _PRODUCT,
    "TransposeMatMul": _PRODUCT,
    "SparseToDenseMatMul": (Operand(1, layout.right, either=True),),
    "FusedGemm": _GEMM,
    "GemmFastGelu": _weight(1, layout.right),
    "GemmFloat8": (
        _codes(0, layout.left, 3, None, either=True, unless=1),
        _codes(1, layout.right, 4, None),
    ),
    "RouterGateUpProj": _LINEAR,
    "Attention": _LINEAR,
    "PackedAttention": _LINEAR,
    "LongformerAttention": (Operand(1, _DENSE), Operand(4, _DENSE)),
    "DecoderAttention": (Operand(2, _DENSE), Operand(3, _DENSE)),
    "GatedRelativePositionBias": _weight(3, _DENSE),
    "HyperConnectionLowRankMix": tuple(Operand(i, _DENSE) for i in (2, 3, 4)),
    "AttnLSTM": (*_RNN, *(Operand(i, _RECURRENT_TURNED) for i in (8, 9, 13))),
    "MoE": tuple(Operand(i, _EXPERTS) for i in (2, 4, 6)),
    "QLinearConv": _QLINEAR_CONV,
    "QGemm": (_codes(0, layout.left, 1, 2, either=True, unless=3), _codes(3, layout.right, 4, 5)),
    "MatMulInteger16": (
        _codes(0, layout.left, None, None, either=True, unless=1),
        _codes(1, layout.right, None, None, either=True),
    ),
    "MatMulIntegerToFloat": (
        _codes(0, layout.left, 2, 4, either=True, unless=1),
        _codes(1, layout.right, 3, 5, either=True),
    ),
    "DynamicQuantizeMatMul": (_codes(1, layout.right, 2, 3),),
    "QAttention": (_codes(1, _DENSE, 4, 7),),
    "DynamicQuantizeLSTM": (
        _codes(1, _RECURRENT_TURNED, 8, 9),
        _codes(2, _RECURRENT_TURNED, 10, 11),
    ),
    "EmbedLayerNormalization": tuple(Operand(i, _DENSE, table=True) for i in (2, 3, 4)),
    "TorchEmbedding": _TABLE,
    "MatMulNBits": _packed(_BLOCKS, 1),
    "MatMulNBitsMlp": _packed(_BLOCKS, 3, 6),
    "MatMulNBitsQkv": _packed(_BLOCKS, 3, 6, 9),
    "MatMulNBitsQLoRA": _packed(_BLOCKS, 1, 3, 5),
    "MatMulBnb4": _packed(_BLOCKS, 1),
    "MatMulFpQ4": _packed(_BLOCKS, 1),
    "MatMulBlockQuantizedFp4Weight": _packed(_BLOCKS, 1),
    "MatMulBlockQuantizedFp8Weight": _packed(_BLOCKS, 1),
    "MatMulPacked": _packed(_HIDDEN_SHAPE, 1),
    "MoEPacked": _packed(_HIDDEN_SHAPE, 2, 3, 4),
    "QMoE": _packed(_BLOCKS, 2, 5, 8),
    "GatherBlockQuantized": _packed(_BLOCKS, 0),
    "GatherPacked": _packed(_HIDDEN_SHAPE, 0),
    "QOrderedMatMul": _packed(_ORDERED, 2),
    "QOrderedAttention": _packed(_ORDERED, 5, 6, 7),
    "QOrderedLongformerAttention": _packed(_ORDERED, 2, 8),
}

# Operators that onnxruntime puts into models it has optimised for one device.
_NHWC: dict[str, tuple[Operand, ...]] = {
    "Conv": _CONV,
    "ConvTranspose": _CONV_TRANSPOSE,
    "QLinearConv": _QLINEAR_CONV,
    "QLinearConvTranspose": _QLINEAR_CONV_TRANSPOSE,
}
_NCHWC: dict[str, tuple[Operand, ...]] = {"Conv": _weight(1, layout.opaque)}

_TABLES: dict[str, dict[str, tuple[Operand, ...]]] = {
    "": _STANDARD,
    "com.microsoft": _MICROSOFT,
    "com.ms.internal.nhwc": _NHWC,
    "com.microsoft.nchwc": _NCHWC,
}


def operands(node: Node) -> tuple[Operand, ...]:
    """Inputs of a node that may be weights; none for an operator that the table does not know."""
    if node.op_type == "Einsum" and not node.domain:
        count = len(node.inputs)
        return tuple(Operand(i, layout.einsum, either=True, least_rank=2) for i in range(count))
    table = _TABLES.get(node.domain)
    return table.get(node.op_type, ()) if table is not None else ()
