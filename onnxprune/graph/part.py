"""Part of a model: the nodes that make some of its values from others."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from ..model.model import Model
from ..model.tensors import subgraphs

__all__ = ["captured_names", "part_of"]

#: Most axes that a shape has.
LONGEST_SHAPE = 8


def part_of(model: Model, names: Sequence[str], known: Mapping[str, np.ndarray]) -> Model:
    """The part of a model that makes some values from others.

    Args:
        model: The model; it stays as it is.
        names: Values of its main graph, which become the outputs.
        known: Values that will be fed, by name, with arrays of their type and rank: inputs, or
            anything that would be made from them.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    needed = set(names)
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        fixed = node.op_type == "Constant"  # tells inference more than an array that is fed
        if needed.intersection(node.output) - (set() if fixed else known.keys()):
            needed.update(node.input, captured_names(node))
            kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    tensors = [t for t in graph.initializer if t.name in needed]
    inputs = [info for info in graph.input if info.name in needed]
    declared = {info.name for info in inputs}
    declared.update(name for node in nodes for name in node.output)
    firsts = {len(array) for array in known.values() if array.ndim > 1}
    inputs += [_info(n, a, firsts) for n, a in known.items() if n in needed - declared]
    for field, values in (("node", nodes), ("initializer", tensors), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    del graph.output[:]
    graph.output.extend(ValueInfoProto(name=name) for name in names)
    del graph.value_info[:]
    return Model(proto, model.payloads, model.origin)


def captured_names(node: NodeProto) -> Iterator[str]:
    """Names that the bodies of a node may take from around them."""
    pending: list[GraphProto] = [graph for _, graph in subgraphs(node, 0)]
    while pending:
        graph = pending.pop()
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from inner.input
            pending += [body for _, body in subgraphs(inner, 0)]


def _info(name: str, like: np.ndarray, firsts: Container[int]) -> ValueInfoProto:
    """An input for arrays of the type and the rank of one.

    A short list of whole numbers may be a part of a shape, which inference for Resize wants to know
    the length of; it has none of the lengths that the first axes of other arrays have.
    """
    kind = helper.np_dtype_to_tensor_dtype(like.dtype)
    listed = like.ndim == 1 and like.dtype.kind == "i" and len(like) <= LONGEST_SHAPE
    open_axes = not listed or len(like) in firsts
    return helper.make_tensor_value_info(
        name, kind, [None] * like.ndim if open_axes else list(like.shape)
    )
