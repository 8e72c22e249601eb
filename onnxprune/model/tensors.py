"""Where tensors are: graphs nested in graphs and functions, and an address for every constant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

__all__ = [
    "Scope",
    "TensorAddress",
    "TensorKind",
    "all_tensors",
    "function_label",
    "nested",
    "node_label",
    "subgraphs",
    "walk_graphs",
    "walk_tensors",
]

#: Path to a graph: () is the main graph, ("If_3.then_branch",) a body inside it,
#: ("function domain:name",) a model-local function; bodies inside bodies append to it.
Scope = tuple[str, ...]
TensorKind = Literal["initializer", "constant"]


@dataclass(frozen=True, order=True)
class TensorAddress:
    """Names one constant tensor: its graph, and its initializer (or Constant output) name."""

    scope: Scope
    name: str

    def __str__(self) -> str:
        return "/".join((*self.scope, self.name))


def node_label(node: NodeProto, index: int) -> str:
    """The node's name, or operator and position in its graph where it has none."""
    return node.name or f"{node.op_type}_{index}"


def function_label(function: FunctionProto) -> str:
    """Scope element of a model-local function."""
    overload = f":{function.overload}" if function.overload else ""
    return f"function {function.domain}:{function.name}{overload}"


def subgraphs(node: NodeProto, index: int) -> Iterator[tuple[str, GraphProto]]:
    """Scope element and graph of every body a node holds as an attribute."""
    for attribute in node.attribute:
        single = attribute.type == AttributeProto.GRAPH or attribute.HasField("g")
        if not single and not attribute.graphs:
            continue
        label = f"{node_label(node, index)}.{attribute.name}"
        if single:
            yield label, attribute.g
        for position, graph in enumerate(attribute.graphs):
            yield f"{label}[{position}]", graph


def walk_graphs(proto: ModelProto) -> Iterator[tuple[Scope, GraphProto | FunctionProto]]:
    """Every graph of a model, outer before inner: main graph, its bodies, then functions.

    Iterative, so that hostile nesting cannot exhaust the interpreter's stack.
    """
    yield from nested((), proto.graph)
    for function in proto.functions:
        yield from nested((function_label(function),), function)


def nested(
    scope: Scope, root: GraphProto | FunctionProto
) -> Iterator[tuple[Scope, GraphProto | FunctionProto]]:
    """A graph and the bodies inside it, outer before inner."""
    pending = [(scope, root)]
    while pending:
        scope, graph = pending.pop()
        yield scope, graph
        pending.extend(reversed(_bodies(scope, graph.node)))


def _bodies(
    scope: Scope, nodes: Sequence[NodeProto]
) -> list[tuple[Scope, GraphProto | FunctionProto]]:
    """Bodies directly inside these nodes; equal labels are numbered so that scopes stay unique."""
    found: list[tuple[Scope, GraphProto | FunctionProto]] = []
    taken: dict[str, int] = {}
    for index, node in enumerate(nodes):
        if not node.attribute:
            continue
        for label, body in subgraphs(node, index):
            count = taken[label] = taken.get(label, 0) + 1
            unique = label if count == 1 else f"{label}#{count}"
            found.append(((*scope, unique), body))
    return found


def walk_tensors(proto: ModelProto) -> Iterator[tuple[TensorAddress, TensorKind, TensorProto]]:
    """Every constant tensor with its address: initializers and Constant nodes' ``value``."""
    for scope, graph in walk_graphs(proto):
        if isinstance(graph, GraphProto):
            for tensor in graph.initializer:
                yield TensorAddress(scope, tensor.name), "initializer", tensor
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                for attribute in node.attribute:
                    if attribute.name == "value" and attribute.HasField("t"):
                        yield TensorAddress(scope, node.output[0]), "constant", attribute.t


def all_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Every tensor message that may hold or refer to bytes, addressable or not."""
    graphs = [graph for _, graph in walk_graphs(proto)]
    for training in proto.training_info:
        for root in (training.initialization, training.algorithm):
            graphs += [graph for _, graph in nested((), root)]
    for graph in graphs:
        if isinstance(graph, GraphProto):
            yield from graph.initializer
            yield from _parts(graph.sparse_initializer)
        else:
            yield from _attribute_tensors(graph.attribute_proto)
        for node in graph.node:
            yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Sequence[AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from _parts([attribute.sparse_tensor])
        yield from _parts(attribute.sparse_tensors)


def _parts(tensors: Sequence[SparseTensorProto]) -> Iterator[TensorProto]:
    for tensor in tensors:
        yield tensor.values
        yield tensor.indices
