"""One pass over a model: every node, who makes each value, who reads it, across nested scopes.

A name means different values in different graphs: a body sees the names of the graphs around it and
may shadow them, a function sees only its own. Here every value is a (scope, name) pair, resolved
once, so that everything later is a dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from ..model.domain import plain_domain
from ..model.tensors import Scope, node_label, walk_graphs

__all__ = ["Graph", "ModelIndex", "Node", "Read", "Value"]


class Value(NamedTuple):
    """A value: the number of the graph that defines it, and its name there."""

    graph: int
    name: str


@dataclass(eq=False)
class Node:
    """A node with its inputs resolved; None stands for an input left out."""

    __slots__ = ("domain", "graph", "index", "inputs", "op_type", "outputs", "proto")

    proto: NodeProto
    graph: int
    index: int
    op_type: str
    domain: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]

    def input(self, index: int) -> Value | None:
        """The value at an input position; None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None


class Read(NamedTuple):
    """One reading of a value: the node and the input position."""

    node: Node
    position: int


@dataclass(eq=False)
class Graph:
    """The main graph, a body, or a function."""

    number: int
    scope: Scope
    proto: GraphProto | FunctionProto
    root: int
    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[Value, ...] = ()

    @property
    def is_function(self) -> bool:
        """Whether this is a model-local function."""
        return isinstance(self.proto, FunctionProto)


class ModelIndex:
    """Everything about who makes and who reads what.

    Attributes:
        graphs: all graphs, outer before inner, functions last; a graph's number is its position.
        producers: the node that makes a value, and the output position.
        readers: every node input that reads a value.
        returned: numbers of the graphs that have a value among their outputs.
        functions: number of a model-local function's graph by (domain, name, overload).
        calls: nodes that call a function, by its graph's number.
    """

    def __init__(self, proto: ModelProto) -> None:
        """Index all graphs of a model; malformed ones too."""
        self.proto = proto
        self.graphs: list[Graph] = []
        self.producers: dict[Value, tuple[Node, int]] = {}
        self.readers: dict[Value, list[Read]] = {}
        self.returned: dict[Value, list[int]] = {}
        self.functions: dict[tuple[str, str, str], int] = {}
        self.calls: dict[int, list[Node]] = {}
        self._collect()
        for node in self.nodes():
            called = self.called(node)
            if called is not None:
                self.calls.setdefault(called, []).append(node)

    def nodes(self) -> Iterator[Node]:
        """All nodes in the order of the graphs."""
        for graph in self.graphs:
            yield from graph.nodes

    def label(self, node: Node) -> str:
        """The node's label, qualified with its scope outside the main graph."""
        label: str | bytes = node_label(node.proto, node.index)
        if isinstance(label, bytes):
            # Protobuf hands a name that is not UTF-8 out as it is.
            label = label.decode("utf-8", "replace")
        return "/".join((*self.graphs[node.graph].scope, label))

    def called(self, node: Node) -> int | None:
        """Number of the function's graph that a node calls, None for an operator."""
        if not self.functions:
            return None
        overload = node.proto.overload if hasattr(node.proto, "overload") else ""
        return self.functions.get((node.domain, node.op_type, overload))

    def opset(self, graph: int, domain: str = "") -> int | None:
        """Version of an operator set in a graph; a function's own imports come first."""
        root = self.graphs[self.graphs[graph].root].proto
        found = _versions(root).get(domain) if isinstance(root, FunctionProto) else None
        return found if found is not None else _versions(self.proto).get(domain)

    def initializer(self, value: Value) -> TensorProto | None:
        """The initializer that a value is, None where it is something else."""
        return self.graphs[value.graph].initializers.get(value.name)

    def _collect(self) -> None:
        """Visit every graph with the stack of scopes that it can see."""
        visible: dict[str, list[int]] = {}
        open_graphs: list[tuple[int, list[str]]] = []
        for scope, proto in walk_graphs(self.proto):
            is_root = isinstance(proto, FunctionProto) or not scope
            depth = 0 if is_root else len(scope) - len(self.graphs[open_graphs[0][0]].scope)
            while len(open_graphs) > depth:
                for name in open_graphs.pop()[1]:
                    visible[name].pop()
            number = len(self.graphs)
            root = number if is_root else open_graphs[0][0]
            graph = Graph(number, scope, proto, root)
            self.graphs.append(graph)
            names = self._define(graph)
            for name in names:
                visible.setdefault(name, []).append(number)
            open_graphs.append((number, names))
            self._resolve(graph, visible)

    def _define(self, graph: Graph) -> list[str]:
        """Register a graph's own names; the names it makes visible to itself and its bodies."""
        proto = graph.proto
        if isinstance(proto, FunctionProto):
            graph.inputs = tuple(proto.input)
            key = (plain_domain(proto.domain), proto.name, getattr(proto, "overload", ""))
            self.functions.setdefault(key, graph.number)
        else:
            graph.inputs = tuple(value.name for value in proto.input)
            for tensor in proto.initializer:
                graph.initializers.setdefault(tensor.name, tensor)
        names = dict.fromkeys((*graph.inputs, *graph.initializers))
        for index, node in enumerate(proto.node):
            outputs = tuple(node.output)
            domain = plain_domain(node.domain)
            record = Node(node, graph.number, index, node.op_type, domain, (), outputs)
            graph.nodes.append(record)
            for position, name in enumerate(outputs):
                if name and name not in graph.initializers:
                    self.producers.setdefault(Value(graph.number, name), (record, position))
                    names[name] = None
        names.pop("", None)
        return list(names)

    def _resolve(self, graph: Graph, visible: Mapping[str, list[int]]) -> None:
        """Find the value that every input of a graph's nodes, and every output, stands for."""
        number = graph.number

        def resolved(name: str) -> Value | None:
            if not name:
                return None
            owners = visible.get(name)
            return Value(owners[-1] if owners else number, name)

        for node in graph.nodes:
            node.inputs = tuple([resolved(name) for name in node.proto.input])
            for position, value in enumerate(node.inputs):
                if value is not None:
                    self.readers.setdefault(value, []).append(Read(node, position))
        proto = graph.proto
        names = (
            list(proto.output)
            if isinstance(proto, FunctionProto)
            else [output.name for output in proto.output]
        )
        graph.outputs = tuple(resolved(name) or Value(number, name) for name in names)
        for value in graph.outputs:
            self.returned.setdefault(value, []).append(number)


def _versions(proto: ModelProto | FunctionProto) -> dict[str, int]:
    return {plain_domain(entry.domain): entry.version for entry in proto.opset_import}
