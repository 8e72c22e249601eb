"""A float16, bfloat16 or float64 model as one that computes in float32."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    numpy_helper,
)

from ..errors import ModelError
from ..model.dtypes import type_name
from ..model.tensors import all_tensors, node_label, walk_graphs

__all__ = ["Float32Copy", "float32_copy"]

#: Types whose copies train in float32 wherever they occur.
HALVES = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16))
#: Types of weights and activations.
FLOATS = HALVES | {TensorProto.FLOAT, TensorProto.DOUBLE}
#: Integer attributes of standard and onnxruntime operators that name an element type.
TYPE_ATTRIBUTES = frozenset(
    (
        "dtype",
        "output_datatype",
        "output_dtype",
        "precision",
        "softmax_precision",
        "stash_type",
        "to",
    )
)
#: Operators whose results depend on how floats are stored.
STORAGE_BOUND = frozenset(("BitCast",))
_DATA_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "raw_data")


@dataclass(frozen=True)
class Float32Copy:
    """A model that computes in float32.

    Attributes:
        proto: The model.
        replaced: Names of the element types that float32 took the place of; empty where the
            model had none of them.
    """

    proto: ModelProto
    replaced: tuple[str, ...]


def float32_copy(proto: ModelProto) -> Float32Copy:
    """The model with float32 in the place of float16 and bfloat16, in bodies and functions too.

    Values of tensors are exact. A model whose tensors, inputs and outputs know no float type but
    float64 computes in float32 as well (rounded; what is out of range becomes the largest float32);
    otherwise float64 is somebody's choice for a part of the model, and stays.

    Args:
        proto: A model with its weights in memory; it stays as it is.

    Raises:
        ModelError: A node's result depends on how floats are stored.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    graphs = [graph for _, graph in walk_graphs(copy)]
    double = {TensorProto.DOUBLE}
    old = double if _floats(copy, graphs) == double else HALVES
    rewrite = _Rewrite(old)
    for graph in graphs:
        rewrite.graph(graph)
    for tensor in all_tensors(copy):
        rewrite.tensor(tensor)
    if rewrite.found:
        _refuse_storage_bound(graphs)
    names = {type_name(data_type) for data_type in rewrite.found}
    return Float32Copy(copy, tuple(sorted(names)))


def _refuse_storage_bound(graphs: list[GraphProto | FunctionProto]) -> None:
    for graph in graphs:
        for index, node in enumerate(graph.node):
            if node.op_type in STORAGE_BOUND:
                raise ModelError(
                    f"{node.op_type} '{node_label(node, index)}' depends on how floats are stored, "
                    "so the model cannot be trained on float32 copies; take the node out of it"
                )


def _floats(proto: ModelProto, graphs: list[GraphProto | FunctionProto]) -> set[int]:
    """Float types of the tensors, and of the inputs and outputs of the main graph and bodies."""
    found = {tensor.data_type for tensor in all_tensors(proto)}
    for info in _infos(graphs):
        found.update(part.tensor_type.elem_type for part in _parts(info.type))
    return found & FLOATS


def _infos(graphs: list[GraphProto | FunctionProto]) -> Iterator[ValueInfoProto]:
    for graph in graphs:
        if isinstance(graph, GraphProto):
            yield from (*graph.input, *graph.output, *graph.value_info)
        else:
            yield from graph.value_info


def _parts(known: TypeProto) -> Iterator[TypeProto]:
    """A type and the types of its elements."""
    yield known
    for field, part in (
        ("sequence_type", "elem_type"),
        ("optional_type", "elem_type"),
        ("map_type", "value_type"),
    ):
        if known.HasField(field):
            yield from _parts(getattr(getattr(known, field), part))


class _Rewrite:
    """Replaces element types in place and remembers which it met."""

    def __init__(self, old: Collection[int]) -> None:
        self._old = frozenset(old)
        self.found: set[int] = set()

    def graph(self, graph: GraphProto | FunctionProto) -> None:
        """Declared types and nodes; not the tensors, and not the bodies within."""
        for info in _infos([graph]):
            self._type(info.type)
        for node in graph.node:
            self._node(node)

    def tensor(self, tensor: TensorProto) -> None:
        """Replace the bytes of a tensor."""
        if not self._replaced(tensor.data_type):
            return
        values = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.DOUBLE:
            values = _in_range(values)
        data = np.ascontiguousarray(values, np.dtype("<f4")).tobytes()
        for field in _DATA_FIELDS:
            tensor.ClearField(field)
        tensor.data_type = TensorProto.FLOAT
        tensor.raw_data = data

    def _node(self, node: NodeProto) -> None:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.INT and attribute.name in TYPE_ATTRIBUTES:
                if self._replaced(attribute.i):
                    attribute.i = TensorProto.FLOAT
            elif attribute.HasField("tp"):
                self._type(attribute.tp)
            for known in attribute.type_protos:
                self._type(known)

    def _type(self, known: TypeProto) -> None:
        for part in _parts(known):
            for field in ("tensor_type", "sparse_tensor_type"):
                if part.HasField(field) and self._replaced(getattr(part, field).elem_type):
                    getattr(part, field).elem_type = TensorProto.FLOAT

    def _replaced(self, data_type: int) -> bool:
        if data_type not in self._old:
            return False
        self.found.add(data_type)
        return True


def _in_range(values: np.ndarray) -> np.ndarray:
    """Finite values that float32 cannot hold become its largest, so that masks stay finite."""
    limit = float(np.finfo(np.float32).max)
    return np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
