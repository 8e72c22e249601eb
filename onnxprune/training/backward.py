"""Appending the gradients of a value with respect to others: reverse accumulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from ..errors import ModelError
from ..model.tensors import node_label, subgraphs
from .builder import GraphBuilder
from .gradients import Node, is_constant, rule_for
from .values import FLOATS

__all__ = ["Blocked", "NoGradientError", "backward", "blocked", "pull_back", "reads"]


@dataclass(frozen=True)
class Blocked:
    """A node without a gradient rule between wanted values and the loss."""

    label: str
    op_type: str
    wanted: tuple[str, ...]


class NoGradientError(ModelError):
    """Gradients were asked for through operators that have none; `nodes` says which."""

    def __init__(self, nodes: Sequence[Blocked]) -> None:
        self.nodes = tuple(nodes)
        listed = "; ".join(
            f"{node.op_type} '{node.label}' (in front of {_quoted(node.wanted)})" for node in nodes
        )
        super().__init__(
            f"no gradient passes {listed}; keep these weights frozen and train the others"
        )


def backward(builder: GraphBuilder, loss: str, wanted: Sequence[str]) -> dict[str, str]:
    """Append the gradients of a loss.

    Args:
        builder: The graph, which ends in the loss.
        loss: A value with one element.
        wanted: Names of values (initializers, inputs, or values in between).

    Returns:
        The name of the gradient of every wanted value that the loss depends on.

    Raises:
        NoGradientError: An operator without a rule lies between a wanted value and the loss.
    """
    one = builder.scalar(1.0, loss)
    if builder.shape(loss) != ():
        one = builder.op("Expand", one, builder.shape_of(loss))
    return pull_back(builder, {loss: one}, wanted)


def pull_back(
    builder: GraphBuilder, seeds: Mapping[str, str], wanted: Sequence[str]
) -> dict[str, str]:
    """Append the product of given output gradients with the Jacobian: see `backward`.

    Args:
        builder: The graph.
        seeds: Gradients of values, by the values' names.
        wanted: Names of values whose gradients to return.
    """
    path = _Path(builder, seeds, wanted)
    for name in path.varying:
        builder.values.forget_constant(name)
    if stuck := path.blocked():
        raise NoGradientError(stuck)
    mark = builder.mark()
    found: dict[str, list[str]] = {name: [seed] for name, seed in seeds.items()}
    for index in reversed(path.nodes):
        _differentiate(builder, path, index, found)
    result = {name: builder.total(found[name]) for name in wanted if found.get(name)}
    builder.drop_unused(mark, list(result.values()))
    return result


def blocked(builder: GraphBuilder, loss: str, wanted: Sequence[str]) -> tuple[Blocked, ...]:
    """The nodes at which `backward` would stop."""
    return _Path(builder, {loss: ""}, wanted).blocked()


def _differentiate(
    builder: GraphBuilder, path: _Path, index: int, found: dict[str, list[str]]
) -> None:
    """Append the gradient of one node and add it to those of its inputs."""
    proto = builder.graph.node[index]
    node = Node(
        proto, node_label(proto, index), tuple(name in path.varying for name in proto.input)
    )
    with builder.within(node.label):
        gradients = [_summed(builder, found, name) for name in proto.output]
        if all(gradient is None for gradient in gradients):
            return
        rule = rule_for(proto)
        assert rule is not None  # `blocked` looked
        results = rule(builder, node, gradients)
    for name, result, needed in zip(proto.input, results, node.needs, strict=False):
        if needed and result is not None:
            builder.values.declare(result, name)
            found.setdefault(name, []).append(result)


def _summed(builder: GraphBuilder, found: dict[str, list[str]], name: str) -> str | None:
    """The whole gradient of a value, None where nothing reached it."""
    if not found.get(name):
        return None
    total = builder.total(found[name])
    builder.values.declare(total, name)
    found[name] = [total]
    return total


class _Path:
    """Which values depend on wanted ones, and which nodes carry that to the seeded values."""

    def __init__(
        self, builder: GraphBuilder, seeds: Mapping[str, str], wanted: Sequence[str]
    ) -> None:
        self._nodes: Sequence[NodeProto] = builder.graph.node
        self._builder = builder
        self._wanted = wanted
        self.varying = self._reached(wanted)
        self.nodes = self._towards(set(seeds))

    def _reached(self, start: Sequence[str]) -> set[str]:
        """Values that change with those given."""
        reached = set(start)
        for index, node in enumerate(self._nodes):
            if is_constant(node) or reached.isdisjoint(reads(node, index)):
                continue
            # Through what has no rule the path goes on, whatever type it gives: it is to be named.
            unknown = rule_for(node) is None
            reached.update(
                name for name in node.output if name and (unknown or self._differentiable(name))
            )
        return reached

    def _differentiable(self, name: str) -> bool:
        dtype = self._builder.values.dtype(name)
        return dtype is None or dtype in FLOATS

    def _towards(self, targets: set[str]) -> list[int]:
        """Positions of the nodes between the wanted values and the targets, in graph order."""
        found: list[int] = []
        for index in range(len(self._nodes) - 1, -1, -1):
            node = self._nodes[index]
            carried = targets.intersection(node.output) & self.varying
            names = reads(node, index)
            if carried and not is_constant(node) and not self.varying.isdisjoint(names):
                found.append(index)
                targets.update(names)
        return found[::-1]

    def blocked(self) -> tuple[Blocked, ...]:
        """The nodes on the path that have no rule, with the wanted values behind each."""
        stuck = [index for index in self.nodes if rule_for(self._nodes[index]) is None]
        behind: dict[int, list[str]] = {index: [] for index in stuck}
        for name in self._wanted if stuck else ():
            reached = self._reached([name])
            for index in stuck:
                if not reached.isdisjoint(reads(self._nodes[index], index)):
                    behind[index].append(name)
        return tuple(
            Blocked(node_label(self._nodes[index], index), self._nodes[index].op_type, tuple(names))
            for index, names in behind.items()
        )


def reads(node: NodeProto, index: int) -> list[str]:
    """Names of the values a node reads, those captured by its bodies included."""
    names = [name for name in node.input if name]
    for _, body in subgraphs(node, index):
        names += _captured(body)
    return names


def _captured(body: GraphProto) -> list[str]:
    """Values that a body takes from outside it."""
    made = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
    names: list[str] = []
    for index, node in enumerate(body.node):
        names += [name for name in reads(node, index) if name not in made]
        made.update(node.output)
    return names + [info.name for info in body.output if info.name not in made]


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
