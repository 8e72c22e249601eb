"""Values that several nodes share by chance: each gets its own, and they are shared again later.

Exporters store equal vectors once (zero biases, ones), and start all recurrent layers from the same
zeros: that does not couple what reads them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..model.housekeeping import FreshNames
from .sizes import Sizes
from .stored import constant_tensor, constant_tensors, replace_nodes

__all__ = ["merge_copies", "unshare"]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_SMALL = 1 << 16  # elements of the largest tensor that is looked through for equal elements


def unshare(graph: GraphProto, sizes: Sizes) -> dict[str, str]:
    """Give every further reader of a vector, or of a value with equal elements, a copy of its own.

    Returns:
        Names of the copies, with the name of what they are copies of.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(info.name for info in graph.output)
    shared = {name for name, count in readers.items() if count > 1}
    tensors = {name: t for name, t in constant_tensors(graph) if name in shared and _is_plain(t)}
    fillers = {
        node.output[0]: node
        for node in graph.node
        if node.output and node.output[0] in shared and _is_filler(node, sizes)
    }
    held = _Held(graph)
    names, seen, copies = FreshNames(graph), set[str](), dict[str, str]()
    nodes: list[NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in seen and (name in tensors or name in fillers):
                copy = names.make(f"{name}_copy")
                copies[copy] = name
                nodes += held.copied(name, copy)
                node.input[position] = copy
                _learn_copy(name, copy, sizes)
            seen.add(name)
        nodes.append(node)
    if copies:
        replace_nodes(graph, nodes)
    return copies


class _Held:
    """What holds the values of a graph, by name."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs = {info.name: info for info in graph.input}
        self._nodes = {name: node for node in graph.node for name in node.output}

    def copied(self, name: str, copy: str) -> list[NodeProto]:
        """Add a copy of an initializer to the graph; or make one of the node."""
        if name not in self._tensors:
            node = NodeProto()
            node.CopyFrom(self._nodes[name])
            node.output[:] = [copy]
            node.name = ""
            return [node]
        entries: list[tuple[Any, Any]] = [(self._graph.initializer, self._tensors[name])]
        if name in self._inputs:
            entries.append((self._graph.input, self._inputs[name]))
        for field, entry in entries:
            field.add().CopyFrom(entry)
            field[-1].name = copy
        return []


def _is_plain(tensor: TensorProto) -> bool:
    """Whether it is a vector, or all its elements are equal."""
    longer = [size for size in tensor.dims if size != 1]
    if len(longer) < 2 or tensor.data_type not in _FLOATS:
        return len(longer) == 1 and tensor.data_type != TensorProto.STRING
    if int(np.prod(longer, dtype=np.int64)) > _SMALL:
        return False
    array = numpy_helper.to_array(tensor).reshape(-1)
    return bool((array == array[0]).all())


def _is_filler(node: NodeProto, sizes: Sizes) -> bool:
    """Whether a node repeats one number."""
    if sizes.one.types.get(node.output[0]) not in _FLOATS:
        return False
    if node.op_type == "Expand":
        return set(sizes.shape(node.input[0]) or [1]) <= {1}
    return node.op_type == "ConstantOfShape"


def _learn_copy(name: str, copy: str, sizes: Sizes) -> None:
    for run in (sizes.one, sizes.two, *sizes.probes):
        if name in run.shapes:
            run.shapes[copy] = run.shapes[name]
        if name in run.types:
            run.types[copy] = run.types[name]
        if name in run.values:
            run.values[copy] = run.values[name]


def merge_copies(model: ModelProto, copies: dict[str, str]) -> None:
    """Share again what was given to several nodes and is still the same."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}

    def value(name: str) -> object:
        node = made.get(name)
        tensor = tensors.get(name) if node is None else constant_tensor(node)
        if tensor is not None:
            return tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes()
        if node is None:
            return None
        attributes = sorted(attribute.SerializeToString() for attribute in node.attribute)
        return node.op_type, tuple(node.input), tuple(attributes)

    same = {copy: name for copy, name in copies.items() if value(copy) == value(name)}
    used = set()
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
            used.add(node.input[position])
    _drop(model, {copy for copy in copies if copy not in used})


def _drop(model: ModelProto, names: set[str]) -> None:
    graph = model.graph
    for entries in (graph.initializer, graph.input):
        for position in reversed(range(len(entries))):
            if entries[position].name in names:
                del entries[position]
    replace_nodes(graph, [node for node in graph.node if not names.issuperset(node.output)])
