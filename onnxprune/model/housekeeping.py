"""What other storage forms need around a tensor: opset and IR versions, fresh names, inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from onnx import FunctionProto, GraphProto, ModelProto

from .domain import plain_domain
from .tensors import subgraphs

__all__ = [
    "INITIALIZERS_ALONE",
    "FreshNames",
    "default_opset",
    "quoted",
    "raise_ir_version",
    "remove_inputs",
]

#: From this IR version on an initializer need not be a graph input; one that is can be overridden.
INITIALIZERS_ALONE = 4


def default_opset(proto: ModelProto | FunctionProto) -> int:
    """Version of the default operator domain that a model or function imports; 0 without one."""
    versions = [entry.version for entry in proto.opset_import if not plain_domain(entry.domain)]
    return max(versions, default=0)


class FreshNames:
    """Makes names that no value of these graphs, nor of any body inside them, has."""

    def __init__(self, *graphs: GraphProto | FunctionProto) -> None:
        """Collect the names of `graphs`."""
        self._taken = {name for graph in graphs for name in _names(graph)}

    def make(self, wanted: str) -> str:
        """`wanted`, or `wanted` with a number behind it; never the same name twice."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _names(root: GraphProto | FunctionProto) -> Iterator[str]:
    """Every name of a value or tensor in a graph and in all bodies inside it."""
    pending: list[GraphProto | FunctionProto] = [root]
    while pending:
        graph = pending.pop()
        if isinstance(graph, GraphProto):
            for values in (graph.input, graph.output, graph.value_info):
                yield from (value.name for value in values)
            yield from (tensor.name for tensor in graph.initializer)
            for sparse in graph.sparse_initializer:
                yield from (sparse.values.name, sparse.indices.name)
        else:
            yield from graph.input
            yield from graph.output
        for index, node in enumerate(graph.node):
            yield from node.input
            yield from node.output
            if node.attribute:
                pending.extend(body for _, body in subgraphs(node, index))


def raise_ir_version(proto: ModelProto, version: int) -> tuple[str, ...]:
    """Raise a model's IR version in place to at least `version`; what was done, in sentences.

    Below IR 4 every initializer is listed as a graph input and is a constant all the same. From
    IR 4 on such an input could be overridden, which stops runtimes from folding it: so
    initializers leave the inputs when a model crosses that line.
    https://github.com/onnx/onnx/blob/main/docs/IR.md
    """
    old = proto.ir_version
    if old >= version:
        return ()
    proto.ir_version = version
    notes = [f"IR version raised from {old} to {version}"]
    if old < INITIALIZERS_ALONE:
        removed = remove_inputs(proto.graph, {tensor.name for tensor in proto.graph.initializer})
        if removed:
            notes.append(
                "no longer listed as graph inputs, as they are constants, and from IR "
                f"{INITIALIZERS_ALONE} on an input could be overridden: {quoted(removed)}"
            )
    return tuple(notes)


def remove_inputs(graph: GraphProto, names: Collection[str]) -> tuple[str, ...]:
    """Remove graph inputs by name, in place; the names that were there."""
    removed = []
    for index in reversed(range(len(graph.input))):
        if graph.input[index].name in names:
            removed.append(graph.input[index].name)
            del graph.input[index]
    return tuple(reversed(removed))


def quoted(names: Sequence[str]) -> str:
    """The first three names in quotes, and how many more there are."""
    listed = ", ".join(f"'{name}'" for name in names[:3])
    return f"{listed} and {len(names) - 3} more" if len(names) > 3 else listed
