"""The graph that is analysed: the user's, with what would stand in the way taken out.

Model-local functions are inlined, and branches that are always taken; shape arithmetic with the
same result in every run becomes constants, so that 1 / sqrt(head size) keeps its value when heads
get smaller; channel shuffles become a Gather; vectors that several nodes share are given to each of
them separately (`sharing`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ..graph.attributes import integers
from ..graph.part import captured_names
from ..model.domain import plain_domain
from ..model.housekeeping import INITIALIZERS_ALONE
from ..model.inlining import inlined
from ..model.tensors import subgraphs
from .branches import take_branches
from .sharing import unshare
from .sizes import Sizes
from .stored import constant_tensor, reader_counts, replace_nodes

__all__ = ["Names", "Prepared", "prepared", "settle_constants"]


@dataclass(frozen=True)
class Prepared:
    """A copy of a model made ready for the analysis.

    Attributes:
        proto: The copy.
        sizes: Shapes and small values of its main graph.
        copies: Names of constants made here, with the name of what they are copies of.
    """

    proto: ModelProto
    sizes: Sizes
    copies: dict[str, str]


class Names:
    """Names that are not taken in a model."""

    def __init__(self, graph: GraphProto) -> None:
        self._taken: set[str] = set()
        pending = [graph]
        while pending:
            current = pending.pop()
            self._taken.update(tensor.name for tensor in current.initializer)
            self._taken.update(info.name for info in (*current.input, *current.output))
            for index, node in enumerate(current.node):
                self._taken.update(node.output)
                self._taken.add(node.name)
                pending.extend(body for _, body in subgraphs(node, index))

    def unused(self, base: str) -> str:
        """`base`, or `base` with a number where that is taken; taken from now on."""
        name, number = base, 1
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def prepared(proto: ModelProto) -> Prepared:
    """Copy a model and rewrite the copy for the analysis; the result computes the same."""
    model = ModelProto()
    model.CopyFrom(inlined(proto))
    sizes = take_branches(model)
    _fold(model.graph, sizes)
    _shuffles_to_gathers(model.graph, sizes)
    copies = unshare(model.graph, sizes)
    settle_constants(model)
    return Prepared(model, sizes, copies)


def settle_constants(model: ModelProto) -> None:
    """Before opset 9, make Constant nodes with whole numbers initializers: nodes hold floats only.

    Before version 4 of the format, initializers are inputs as well.
    """
    if all(entry.version > 8 or plain_domain(entry.domain) for entry in model.opset_import):
        return
    graph, kept = model.graph, []
    for node in graph.node:
        tensor = constant_tensor(node)
        if tensor is None or numpy_helper.to_array(tensor).dtype.kind == "f":
            kept.append(node)
            continue
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = node.output[0]
        if model.ir_version < INITIALIZERS_ALONE:
            graph.input.append(
                helper.make_tensor_value_info(node.output[0], tensor.data_type, tensor.dims)
            )
    replace_nodes(graph, kept)


def _fold(graph: GraphProto, sizes: Sizes) -> None:
    """Replace derived values that are the same in every run by Constant nodes."""
    results = {info.name for info in graph.output}
    derived = sizes.one.derived

    def folded(node: NodeProto) -> bool:
        names = [name for name in node.output if name]
        return all(
            name in derived and name not in results and sizes.static(name) is not None
            for name in names
        )

    kept = [node for node in graph.node if not folded(node)]
    gone = {name for node in graph.node if folded(node) for name in node.output}
    needed = {name for node in kept for name in (*node.input, *captured_names(node))}
    constants = [_constant(name, sizes) for name in sorted(gone & needed)]
    replace_nodes(graph, [*constants, *_without_dead(kept, derived, results)])


def _constant(name: str, sizes: Sizes) -> NodeProto:
    value = sizes.static(name)
    assert value is not None
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _without_dead(nodes: list[NodeProto], derived: set[str], results: set[str]) -> list[NodeProto]:
    """Drop the shape arithmetic that nobody reads any more."""
    needed = set(results)
    kept = []
    for node in reversed(nodes):
        if all(name in derived and name not in needed for name in node.output):
            continue
        needed.update(node.input, captured_names(node))
        kept.append(node)
    return kept[::-1]


def _shuffles_to_gathers(graph: GraphProto, sizes: Sizes) -> None:
    """Make Reshape-Transpose-Reshape that only permutes one axis a Gather along that axis.

    The factors of a shuffled axis are no groups of channels: taken apart as a split and a merge,
    nearly all channels would have to go together.
    """
    readers = reader_counts(graph)
    made = {name: node for node in graph.node for name in node.output}
    nodes, names = list(graph.node), Names(graph)
    for position, last in enumerate(nodes):
        chain = _shuffle_chain(last, made, readers)
        found = chain and _permutation(*chain, sizes)
        if not chain or not found:
            continue
        axis, order = found
        name = names.unused(f"{last.output[0]}_order")
        value = numpy_helper.from_array(order, name)
        gather = helper.make_node(
            "Gather", [chain[0].input[0], name], list(last.output), name=last.name, axis=axis
        )
        nodes[position] = gather
        _learn_constant(name, order, sizes)
        nodes[nodes.index(chain[0])] = helper.make_node("Constant", [], [name], value=value)
        nodes[nodes.index(chain[1])] = NodeProto()
    replace_nodes(graph, [node for node in nodes if node.op_type])


def _shuffle_chain(
    last: NodeProto, made: dict[str, NodeProto], readers: Counter[str]
) -> tuple[NodeProto, NodeProto, NodeProto] | None:
    """The three nodes, where nobody else reads what is between them."""
    chain = [last]
    for wanted in ("Transpose", "Reshape"):
        before = made.get(chain[0].input[0]) if chain[0].input else None
        if before is None or before.op_type != wanted or readers[before.output[0]] != 1:
            return None
        chain.insert(0, before)
    ours = not any(plain_domain(node.domain) for node in chain)
    return (chain[0], chain[1], last) if last.op_type == "Reshape" and ours else None


def _permutation(
    first: NodeProto, middle: NodeProto, last: NodeProto, sizes: Sizes
) -> tuple[int, np.ndarray] | None:
    """The axis that a chain permutes, and the order of its indices; None for other chains."""
    whole, parts = sizes.shape(first.input[0]), sizes.shape(first.output[0])
    perm = integers(middle, "perm")
    if whole is None or parts is None or perm is None or sizes.shape(last.output[0]) != whole:
        return None
    axis = next((i for i, (a, b) in enumerate(zip(whole, parts, strict=False)) if a != b), None)
    if axis is None or len(parts) != len(whole) + 1 or sizes.dynamic(first.input[0])[axis]:
        return None
    swapped = [*range(axis), axis + 1, axis, *range(axis + 2, len(parts))]
    split = parts[axis] * parts[axis + 1] == whole[axis] and parts[axis + 2 :] == whole[axis + 1 :]
    if list(perm) != swapped or not split:
        return None
    order = np.arange(whole[axis]).reshape(parts[axis], parts[axis + 1]).T.reshape(-1)
    return axis, order.astype(np.int64)


def _learn_constant(name: str, value: np.ndarray, sizes: Sizes) -> None:
    for run in (sizes.one, sizes.two):
        run.shapes[name] = value.shape
        run.values[name] = value
