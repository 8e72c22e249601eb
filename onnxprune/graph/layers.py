"""Layer discovery: which tensors of a model are weights that can be pruned, and which are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from ..model.dtypes import type_name
from ..model.model import Model
from .layer import Layer, LayerScan, Quantization, Unprunable
from .sharing import other_readers
from .weights import Found, Missing, WeightSearch

__all__ = ["find_layers"]

_FLOATS = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
    }
)
_CODES = frozenset(
    {
        TensorProto.INT4,
        TensorProto.UINT4,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT16,
        TensorProto.UINT16,
        TensorProto.INT32,
    }
)
_EMBEDDING = "an embedding table: pruned only when asked for (--embeddings)"


def find_layers(model: Model, *, embeddings: bool = False) -> LayerScan:
    """Find every weight of a model, in the order in which its nodes use them.

    Only the graph and small constants (scales, zero points, shapes) are read, never the weights, so
    that a weight of constant values is found here like any other. A malformed graph raises nothing:
    what cannot be followed is listed as not prunable.

    Args:
        model: the model; it stays as it is.
        embeddings: whether tables that Gather looks up are layers too.
    """
    search = WeightSearch(model, embeddings=embeddings)
    counts = Counter(address.name for address in model.tensors)
    layers: list[Layer] = []
    unprunable: list[tuple[tuple[int, int, int], Unprunable]] = []
    for found in search.found.values():
        address = found.stored.address
        name = str(address) if counts[address.name] > 1 else address.name
        layer = _judged(search, found, name)
        if isinstance(layer, Layer):
            layers.append(layer)
        else:
            unprunable.append((_position(found), layer))
    for missing in search.missing.values():
        unprunable.append((_position(missing), _unmade(search, missing)))
    unprunable.sort(key=lambda entry: entry[0])
    return LayerScan(tuple(layers), tuple(entry for _, entry in unprunable))


def _position(entry: Found | Missing) -> tuple[int, int, int]:
    """Place of the first reading in graph order."""
    read = entry.first if isinstance(entry, Found) else entry.read
    return read.node.graph, read.node.index, read.position


def _unmade(search: WeightSearch, missing: Missing) -> Unprunable:
    node = missing.read.node
    label = search.index.label(node)
    return Unprunable(missing.name, label, node.op_type, None, missing.reason)


def _judged(search: WeightSearch, found: Found, name: str) -> Layer | Unprunable:
    """The layer that a tensor is, or why it is none."""
    stored = found.stored
    others = other_readers(search.index, search.tracer, stored.value, search.reads)
    quantization = found.quantization or _plain_integers(found)
    reason = next((r for r in (check(found) for check in _CHECKS) if r is not None), others.reason)
    if reason is None:
        return Layer(
            name,
            stored.address,
            stored.kind,
            stored.shape,
            stored.tensor.data_type,
            tuple(found.uses),
            None if _is_float(found) and found.quantization is None else quantization,
            others.lookups,
        )
    node = found.first.node
    return Unprunable(name, search.index.label(node), node.op_type, stored.shape, reason)


def _is_float(found: Found) -> bool:
    return found.stored.tensor.data_type in _FLOATS


def _plain_integers(found: Found) -> Quantization | None:
    """Integers that a Cast turns into floats are their own values: scale 1, zero point 0."""
    if found.cast and found.stored.tensor.data_type in _CODES:
        return Quantization(np.ones((), np.float32), np.zeros((), np.int8))
    return None


def _unread(found: Found) -> str | None:
    return None if found.uses else _EMBEDDING


def _shapeless(found: Found) -> str | None:
    shape = found.stored.shape
    if not shape:
        return "a single number, not a matrix"
    if any(size < 0 for size in shape):
        return "its shape has a negative dimension: the file is damaged"
    return "it has no elements" if 0 in shape else None


def _untyped(found: Found) -> str | None:
    data_type = found.stored.tensor.data_type
    if data_type in _FLOATS or found.problem is not None:
        return None
    name = type_name(data_type)
    if data_type not in _CODES:
        return f"its type is {name}, not a float or a quantised integer"
    if found.quantization is None and not found.cast:
        return f"its {name} values come without a scale or a zero point"
    return None


_CHECKS: tuple[Callable[[Found], str | None], ...] = (
    _unread,
    lambda found: found.problem,
    _shapeless,
    _untyped,
)
