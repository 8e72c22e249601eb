"""What is known about the values of a graph while it grows: element types, shapes, constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    numpy_helper,
    shape_inference,
)
from onnx.reference import ReferenceEvaluator

from ..model.domain import plain_domain
from ..model.inlining import inferred
from .contrib import standard_twin

__all__ = ["FLOATS", "Dim", "Shape", "Values"]

#: A dimension: its size, a name (equal names are equal sizes), or None where nothing is known.
Dim = int | str | None
Shape = tuple[Dim, ...]

#: Element types that carry gradients.
FLOATS = frozenset(
    (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
)
_SHAPE_ARITHMETIC = """
    Add Cast Concat Constant ConstantOfShape Div Equal Expand Gather Identity Mod Mul Neg Range
    ReduceProd Reshape Shape Size Slice Squeeze Sub Unsqueeze Where
"""
#: Operators with which exporters compute shapes, axes and indices.
_FOLDED = frozenset(_SHAPE_ARITHMETIC.split())
_FOLD_LIMIT = 1024  # elements


class Values:
    """Element types, shapes and small constants of a model's main graph.

    Unknown dimensions get a name of their own ("?value:axis"), so that a gradient is known to be
    as large as its value even where nobody knows how large that is.
    """

    def __init__(self, proto: ModelProto) -> None:
        self._opsets = list(proto.opset_import)
        self._versions = {plain_domain(entry.domain): entry.version for entry in proto.opset_import}
        self._types: dict[str, TypeProto] = {}
        self._constants: dict[str, np.ndarray] = {}
        graph = proto.graph
        for tensor in graph.initializer:
            self.add_tensor(tensor)
        known = inferred(proto).graph
        for info in (*known.input, *known.value_info, *known.output):
            self._types.setdefault(info.name, info.type)
        self._name_dimensions(info.name for info in graph.input)
        for node in graph.node:
            self.add_node(node)

    def dtype(self, name: str) -> int | None:
        """Element type (a TensorProto enum value), None where unknown."""
        known = self._types.get(name)
        elem_type = known.tensor_type.elem_type if known is not None else 0
        return elem_type or None

    def shape(self, name: str) -> Shape | None:
        """Dimensions, None where even the rank is unknown."""
        known = self._types.get(name)
        if known is None or not known.tensor_type.HasField("shape"):
            return None
        return tuple(_dimension(dim) for dim in known.tensor_type.shape.dim)

    def constant(self, name: str) -> np.ndarray | None:
        """The value where it is a small constant that training does not change."""
        return self._constants.get(name)

    def forget_constant(self, name: str) -> None:
        """Treat a value as changing from run to run (a trained weight)."""
        self._constants.pop(name, None)

    def add_input(self, info: ValueInfoProto) -> None:
        """Learn the type of a graph input; unknown sizes get names."""
        self._types[info.name] = _copy(info.type)
        self._name_dimensions([info.name])

    def add_tensor(self, tensor: TensorProto) -> None:
        """Learn type, shape and, where small and inline, value of an initializer."""
        self._types[tensor.name] = onnx.helper.make_tensor_type_proto(
            tensor.data_type, list(tensor.dims)
        )
        inline = tensor.data_location != TensorProto.EXTERNAL
        if inline and math.prod(tensor.dims) <= _FOLD_LIMIT:
            self._constants[tensor.name] = numpy_helper.to_array(tensor)

    def add_node(self, node: NodeProto) -> None:
        """Learn what follows about the outputs of a node from its inputs."""
        if not all(name in self._types and self._complete(name) for name in node.output if name):
            for name, found in self._inferred(node).items():
                self._merge(name, found)
            self._name_dimensions(node.output)
        if not plain_domain(node.domain) and node.op_type in _FOLDED:
            self._fold(node)

    def declare(self, name: str, like: str) -> None:
        """State that a value has the element type and shape of another."""
        known = self._types.get(like)
        if known is None:
            return
        self._merge(name, known)
        mine, theirs = (self._types[n].tensor_type.shape.dim for n in (name, like))
        for dim, other in zip(mine, theirs, strict=False):
            if not dim.HasField("dim_value"):
                dim.CopyFrom(other)

    def _complete(self, name: str) -> bool:
        shape = self.shape(name)
        return shape is not None and None not in shape and self.dtype(name) is not None

    def _inferred(self, node: NodeProto) -> Mapping[str, TypeProto]:
        """Types of a node's outputs as far as its operator's schema tells them."""
        twin = standard_twin(node, self._types)
        if twin is not None:
            return self._by_schema(twin[0], twin[1], {})
        names = [name for name in node.input if name]
        if any(a.HasField("g") for a in node.attribute) or not self._types.keys() >= set(names):
            return {}
        data = {
            name: numpy_helper.from_array(self._constants[name], name)
            for name in names
            if name in self._constants
        }
        return self._by_schema(node, {name: self._types[name] for name in names}, data)

    def _by_schema(
        self, node: NodeProto, types: dict[str, TypeProto], data: dict[str, TensorProto]
    ) -> Mapping[str, TypeProto]:
        domain = plain_domain(node.domain)
        try:
            schema = onnx.defs.get_schema(node.op_type, self._versions[domain], domain)
            return shape_inference.infer_node_outputs(schema, node, types, data, None, self._opsets)
        except Exception:  # versions that are no versions, operators that do not fit their operands
            return {}

    def _merge(self, name: str, found: TypeProto) -> None:
        """Add what `found` knows: sizes over names, names over nothing."""
        known = self._types.get(name)
        if known is None or not known.tensor_type.elem_type:
            self._types[name] = _copy(found)
            return
        theirs = found.tensor_type
        if not theirs.HasField("shape"):
            return
        if not known.tensor_type.HasField("shape"):
            known.tensor_type.shape.CopyFrom(theirs.shape)
            return
        if len(known.tensor_type.shape.dim) != len(theirs.shape.dim):
            return
        for mine, other in zip(known.tensor_type.shape.dim, theirs.shape.dim, strict=True):
            if not mine.HasField("dim_value") and other.WhichOneof("value"):
                mine.CopyFrom(other)

    def _name_dimensions(self, names: Iterable[str]) -> None:
        """Give every unknown dimension a name of its own."""
        for name in names:
            known = self._types.get(name)
            if known is None or not known.tensor_type.HasField("shape"):
                continue
            for axis, dim in enumerate(known.tensor_type.shape.dim):
                if _dimension(dim) is None:
                    dim.dim_param = f"?{name}:{axis}"

    def _fold(self, node: NodeProto) -> None:
        """Compute a small integer constant, so that shapes computed by a graph count as known."""
        if node.op_type in ("Shape", "Size"):
            inputs = self._static_zeros(node.input[0])
        else:
            inputs = {}
            for name in node.input:
                if name and name in self._constants:
                    inputs[name] = self._constants[name]
        if inputs is None or any(name and name not in inputs for name in node.input):
            return
        shape = self.shape(node.output[0])
        if shape is None or not _small(shape):
            return
        try:
            (value,) = ReferenceEvaluator(_standard(node), opsets=self._versions).run(None, inputs)
        except Exception:
            return  # whatever it is, it is not a plain constant
        self._constants[node.output[0]] = np.asarray(value)

    def _static_zeros(self, name: str) -> dict[str, np.ndarray] | None:
        """A stand-in (without memory) of a value's shape, None where the shape is not static."""
        sizes = [size for size in self.shape(name) or (None,) if isinstance(size, int)]
        if self.shape(name) is None or len(sizes) != len(self.shape(name) or ()):
            return None
        return {name: np.broadcast_to(np.float32(0), sizes)}


def _standard(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.domain = ""
    return copy


def _copy(found: TypeProto) -> TypeProto:
    copy = TypeProto()
    copy.CopyFrom(found)
    return copy


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _small(shape: Sequence[Dim]) -> bool:
    count = 1
    for size in shape:
        if not isinstance(size, int):
            return False
        count *= size
    return count <= _FOLD_LIMIT
