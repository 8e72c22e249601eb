"""Shapes of results of operators that onnx has no shape inference for: onnxruntime's, mostly.

Source: the operator documentation of onnxruntime (docs/ContribOperators.md, version 1.32).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto
from onnx.shape_inference import infer_node_outputs

from ..graph.attributes import integer, integers

__all__ = ["SHAPES", "TYPED_BY", "Shape"]

Shape = tuple[int, ...]
#: From a node and the shapes of its operands (() where left out) to those of its results.
ShapeRule = Callable[[NodeProto, Sequence[Shape]], Sequence["Shape | None"]]


def _same(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """As large as the first operand."""
    return [shapes[0]]


def _skip_normalization(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Result, mean, inverse deviation, sum before the normalization."""
    reduced = (*shapes[0][:-1], 1)
    return [shapes[0], reduced, reduced, shapes[0]]


def _embedding(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Ids of words and segments, three tables, ...: result, mask index, sum."""
    result = (*shapes[0], shapes[2][1])
    return [result, shapes[0][:1], result]


def _matmul(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Two matrices or stacks of them, each as it is or transposed."""
    a, b = (_turned(shape, node, name) for shape, name in zip(shapes[:2], ("A", "B"), strict=True))
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ValueError("no product of matrices")
    return [(*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])]


def _turned(shape: Shape, node: NodeProto, name: str) -> Shape:
    if integer(node, f"transBatch{name}", 0):
        raise ValueError("batch axes that are moved are not followed")
    return (*shape[:-2], shape[-1], shape[-2]) if integer(node, f"trans{name}", 0) else shape


def _quantized_gemm(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    return _matmul(node, [shapes[0], shapes[3]])


def _packed_attention(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """One weight for query, key and value."""
    sizes = integers(node, "qkv_hidden_sizes")
    value = sizes[2] if sizes else shapes[1][1] // 3
    return [(*shapes[0][:2], value)]


def _multi_head(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Query, key and value apart, each with its heads packed or not, or all three in one."""
    query = shapes[0]
    value = shapes[2] if len(shapes) > 2 else ()
    if len(query) == 5:
        return [(*query[:2], query[2] * query[4])]
    if len(value) == 4:
        return [(*query[:2], value[1] * value[3])]
    return [(*query[:2], value[-1])]


def _grouped_query(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Fewer heads of key and value than of the query; all three may be in one."""
    query = shapes[0]
    if len(shapes) > 1 and shapes[1]:
        return [query]
    heads, others = (integer(node, name, 0) or 0 for name in ("num_heads", "kv_num_heads"))
    return [(*query[:2], query[2] // (heads + 2 * others) * heads)]


def _binary(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Quantized: operands 0 and 3, each followed by its scale and zero point."""
    return [np.broadcast_shapes(shapes[0], shapes[3])]


def _quantized_concat(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Scale and zero point of the result, then operands, each followed by its own."""
    parts = shapes[2::3]
    axis = (integer(node, "axis", 0) or 0) % len(parts[0])
    result = list(parts[0])
    result[axis] = sum(part[axis] for part in parts)
    return [tuple(result)]


def _global_pool(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    x = shapes[0]
    if integer(node, "channels_last", 0):
        return [(x[0], *(1 for _ in x[2:]), x[-1])]
    return [(*x[:2], *(1 for _ in x[2:]))]


def _crop(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape]:
    """Left, top, right and bottom borders go; or a size is given."""
    left, top, right, bottom = integers(node, "border") or (0, 0, 0, 0)
    n, c, height, width = shapes[0]
    size = integers(node, "scale") or (height - top - bottom, width - left - right)
    return [(n, c, *size)]


def _as_standard(op_type: str, operands: Sequence[int]) -> ShapeRule:
    """As a standard operator infers it, from some of the operands."""

    def infer(node: NodeProto, shapes: Sequence[Shape]) -> Sequence[Shape | None]:
        names = [f"x{i}" for i in operands if i < len(shapes)]
        twin = onnx.helper.make_node(op_type, names, ["y"])
        schema = onnx.defs.get_schema(op_type)
        twin.attribute.extend(a for a in node.attribute if a.name in schema.attributes)
        types = {
            f"x{i}": onnx.helper.make_tensor_type_proto(TensorProto.FLOAT, shapes[i])
            for i in operands
            if i < len(shapes)
        }
        try:
            found = infer_node_outputs(schema, twin, types, {}, None, [])["y"]
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            raise ValueError(str(error)) from error
        return [tuple(dim.dim_value for dim in found.tensor_type.shape.dim)]

    return infer


_ALIKE = """
    BiasGelu FastGelu Gelu GroupNorm QuickGelu RotaryEmbedding QLinearLeakyRelu QLinearSigmoid
    QLinearSoftmax QuantizeLinear DequantizeLinear
"""
_PRODUCTS = """
    FusedGemm FusedMatMul GemmFastGelu TransposeMatMul MatMulIntegerToFloat DynamicQuantizeMatMul
"""
_CONTRIB: dict[str, ShapeRule] = {
    **dict.fromkeys(_ALIKE.split(), _same),
    **dict.fromkeys(_PRODUCTS.split(), _matmul),
    "Attention": _packed_attention,
    "EmbedLayerNormalization": _embedding,
    "FusedConv": _as_standard("Conv", (0, 1)),
    "GroupQueryAttention": _grouped_query,
    "MultiHeadAttention": _multi_head,
    "QAttention": _packed_attention,
    "QGemm": _quantized_gemm,
    "QLinearAdd": _binary,
    "QLinearAveragePool": _as_standard("AveragePool", (0,)),
    "QLinearConcat": _quantized_concat,
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearMul": _binary,
    "SkipLayerNormalization": _skip_normalization,
    "SkipSimplifiedLayerNormalization": _skip_normalization,
}
_STANDARD: dict[str, ShapeRule] = {
    "Affine": _same,
    "Crop": _crop,
    "GroupNormalization": _same,
    "ImageScaler": _same,
    "MeanVarianceNormalization": _same,
    "ParametricSoftplus": _same,
    "ScaledTanh": _same,
    "SimplifiedLayerNormalization": _same,
}
#: By domain and operator.
SHAPES: dict[tuple[str, str], ShapeRule] = {
    **{("com.microsoft", name): function for name, function in _CONTRIB.items()},
    **{("", name): function for name, function in _STANDARD.items()},
}
#: Operands that may have the element type of the result, the first that is there counts; where
#: that is not the first of all.
TYPED_BY: dict[str, tuple[int, ...]] = {
    "DequantizeLinear": (1,),
    "DynamicQuantizeMatMul": (2,),
    "EmbedLayerNormalization": (2,),
    "MatMulIntegerToFloat": (2,),
    "QAttention": (3,),
    "QGemm": (8, 1),  # fractions without a zero point of the result
    "QLinearConcat": (2,),
    "QuantizeLinear": (2, 1),
}
