"""Small edits of whole graphs: copies, names, outputs, and nodes that nothing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from .backward import reads

__all__ = ["copied", "expose", "prepend", "rename"]


def copied(proto: ModelProto) -> ModelProto:
    """A copy of a model."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


def rename(proto: ModelProto, names: Mapping[str, str]) -> None:
    """Rename values that nodes of the main graph make and read."""
    for node in proto.graph.node:
        for fields in (node.input, node.output):
            for index, name in enumerate(fields):
                if name in names:
                    fields[index] = names[name]


def prepend(proto: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Put nodes in front of those of the main graph."""
    kept = [_copy_node(node) for node in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *kept])


def _drop_dead(graph: GraphProto) -> set[str]:
    """Remove nodes that no output needs, for they would be run; returns all values needed."""
    needed = {info.name for info in graph.output}
    alive: list[NodeProto] = []
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if not needed.isdisjoint(node.output):
            alive.append(node)
            needed.update(reads(node, index))
    kept = [_copy_node(node) for node in reversed(alive)]
    del graph.node[:]
    graph.node.extend(kept)
    return needed


def _copy_node(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def expose(
    proto: ModelProto,
    outputs: Mapping[str, tuple[int, ...] | None],
    inputs: Mapping[str, np.ndarray],
    keep: Sequence[str] = (),
) -> None:
    """Set the outputs (float32, of a known shape or None), and feed initializers at every run."""
    graph = proto.graph
    kept = [info for info in graph.output if info.name in keep and info.name not in outputs]
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in outputs.items()
    )
    graph.output.extend(kept)
    needed = _drop_dead(graph)
    stored = [
        tensor
        for tensor in graph.initializer
        if tensor.name in needed and tensor.name not in inputs
    ]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in inputs.items()
    )
