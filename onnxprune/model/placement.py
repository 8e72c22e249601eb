"""Where a tensor sits in its graph, and putting other messages in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

from .gaps import ConstantKey, Constants
from .housekeeping import FreshNames, default_opset
from .payload import Payload
from .tensors import Scope, TensorAddress, node_label, subgraphs, walk_graphs
from .wire import join

__all__ = ["Item", "Parts", "Site", "sites"]


@dataclass(frozen=True)
class Parts:
    """The messages that hold one tensor in some form, and the payloads that they refer to."""

    nodes: Sequence[NodeProto] = ()
    initializers: Sequence[TensorProto] = ()
    sparse: Sequence[SparseTensorProto] = ()
    payloads: Mapping[str, Payload] = field(default_factory=dict)
    shared: Constants = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of these messages in a file, each with its tag and length."""
        graph = GraphProto(
            node=self.nodes, initializer=self.initializers, sparse_initializer=self.sparse
        )
        joined = join(ModelProto(graph=graph).SerializeToString(), self.payloads)
        head = bytes(next(joined.blocks())[:12])
        end_of_length = next(at for at, byte in enumerate(head[1:], 1) if byte < 0x80)
        return joined.size - end_of_length - 1


@dataclass(frozen=True)
class Item:
    """One constant tensor: the tensor, and the Constant node around it, if it is in one."""

    address: TensorAddress
    tensor: TensorProto
    node: NodeProto | None

    def dense(self, payloads: Mapping[str, Payload]) -> Parts:
        """The messages that hold it now."""
        if self.node is None:
            return Parts(initializers=(self.tensor,), payloads=payloads)
        return Parts(nodes=(self.node,), payloads=payloads)


@dataclass
class Site:
    """One graph, and what is to take the place of which of its tensors.

    Attributes:
        scope: Where the graph is.
        graph: The graph or function, edited by `apply`.
        opset: Version of the default operator domain in it.
        fresh: Names that are free in it.
        replaced: New parts by the tensor's name.
        shared: Small constants that these parts bring and later ones can use.
    """

    scope: Scope
    graph: GraphProto | FunctionProto
    opset: int
    fresh: FreshNames
    replaced: dict[str, Parts] = field(default_factory=dict)
    shared: dict[ConstantKey, str] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return _value_names(self.graph.input)

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return _value_names(self.graph.output)

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """Every constant tensor by name; the first of equal names."""
        found: dict[str, Item] = {}
        if isinstance(self.graph, GraphProto):
            for tensor in self.graph.initializer:
                address = TensorAddress(self.scope, tensor.name)
                found.setdefault(tensor.name, Item(address, tensor, None))
        for node in self.graph.node:
            if node.op_type == "Constant" and node.output:
                name = node.output[0]
                for attribute in node.attribute:
                    if attribute.name == "value" and attribute.HasField("t"):
                        item = Item(TensorAddress(self.scope, name), attribute.t, node)
                        found.setdefault(name, item)
        return found

    def replace(self, name: str, parts: Parts) -> None:
        """Plan `parts` in the place of a tensor."""
        self.replaced[name] = parts
        self.shared.update(parts.shared)

    def apply(self) -> None:
        """Put the new parts in place: nodes where the Constant node was, or else in front."""
        in_place = {name for name in self.replaced if self.items[name].node is not None}
        front = [
            n for name, new in self.replaced.items() if name not in in_place for n in new.nodes
        ]
        if isinstance(self.graph, GraphProto):
            gone = self.replaced.keys() - in_place
            kept = [tensor for tensor in self.graph.initializer if tensor.name not in gone]
            del self.graph.initializer[:]
            self.graph.initializer.extend(kept)
            for new in self.replaced.values():
                self.graph.initializer.extend(new.initializers)
                self.graph.sparse_initializer.extend(new.sparse)
        if front or in_place:
            self._replace_nodes(front, in_place)

    def _replace_nodes(self, nodes: list[NodeProto], in_place: set[str]) -> None:
        for index, node in enumerate(self.graph.node):
            if node.op_type == "Constant" and node.output and node.output[0] in in_place:
                nodes.extend(self.replaced[node.output[0]].nodes)
                continue
            if not node.name and next(subgraphs(node, index), None) is not None:
                # The scope of a body is named after its node's position where that has no name:
                # positions change here, addresses of tensors must not.
                node.name = node_label(node, index)
            nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(nodes)


def sites(proto: ModelProto) -> dict[Scope, Site]:
    """Every graph of a model, outer before inner; bodies share the names of what they are in."""
    found: dict[Scope, Site] = {}
    roots: dict[Scope, tuple[int, FreshNames]] = {
        (): (default_opset(proto), FreshNames(proto.graph))
    }
    for scope, graph in walk_graphs(proto):
        if isinstance(graph, FunctionProto):
            roots[scope] = (default_opset(graph), FreshNames(graph))
        opset, fresh = roots.get(scope[:1], roots[()])
        found[scope] = Site(scope, graph, opset, fresh)
    return found


def _value_names(values: Sequence[object]) -> frozenset[str]:
    """Names of a graph's (messages) or a function's (strings) inputs or outputs."""
    return frozenset(str(getattr(value, "name", value)) for value in values)
