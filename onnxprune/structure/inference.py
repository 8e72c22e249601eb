"""Shape inference of single nodes, which remembers: networks repeat the same layers many times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto, OperatorSetIdProto, TensorProto, TypeProto
from onnx.shape_inference import infer_node_outputs

from ..model.domain import plain_domain

__all__ = ["Inference", "MisfitError"]

_PLAIN = """
    Abs Add And AveragePool BatchNormalization Clip Conv ConvInteger ConvTranspose DequantizeLinear
    Div Dropout Elu Equal Erf Exp GRU Gemm GlobalAveragePool GlobalMaxPool Greater HardSigmoid
    GroupNormalization HardSwish InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less
    Log LogSoftmax MatMul MatMulInteger Max MaxPool Mean Min Mul Neg Not Or PRelu Pow QLinearConv
    QLinearMatMul QuantizeLinear RNN Reciprocal Relu Selu Sigmoid Sign Softmax Softplus Sqrt Sub
    Sum Tanh Where
"""
#: Operators whose results have shapes that follow from the shapes of their operands alone.
_BY_SHAPES = frozenset(_PLAIN.split())

_UNKNOWN = TypeProto()
_UNKNOWN.tensor_type.elem_type = TensorProto.FLOAT

#: What a node is and what types it is given.
Key = tuple[str, int, tuple[bytes, ...], tuple[bytes | None, ...]]


class MisfitError(Exception):
    """The operands of a node do not fit together."""


class Inference:
    """Types of the results of nodes under some operator sets.

    Args:
        opsets: What the model imports.
    """

    def __init__(self, opsets: Sequence[OperatorSetIdProto]) -> None:
        self._opsets = list(opsets)
        self.versions = {plain_domain(entry.domain): entry.version for entry in opsets}
        self._known: dict[Key, tuple[TypeProto | None, ...] | None] = {}

    def results(
        self, node: NodeProto, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto]
    ) -> Mapping[str, TypeProto]:
        """What is known of a node's results, by name.

        Args:
            node: Without bodies.
            types: Of values around it.
            data: Values of some of them.

        Raises:
            MisfitError: Its operands do not fit together.
        """
        domain = plain_domain(node.domain)
        if domain or node.op_type not in _BY_SHAPES:
            return self._inferred(node, domain, types, data)
        given = [types.get(name, _UNKNOWN) if name else None for name in node.input]
        key = (
            node.op_type,
            len(node.output),
            tuple(attribute.SerializeToString() for attribute in node.attribute),
            tuple(None if found is None else found.SerializeToString() for found in given),
        )
        if key not in self._known:
            try:
                found = self._inferred(node, domain, types, {})
                self._known[key] = tuple(found.get(name) for name in node.output)
            except MisfitError:
                self._known[key] = None
        known = self._known[key]
        if known is None:
            raise MisfitError
        pairs = zip(node.output, known, strict=True)
        return {name: found for name, found in pairs if found is not None}

    def _inferred(
        self,
        node: NodeProto,
        domain: str,
        types: Mapping[str, TypeProto],
        data: Mapping[str, TensorProto],
    ) -> Mapping[str, TypeProto]:
        names = [name for name in node.input if name]
        given = {name: types.get(name, _UNKNOWN) for name in names}
        values = {name: data[name] for name in names if name in data}
        try:
            schema = onnx.defs.get_schema(node.op_type, self.versions[domain], domain)
            return infer_node_outputs(schema, node, given, values, None, self._opsets)
        except (KeyError, TypeError, onnx.defs.SchemaError):  # a version may be any number
            return {}
        except Exception as error:  # shape inference is C++ and raises unrelated types
            raise MisfitError from error
