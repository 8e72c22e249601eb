"""All constant tensors of a model, decoded with the onnx package alone, in whatever form they are.

Nothing here uses onnxprune: these are the second opinion on what it writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnx import numpy_helper as nh

Scope = tuple[str, ...]
Key = tuple[Scope, str]
Body = GraphProto | FunctionProto

__all__ = [
    "Body",
    "Constant",
    "Key",
    "Scope",
    "bodies",
    "bodies_of",
    "constants",
    "decoded_by_nodes",
    "made_dense",
    "with_values",
]


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant: its ONNX element type, its values, and the form in which it is stored."""

    data_type: int
    array: np.ndarray
    form: str

    @property
    def bits(self) -> bytes:
        return self.array.tobytes()

    def same(self, other: Constant) -> bool:
        return (
            self.data_type == other.data_type
            and self.array.shape == other.array.shape
            and self.bits == other.bits
        )


def bodies_of(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """Bodies of a node, named by what does not change when nodes are put before it."""
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for number, graph in enumerate(graphs):
            yield f"{'|'.join(node.output)}.{attribute.name}.{number}", graph


def bodies(proto: ModelProto) -> Iterator[tuple[Scope, Body]]:
    """Main graph, functions, and every body inside them."""
    roots: list[tuple[Scope, Body]] = [((), proto.graph)]
    roots += [((f"{f.domain}:{f.name}:{f.overload}",), f) for f in proto.functions]
    while roots:
        scope, body = roots.pop()
        yield scope, body
        for node in body.node:
            roots += [((*scope, name), graph) for name, graph in bodies_of(node)]


def made_dense(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """Values of a sparse tensor, which has linear or per-axis indices."""
    values, indices = nh.to_array(sparse.values), nh.to_array(sparse.indices)
    dims = tuple(sparse.dims)
    flat = np.zeros(int(np.prod(dims)), values.dtype)
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), dims)
    flat[indices] = values
    return flat.reshape(dims)


def _of_node(node: NodeProto) -> Constant | None:
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.type == AttributeProto.TENSOR or attribute.HasField("t"):
            return Constant(attribute.t.data_type, nh.to_array(attribute.t), "constant")
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            sparse = attribute.sparse_tensor
            return Constant(sparse.values.data_type, made_dense(sparse), "sparse_value")
    return None


def constants(proto: ModelProto) -> dict[Key, Constant]:
    """Every constant tensor of a model by scope and name (strings left out)."""
    found: dict[Key, Constant] = {}
    for scope, body in bodies(proto):
        if isinstance(body, GraphProto):
            for tensor in body.initializer:
                if tensor.data_type != TensorProto.STRING:
                    array = nh.to_array(tensor)
                    found[scope, tensor.name] = Constant(tensor.data_type, array, "initializer")
            for sparse in body.sparse_initializer:
                kind = sparse.values.data_type
                found[scope, sparse.values.name] = Constant(kind, made_dense(sparse), "sparse")
        for node in body.node:
            constant = _of_node(node)
            if constant is not None and constant.data_type != TensorProto.STRING:
                found[scope, node.output[0]] = constant
    return found


def decoded_by_nodes(proto: ModelProto, scope: Scope, name: str) -> np.ndarray:
    """Value of a name that standard operators make from constants (a gap code), by running them."""
    import onnxruntime

    body = dict(bodies(proto))[scope]
    makers = {output: node for node in body.node for output in node.output}
    tensors = {t.name: t for t in body.initializer} if isinstance(body, GraphProto) else {}
    nodes, initializers = _slice(makers, tensors, name)
    value = onnx.ValueInfoProto(name=name)
    graph = onnx.helper.make_graph(nodes, "decode", [], [value], initializers)
    opsets = body.opset_import if isinstance(body, FunctionProto) else proto.opset_import
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=proto.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        _typed(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {})[0])


def _slice(
    makers: dict[str, NodeProto], tensors: dict[str, TensorProto], name: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and initializers that a value is made from, in order."""
    nodes: list[NodeProto] = []
    used: dict[str, TensorProto] = {}

    def visit(value: str) -> None:
        if value in tensors:
            used[value] = tensors[value]
        elif value and makers[value] not in nodes:
            for source in makers[value].input:
                visit(source)
            nodes.append(makers[value])

    visit(name)
    return nodes, list(used.values())


def _typed(model: ModelProto) -> ModelProto:
    """The model with the type of its one output filled in by shape inference."""
    inferred = onnx.shape_inference.infer_shapes(model)
    name = model.graph.output[0].name
    known: Sequence[onnx.ValueInfoProto] = [*inferred.graph.output, *inferred.graph.value_info]
    for info in known:
        if info.name == name and info.type.tensor_type.elem_type:
            model.graph.output[0].CopyFrom(info)
    return model


def with_values(proto: ModelProto, wanted: Mapping[Key, np.ndarray]) -> ModelProto:
    """A copy of a model with other values in some of its dense tensors."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    left = dict(wanted)
    for scope, body in bodies(copy):
        tensors = [(t.name, t) for t in body.initializer] if isinstance(body, GraphProto) else []
        for node in body.node:
            tensors += [
                (node.output[0], a.t)
                for a in node.attribute
                if node.op_type == "Constant" and a.HasField("t")
            ]
        for name, tensor in tensors:
            if (scope, name) in left:
                array = left.pop((scope, name))
                tensor.CopyFrom(nh.from_array(array, tensor.name))
    if left:
        raise KeyError(f"not in the model as dense tensors: {sorted(left)}")
    return copy
