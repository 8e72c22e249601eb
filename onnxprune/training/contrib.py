"""Shapes of onnxruntime's own operators, by way of standard operators with equal outputs."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TypeProto, helper

__all__ = ["DOMAIN", "standard_twin"]

#: Domain of onnxruntime's own operators.
DOMAIN = "com.microsoft"
#: Their standard counterparts, as far as the first output's shape goes.
_TWINS = {
    "BiasGelu": "Identity",
    "FastGelu": "Identity",
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    "Gelu": "Identity",
    "QuickGelu": "Identity",
    "SkipLayerNormalization": "Identity",
    "SkipSimplifiedLayerNormalization": "Identity",
    "TransposeMatMul": "MatMul",
}
_INPUTS = {"Identity": 1, "MatMul": 2, "Conv": 3, "Gemm": 3}
#: Attributes of the counterparts that decide about shapes.
_KEPT = frozenset(
    ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "transA", "transB")
)


def standard_twin(
    node: NodeProto, types: Mapping[str, TypeProto]
) -> tuple[NodeProto, dict[str, TypeProto]] | None:
    """A standard node whose output has the type of a node's first output, and its inputs' types.

    None for operators that have no such counterpart, and where input types are unknown.
    """
    op_type = _TWINS.get(node.op_type) if node.domain == DOMAIN else None
    if op_type is None:
        return None
    names = [name for name in node.input[: _INPUTS[op_type]] if name]
    if not all(name in types for name in names):
        return None
    attributes = {
        attribute.name: helper.get_attribute_value(attribute)
        for attribute in node.attribute
        if attribute.name in _KEPT
    }
    known = {f"{index}": types[name] for index, name in enumerate(names)}
    if op_type == "MatMul":
        for index, flag in enumerate(("transA", "transB")):
            if attributes.pop(flag, 0):
                known[f"{index}"] = _swapped(known[f"{index}"])
    return helper.make_node(op_type, list(known), node.output[:1], **attributes), known


def _swapped(known: TypeProto) -> TypeProto:
    """The type of a matrix (or a batch of them) transposed."""
    swapped = TypeProto()
    swapped.CopyFrom(known)
    dims = list(known.tensor_type.shape.dim)
    if len(dims) > 1:
        swapped.tensor_type.shape.dim[-1].CopyFrom(dims[-2])
        swapped.tensor_type.shape.dim[-2].CopyFrom(dims[-1])
    return swapped
