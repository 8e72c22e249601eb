"""Writing what frees a batch axis into a graph: new inputs of nodes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ...model.tensors import walk_graphs
from .nodes import Edit, Lift, Multiple

__all__ = ["apply_edits", "fresh_names"]


def fresh_names(stem: str) -> Iterator[str]:
    """A name and then, without end, that name with a number."""
    yield stem
    yield from (f"{stem}_{number}" for number in itertools.count(1))


def apply_edits(proto: ModelProto, edits: Mapping[tuple[int, int], Edit], batched: str) -> None:
    """Give nodes of the main graph their new inputs, in place.

    Args:
        proto: The model.
        edits: New inputs, by index of the node and of the input.
        batched: A graph input with the batch on its first axis.
    """
    graph = proto.graph
    taken = {name for _, g in walk_graphs(proto) for n in g.node for name in (*n.input, *n.output)}
    taken.update(tensor.name for tensor in graph.initializer)
    names = (name for name in fresh_names("freed_batch") if name not in taken)
    writer = _Writer(names, batched)
    nodes: list[NodeProto] = []
    for index, node in enumerate(graph.node):
        for position in range(len(node.input)):
            edit = edits.get((index, position))
            if edit is not None:
                writer.nodes.clear()
                node.input[position] = writer.written(edit, node.input[position])
                nodes += writer.nodes
        nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


class _Writer:
    """Writes the nodes that make new inputs."""

    def __init__(self, names: Iterator[str], batched: str) -> None:
        self.nodes: list[NodeProto] = []
        self._names = names
        self._batched = batched

    def written(self, edit: Edit, old: str) -> str:
        """Name of the new input."""
        if isinstance(edit, np.ndarray):
            return self._constant(edit)
        if isinstance(edit, Lift):
            target = [1] * edit.rank
            before, behind = target[: edit.axis], target[edit.axis + 1 :]
            return self._op("Expand", old, self._shape((*before, Multiple(1), *behind)))
        return self._shape(edit)

    def _shape(self, sizes: Sequence[int | Multiple]) -> str:
        """A vector in which multiples of the size of the batch occur."""
        batch = self._op("Shape", self._batched, start=0, end=1)
        parts = []
        for size in sizes:
            if not isinstance(size, Multiple):
                parts.append(self._constant(np.array([size], np.int64)))
            elif size.factor == 1:
                parts.append(batch)
            else:
                factor = self._constant(np.array([size.factor], np.int64))
                parts.append(self._op("Mul", batch, factor))
        return self._op("Concat", *parts, axis=0)

    def _constant(self, values: np.ndarray) -> str:
        return self._op("Constant", value=numpy_helper.from_array(values))

    def _op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        name = next(self._names)
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name
