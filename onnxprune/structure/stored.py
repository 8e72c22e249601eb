"""What a graph holds: constant tensors in whatever form they have, and its nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from ..graph.attributes import find_attribute
from ..graph.part import captured_names
from ..model.domain import plain_domain

__all__ = ["constant_tensor", "constant_tensors", "reader_counts", "replace_nodes"]


def constant_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Every initializer and every Constant node's tensor, with its name as a value."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        held = constant_tensor(node)
        if held is not None:
            copy = TensorProto()
            copy.CopyFrom(held)
            copy.name = node.output[0]
            yield copy.name, copy


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """The tensor that a Constant node holds, in whatever form it holds it."""
    if node.op_type != "Constant" or plain_domain(node.domain) or not node.output:
        return None
    held = find_attribute(node, "value")
    if held is not None and held.HasField("t"):
        return held.t
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        held = find_attribute(node, name)
        if held is not None:
            number = held.f if name == "value_float" else held.i
            return numpy_helper.from_array(np.array(number, dtype))
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        held = find_attribute(node, name)
        if held is not None:
            numbers = held.floats if name == "value_floats" else held.ints
            return numpy_helper.from_array(np.array(list(numbers), dtype))
    return None


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Give a graph other nodes; these may be its own."""
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)


def reader_counts(graph: GraphProto) -> Counter[str]:
    """How often each value is read: by operands, by bodies of nodes, and as an output."""
    counts = Counter(
        name for node in graph.node for name in (*node.input, *set(captured_names(node)))
    )
    counts.update(info.name for info in graph.output)
    return counts
