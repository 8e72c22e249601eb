"""Gap-coded weights back into tensors, so that a model stored so can be pruned again.

Only what `gaps` itself writes is folded: its chain of operators, its names, and no other reader of
what lies between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping

import numpy as np
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, helper

from .dtypes import PACKED_BITS
from .model import Model, checked_storage, element_count, payload_key
from .payload import Payload
from .scattered import ScatteredPayload
from .sparse import LARGEST_DENSE, hold, unused_key, without_data
from .tensors import Scope, TensorAddress, subgraphs, walk_graphs
from .wire import SMALLEST_PAYLOAD

__all__ = ["fold_gaps"]

#: Attributes of each operator of the chain.
ATTRIBUTES: dict[str, set[str]] = {
    "Cast": {"to"},
    "CumSum": set(),
    "ConstantOfShape": {"value"},
    "ScatterElements": set(),
    "Reshape": set(),
}


def fold_gaps(model: Model, payloads: MutableMapping[str, Payload]) -> frozenset[TensorAddress]:
    """Replace the gap code of every weight by a tensor, in place.

    Args:
        model: A model over `payloads`; its proto is edited.
        payloads: Extended by the weights' payloads, and rid of those of the gap code.

    Returns:
        Where the weights are.
    """
    found: list[TensorAddress] = []
    # Bodies first: the nodes around them are copied.
    for scope, graph in reversed(list(walk_graphs(model.proto))):
        if any(node.op_type == "ScatterElements" for node in graph.node):
            found += _fold_graph(model, scope, graph, payloads)
    return frozenset(found)


def _fold_graph(
    model: Model,
    scope: Scope,
    graph: GraphProto | FunctionProto,
    payloads: MutableMapping[str, Payload],
) -> Iterator[TensorAddress]:
    readers = Counter(_reads(graph))
    producers = {output: node for node in graph.node for output in node.output}
    folded: list[NodeProto] = []
    for last in list(graph.node):
        chain = _chain(last, producers, readers)
        if chain is None:
            continue
        dense = _weight(model, scope, chain, payloads)
        if dense is None:
            continue
        if isinstance(graph, FunctionProto):
            graph.node.insert(0, helper.make_node("Constant", [], [dense.name], value=dense))
        else:
            graph.initializer.append(dense)
        folded += chain
        yield TensorAddress(scope, dense.name)
    if folded:
        _remove(graph, folded, readers, payloads)


def _reads(graph: GraphProto | FunctionProto) -> Iterator[str]:
    """Every name that is read in a graph or in a body inside it, once per reader."""
    yield from graph.output if isinstance(graph, FunctionProto) else (o.name for o in graph.output)
    for index, node in enumerate(graph.node):
        yield from node.input
        for _, body in subgraphs(node, index):
            yield from _reads(body)


def _chain(
    last: NodeProto, producers: dict[str, NodeProto], readers: Counter[str]
) -> tuple[NodeProto, ...] | None:
    """The nodes of a gap code from its last one back, or None where they are not one.

    In their order: Cast, CumSum, ConstantOfShape, ScatterElements, Reshape.
    """
    if last.op_type != "Reshape" or len(last.input) != 2 or not last.output:
        return None

    def behind(node: NodeProto, index: int, operator: str, inputs: int) -> NodeProto | None:
        name = node.input[index]
        source = producers.get(name)
        fits = source is not None and source.op_type == operator and len(source.input) == inputs
        return source if fits and readers[name] == 1 else None

    scatter = behind(last, 0, "ScatterElements", 3)
    zeros = behind(scatter, 0, "ConstantOfShape", 1) if scatter is not None else None
    total = behind(scatter, 1, "CumSum", 2) if scatter is not None else None
    cast = behind(total, 0, "Cast", 1) if total is not None else None
    if scatter is None or zeros is None or total is None or cast is None:
        return None
    chain = (cast, total, zeros, scatter, last)
    ours = cast.input[0].startswith(f"{last.output[0]}_gaps")
    return chain if ours and all(map(_is_plain, chain)) else None


def _is_plain(node: NodeProto) -> bool:
    """Whether a node of the chain says just what `gaps` writes: no attribute more, none other."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.domain or len(node.output) != 1 or attributes.keys() != ATTRIBUTES[node.op_type]:
        return False
    if node.op_type == "Cast":
        return attributes["to"].i in (TensorProto.INT32, TensorProto.INT64)
    if node.op_type == "ConstantOfShape":
        zero = attributes["value"].t
        return list(zero.dims) == [1] and zero.HasField("raw_data") and not any(zero.raw_data)
    return True


def _weight(
    model: Model,
    scope: Scope,
    chain: tuple[NodeProto, ...],
    payloads: MutableMapping[str, Payload],
) -> TensorProto | None:
    """The dense tensor that a gap code stands for; None where its parts do not fit together."""
    cast, total, zeros, scatter, last = chain
    names = (cast.input[0], scatter.input[2], zeros.input[0], last.input[1], total.input[1])
    parts = [model.tensors.get(TensorAddress(scope, name)) for name in names]
    tensors = [part for part in parts if part is not None]
    if len(tensors) != len(names) or not _fit(*tensors):
        return None
    gaps, values, size, shape, axis = (model.payload(tensor).array() for tensor in tensors)
    dense = without_data(tensors[1], shape.tolist())
    dense.name = last.output[0]
    positions = np.cumsum(gaps, dtype=np.int64)
    if axis[0] != 0 or (shape < 0).any() or checked_storage(dense) > LARGEST_DENSE:
        return None
    if element_count(dense) != size[0] or positions[-1] >= size[0] or not gaps[1:].all():
        return None
    payload = ScatteredPayload(positions, values, int(size[0]))
    key = "" if payload.nbytes < SMALLEST_PAYLOAD else unused_key(f"{scope}{dense.name}", payloads)
    return hold(dense, payload, key, payloads)


def _fit(
    gaps: TensorProto, values: TensorProto, size: TensorProto, shape: TensorProto, axis: TensorProto
) -> bool:
    """Whether the constants of a gap code have the types and shapes that belong together."""
    entries = list(gaps.dims)
    return (
        gaps.data_type == TensorProto.UINT8
        and len(entries) == 1
        and entries[0] > 0
        and entries == list(values.dims)
        and values.data_type not in (TensorProto.STRING, *PACKED_BITS)
        and all(part.data_type == TensorProto.INT64 for part in (size, shape, axis))
        and (list(size.dims), len(shape.dims), list(axis.dims)) == ([1], 1, [])
    )


def _remove(
    graph: GraphProto | FunctionProto,
    folded: list[NodeProto],
    readers: Counter[str],
    payloads: MutableMapping[str, Payload],
) -> None:
    """Take out the nodes of gap codes, and the constants that only they read."""
    for node in folded:
        readers.subtract(node.input)
    unread = {name for node in folded for name in node.input if readers[name] == 0}
    gone = {node.output[0] for node in folded}
    nodes, tensors = list(graph.node), []
    del graph.node[:]
    for node in nodes:
        constant = node.op_type == "Constant" and node.output[0] in unread
        tensors += [attribute.t for attribute in node.attribute] if constant else []
        # The Constant node that takes a weight's place has its name, and no inputs.
        if not constant and not (node.input and node.output and node.output[0] in gone):
            graph.node.append(node)
    if isinstance(graph, GraphProto):
        initializers = list(graph.initializer)
        del graph.initializer[:]
        for tensor in initializers:
            (tensors if tensor.name in unread else graph.initializer).append(tensor)
    for tensor in tensors:
        payloads.pop(payload_key(tensor) or "", None)
