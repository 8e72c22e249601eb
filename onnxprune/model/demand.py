"""How much memory a model claims to need: the largest value in it, as far as shapes tell.

A file of a few hundred bytes may fill an array of any size (ConstantOfShape, Expand, Tile, Range, a
chain of Concat), and a runtime computes such constants as soon as it opens the model. What follows
from a model's inputs is another matter: whoever has samples of them may well want it computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import GraphProto, ModelProto, TypeProto, ValueInfoProto, defs

from ..errors import ModelError
from .domain import plain_domain
from .dtypes import storage_bytes
from .external_data import map_file
from .inlining import inferred
from .tensors import all_tensors, subgraphs, walk_graphs
from .wire import split

__all__ = ["Demand", "demand", "demand_of"]

#: Bytes of a value that is not run at all.
IMPOSSIBLE = 2**36


@dataclass(frozen=True)
class Demand:
    """The largest value that a model computes.

    Attributes:
        value: Its name; empty where nothing is known.
        bytes: Its size, open axes counted as one.
        stored: Bytes that the model itself takes.
    """

    value: str
    bytes: int
    stored: int


def demand(model: Path | bytes, *, constants: bool = False) -> Demand:
    """The largest value of a model file, or of the bytes of one; see `demand_of`."""
    buffer = map_file(model) if isinstance(model, Path) else memoryview(model)
    try:
        proto = ModelProto.FromString(split(buffer)[0])
    except Exception:  # no model: whoever opens it says so
        return Demand("", 0, len(buffer))
    return demand_of(proto, len(buffer), constants=constants)


def demand_of(proto: ModelProto, stored: int = 0, *, constants: bool = False) -> Demand:
    """The largest value of a model.

    Args:
        proto: The model, which may be without the bytes of its tensors.
        stored: Bytes of its file.
        constants: Whether only values count that follow from no input, and those that no computer
            can hold.
    """
    tensors = sum(_bytes(t.data_type, t.dims) for t in all_tensors(proto))
    known = _known(proto)
    values = [*_values(known), *_values(proto)]
    if constants:
        values = [value for value in values if _size(value) > IMPOSSIBLE]
        values += (*_constants(known), *_constants(proto))
    largest = max(values, key=_size, default=None)
    name, size = ("", 0) if largest is None else (largest.name, _size(largest))
    return Demand(name, size, max(stored, tensors))


def _known(proto: ModelProto) -> ModelProto:
    """The model with what follows from its operators alone: what it states may be wrong."""
    unstated = ModelProto()
    unstated.CopyFrom(proto)
    _import_missing(unstated)
    for _, graph in walk_graphs(unstated):
        if isinstance(graph, GraphProto):
            graph.ClearField("value_info")
            for output in graph.output:
                output.ClearField("type")
    try:
        return inferred(unstated)
    except ModelError:
        return unstated  # what the file states is all there is


def _import_missing(proto: ModelProto) -> None:
    """Import every operator set that nodes are of, in place.

    onnxruntime takes the newest of one that is not imported; shape inference refuses the model.
    """
    missing = {plain_domain(node.domain) for _, g in walk_graphs(proto) for node in g.node}
    missing -= {plain_domain(entry.domain) for entry in proto.opset_import}
    for domain in sorted(missing):
        proto.opset_import.add(domain=domain, version=1 if domain else defs.onnx_opset_version())


def _values(proto: ModelProto) -> Iterator[ValueInfoProto]:
    for _, graph in walk_graphs(proto):
        if isinstance(graph, GraphProto):
            yield from graph.value_info
            yield from graph.input
            yield from graph.output


def _constants(proto: ModelProto) -> Iterator[ValueInfoProto]:
    """Values that nodes make from initializers, from each other or from nothing."""
    for _, graph in walk_graphs(proto):
        if not isinstance(graph, GraphProto):
            continue
        known = {"", *(tensor.name for tensor in graph.initializer)}
        for node in graph.node:
            if known.issuperset(node.input) and not any(True for _ in subgraphs(node, 0)):
                known.update(node.output)
        yield from (value for value in graph.value_info if value.name in known)
        yield from (value for value in graph.output if value.name in known)


def _size(value: ValueInfoProto) -> int:
    kind: TypeProto.Tensor = value.type.tensor_type
    return _bytes(kind.elem_type, [dim.dim_value or 1 for dim in kind.shape.dim])


def _bytes(data_type: int, dims: Iterable[int]) -> int:
    count = math.prod(max(0, size) for size in dims)
    try:
        return storage_bytes(data_type, count)
    except KeyError:
        return count
