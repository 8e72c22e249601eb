"""What a layer's weights reach: the part of a model that must run again when they change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from ..graph.part import captured_names
from ..model.tensors import TensorAddress, subgraphs

__all__ = ["Reach", "reaches"]

#: Operators whose values differ from run to run.
RANDOM = frozenset(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)


@dataclass(frozen=True)
class Reach:
    """One layer's part of a model.

    Attributes:
        address: Where the layer's weights are.
        wanted: Those of the wanted values that the weights change.
        boundary: Values that no layer from this one on changes, and from which the wanted values
            can be made.
    """

    address: TensorAddress
    wanted: frozenset[str]
    boundary: tuple[str, ...]


def reaches(
    proto: ModelProto, addresses: Sequence[TensorAddress], wanted: Sequence[str]
) -> tuple[Reach, ...]:
    """The reach of every layer; the boundary of each can be made from that of the one before.

    Args:
        proto: The model.
        addresses: Weights of the layers.
        wanted: Values that are wanted, by name: outputs.
    """
    graph = _MainGraph(proto)
    found = [(address, graph.reached(address)) for address in addresses]
    found.sort(key=lambda entry: graph.first(entry[1]))
    later: set[int] = set()
    result: list[Reach] = []
    for address, nodes in reversed(found):
        later |= nodes
        changed = graph.made(nodes).intersection(wanted)
        result.append(Reach(address, frozenset(changed), graph.boundary(later, wanted)))
    return tuple(reversed(result))


class _MainGraph:
    """Who reads and makes what in the main graph: `static` values are the same in every run."""

    def __init__(self, proto: ModelProto) -> None:
        self.nodes = proto.graph.node
        self.reads = [list(_reads(node)) for node in self.nodes]
        self.makes = [[name for name in node.output if name] for node in self.nodes]
        fixed = {tensor.name for tensor in proto.graph.initializer}
        fixed.update(sparse.values.name for sparse in proto.graph.sparse_initializer)
        self.static = fixed | self.made(self._followed(fixed, every=True))
        # Names that bodies make for themselves are none of the main graph's.
        self.varying = self.made(set(range(len(self.nodes))))
        self.varying.update(info.name for info in proto.graph.input)
        self.varying -= self.static

    def made(self, nodes: set[int]) -> set[str]:
        """All that some nodes make."""
        return {name for at in nodes for name in self.makes[at]}

    def first(self, nodes: set[int]) -> int:
        """The first of these nodes that runs on data; past the end where none does."""
        running = (at for at in nodes if not self.static.issuperset(self.makes[at]))
        return min(running, default=len(self.nodes))

    def reached(self, address: TensorAddress) -> set[int]:
        """Positions of the nodes whose values a weight changes."""
        if not address.scope:
            return self._followed({address.name})
        scope = address.scope[0]
        holders = {at for at, node in enumerate(self.nodes) if _holds(node, at, scope)}
        if not holders:  # it is in a function, which any node may call
            return set(range(len(self.nodes)))
        return holders | self._followed(self.made(holders))

    def boundary(self, nodes: set[int], wanted: Sequence[str]) -> tuple[str, ...]:
        """What these nodes read, and what is wanted, that neither they make nor constants are."""
        left = self.varying - self.made(nodes)
        read = [name for at in sorted(nodes) for name in self.reads[at]]
        return tuple(name for name in dict.fromkeys((*read, *wanted)) if name in left)

    def _followed(self, names: set[str], *, every: bool = False) -> set[int]:
        """Nodes that read one of these values, or `every` one alone, or what such nodes make."""
        known, found = set(names), set[int]()
        waiting = list(range(len(self.nodes)))
        while True:  # once where nodes are in order
            rest = []
            for at in waiting:
                reads = self.reads[at]
                if every and self.nodes[at].op_type in RANDOM:
                    continue
                if known.issuperset(reads) if every else not known.isdisjoint(reads):
                    found.add(at)
                    known.update(self.makes[at])
                else:
                    rest.append(at)
            if len(rest) == len(waiting):
                return found
            waiting = rest


def _reads(node: NodeProto) -> Iterator[str]:
    """Names that a node, or a body in it, takes."""
    yield from (name for name in node.input if name)
    yield from captured_names(node)


def _holds(node: NodeProto, at: int, scope: str) -> bool:
    """Whether the first element of a scope is a body of a node (equal labels are numbered)."""
    return any(scope.startswith(label) for label, _ in subgraphs(node, at))
