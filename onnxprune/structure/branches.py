"""Branches that are always taken: an If whose condition is the same in every run is no choice."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from ..graph.attributes import find_attribute
from ..model.domain import plain_domain
from ..model.housekeeping import FreshNames
from ..model.tensors import subgraphs
from .sizes import Sizes, measure
from .stored import replace_nodes

__all__ = ["take_branches"]


def take_branches(model: ModelProto) -> Sizes:
    """Put the branch that is taken in the place of every such If, in the main graph.

    Returns:
        Shapes and small values of the graph that is left.
    """
    while True:
        sizes = measure(model)
        nodes = [(node, _branch(node, sizes)) for node in model.graph.node]
        if not any(branch for _, branch in nodes):
            return sizes
        replace_nodes(model.graph, [node for node, branch in nodes if branch is None])
        names = FreshNames(model.graph)
        result: list[NodeProto] = []
        for node, branch in nodes:
            result += [node] if branch is None else _inlined(node, branch, names)
        replace_nodes(model.graph, result)


def _branch(node: NodeProto, sizes: Sizes) -> GraphProto | None:
    if node.op_type != "If" or plain_domain(node.domain):
        return None
    condition = sizes.static(node.input[0])
    if condition is None or condition.size != 1:
        return None
    held = find_attribute(node, "then_branch" if condition.reshape(-1)[0] else "else_branch")
    return None if held is None else held.g


def _inlined(node: NodeProto, branch: GraphProto, names: FreshNames) -> list[NodeProto]:
    """The nodes of a branch, with names that nothing else in the graph has."""
    results = dict(zip((info.name for info in branch.output), node.output, strict=True))
    made = [tensor.name for tensor in branch.initializer]
    made += [name for inner in branch.node for name in inner.output if name]
    inside = {name: results.get(name) or names.make(name) for name in made}
    nodes = []
    for tensor in branch.initializer:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        nodes.append(helper.make_node("Constant", [], [inside[tensor.name]], value=copy))
    nodes += [_renamed(inner, inside) for inner in branch.node]
    for name, result in zip((info.name for info in branch.output), node.output, strict=True):
        if inside.get(name, name) != result:
            nodes.append(helper.make_node("Identity", [inside.get(name, name)], [result]))
    return nodes


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of a node that reads and makes values under other names, its bodies too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [names.get(name, name) for name in node.output]
    pending: list[tuple[NodeProto | GraphProto, Mapping[str, str]]] = [(copy, names)]
    while pending:
        part, known = pending.pop()
        if isinstance(part, NodeProto):
            part.input[:] = [known.get(name, name) for name in part.input]
            pending += [(body, known) for _, body in subgraphs(part, 0)]
            continue
        own = {info.name for info in part.input} | {tensor.name for tensor in part.initializer}
        own.update(name for inner in part.node for name in inner.output)
        seen = {name: new for name, new in known.items() if name not in own}
        for info in part.output:
            info.name = seen.get(info.name, info.name)
        pending += [(inner, seen) for inner in part.node]
    return copy
