"""Sparse tensors: reading them as dense ones, and the parts that a sparse tensor is written from.

ONNX stores a sparse tensor as its non-zero values and their positions, linear or one coordinate
per axis: https://onnx.ai/onnx/repo-docs/IR.html (SparseTensorProto). onnxprune writes linear,
sorted INT64 positions as packed varints, the smallest that the ONNX checker accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from typing import ClassVar

import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    SparseTensorProto,
    TensorProto,
    TensorShapeProto,
)

from ..errors import ModelError
from .dtypes import PACKED_BITS, type_name
from .model import Model, checked_storage, element_count, payload_key, set_payload_key
from .occupancy import KeptPart, kept_elements
from .payload import MappedPayload, Payload
from .scattered import ScatteredPayload, StreamedPayload
from .tensors import TensorAddress, walk_graphs
from .varint import encode_sorted
from .wire import SMALLEST_PAYLOAD

__all__ = [
    "SparseIndicesPayload",
    "SparseValuesPayload",
    "check_expansion",
    "densify_sparse",
    "hold",
    "unused_key",
    "without_data",
]

#: A sparse tensor may claim any size in a few bytes; larger ones than 64 GiB are refused.
LARGEST_DENSE = 2**36
#: So are all sparse tensors of a model together, if they are larger than this and so many times the
#: bytes that are stored.
MUCH_DENSE, MOST_TIMES = 2**28, 1000
#: Elements from which on positions stay in the file.
STREAMED = 2**18
#: Fields of TensorProto that hold its elements or say where they are.
DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data",
               "string_data", "external_data", "data_location")  # fmt: skip


class SparseValuesPayload(KeptPart):
    """The non-zero elements of a payload."""

    @property
    def dtype(self) -> np.dtype:
        """Storage type of the elements."""
        return self.source.dtype

    @property
    def size(self) -> int:
        """Number of non-zero elements."""
        return self.occupancy.kept

    def pieces(self) -> Iterator[np.ndarray]:
        """Non-zero elements of every chunk."""
        for _, values in kept_elements(self.source):
            yield values


class SparseIndicesPayload(KeptPart):
    """The positions of the non-zero elements of a payload, as the packed varints of int64_data."""

    #: Field of TensorProto that these bytes belong to.
    wire_field: ClassVar[int] = 7

    @property
    def dtype(self) -> np.dtype:
        """Bytes."""
        return np.dtype(np.uint8)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.occupancy.varint_bytes

    def pieces(self) -> Iterator[np.ndarray]:
        """Varints of the positions in every chunk."""
        for positions, _ in kept_elements(self.source):
            yield encode_sorted(positions)

    def positions(self) -> np.ndarray:
        """The positions themselves, int64."""
        found = [positions for positions, _ in kept_elements(self.source)]
        return np.concatenate(found) if found else np.empty(0, np.int64)


def hold(
    tensor: TensorProto, payload: Payload, key: str, payloads: MutableMapping[str, Payload]
) -> TensorProto:
    """Give a tensor without bytes its payload: inline where small, else by key; returns it."""
    if payload.nbytes >= SMALLEST_PAYLOAD:
        set_payload_key(tensor, key)
        payloads[key] = payload
    elif isinstance(payload, SparseIndicesPayload):
        tensor.int64_data.extend(payload.positions().tolist())
    else:
        tensor.raw_data = payload.array().tobytes()
    return tensor


def without_data(tensor: TensorProto, dims: Sequence[int]) -> TensorProto:
    """A copy of a tensor (name, type, documentation) with another shape and no elements."""
    copy = TensorProto()
    copy.CopyFrom(tensor)
    for part in (*DATA_FIELDS, "dims"):
        copy.ClearField(part)
    copy.dims.extend(dims)
    return copy


def unused_key(wanted: str, payloads: MutableMapping[str, Payload]) -> str:
    """`wanted`, or `wanted` with a number behind it, so that it is no key of `payloads`."""
    key, number = wanted, 0
    while key in payloads:
        number += 1
        key = f"{wanted}#{number}"
    return key


def check_expansion(model: Model, sparse: Collection[TensorAddress], stored: int) -> None:
    """Refuse a small model whose sparse tensors stand for far more than a trained one has.

    Args:
        model: The model, its sparse tensors made dense.
        sparse: Where they are.
        stored: Bytes that hold the whole model.

    Raises:
        ModelError: How much they stand for.
    """
    made = (model.tensors[address] for address in sparse if address in model.tensors)
    dense = sum(model.payload(tensor).nbytes for tensor in made)
    if dense > max(MUCH_DENSE, MOST_TIMES * stored):
        raise ModelError(
            f"its sparse tensors stand for {dense:,} bytes and the whole model takes {stored:,}: "
            "no trained model is like that; check where it comes from"
        )


def densify_sparse(
    proto: ModelProto, payloads: MutableMapping[str, Payload]
) -> frozenset[TensorAddress]:
    """Make every sparse tensor of a model dense, in place.

    Sparse initializers move to ``initializer`` under the same name, after those that are there; a
    Constant node's ``sparse_value`` becomes ``value``. The dense elements are made chunk by chunk
    when they are asked for, so this costs the memory of the non-zero ones.

    Args:
        proto: A skeleton whose big tensors refer to `payloads`.
        payloads: Extended by a payload for every dense tensor that is not small, and rid of those
            of the sparse parts.

    Returns:
        Where the tensors were that are now dense.

    Raises:
        ModelError: A sparse tensor is malformed, or of a type that has no dense twin here.
    """
    found = []
    for scope, graph in walk_graphs(proto):
        if isinstance(graph, GraphProto) and graph.sparse_initializer:
            names = [sparse.values.name for sparse in graph.sparse_initializer]
            for name, sparse in zip(names, graph.sparse_initializer, strict=True):
                if not name:
                    raise ModelError(
                        "a sparse initializer has no name; the file is damaged, export it again"
                    )
                address = TensorAddress(scope, name)
                graph.initializer.append(_densified(sparse, str(address), payloads))
                found.append(address)
            del graph.sparse_initializer[:]
            _declare_dense(graph, frozenset(names))
        for node in graph.node:
            if node.op_type != "Constant" or not node.output:
                continue
            for attribute in node.attribute:
                if attribute.name == "sparse_value" and attribute.HasField("sparse_tensor"):
                    address = TensorAddress(scope, node.output[0])
                    dense = _densified(attribute.sparse_tensor, str(address), payloads)
                    attribute.ClearField("sparse_tensor")
                    attribute.name, attribute.type = "value", AttributeProto.TENSOR
                    attribute.t.CopyFrom(dense)
                    found.append(address)
    return frozenset(found)


def _densified(
    sparse: SparseTensorProto, name: str, payloads: MutableMapping[str, Payload]
) -> TensorProto:
    """The dense tensor of a sparse one; `name` is for messages and the payload's key."""
    dense = without_data(sparse.values, sparse.dims)
    if sparse.values.data_type == TensorProto.STRING or sparse.values.data_type in PACKED_BITS:
        raise ModelError(
            f"sparse tensor '{name}' holds {type_name(sparse.values.data_type)} elements, which "
            "no runtime reads; store it dense"
        )
    if checked_storage(dense) > LARGEST_DENSE:
        raise _damaged(name, f"claims the shape {'x'.join(map(str, sparse.dims))}")
    size = element_count(dense)
    holder = Model(ModelProto(), payloads)
    if (streamed := _streamed(sparse, holder, name, size)) is not None:
        for part in (sparse.values, sparse.indices):
            payloads.pop(payload_key(part) or "", None)
        return hold(dense, streamed, unused_key(f"{name}:dense", payloads), payloads)
    values = holder.payload(sparse.values).array()
    positions = _positions(sparse, holder, name, size, values.size)
    if positions.size > 1 and not (positions[1:] > positions[:-1]).all():
        order = np.argsort(positions, kind="stable")
        positions, values = positions[order], values[order]
        twice = np.flatnonzero(positions[1:] == positions[:-1])
        if twice.size:
            raise _damaged(name, f"has element {positions[twice[0]]} twice")
    narrow = positions.astype(np.uint32) if size < 2**32 else positions
    for part in (sparse.values, sparse.indices):
        payloads.pop(payload_key(part) or "", None)
    scattered = ScatteredPayload(narrow, values, size)
    if scattered.nbytes < SMALLEST_PAYLOAD:
        return hold(dense, scattered, "", payloads)
    return hold(dense, scattered, unused_key(f"{name}:dense", payloads), payloads)


def _streamed(
    sparse: SparseTensorProto, holder: Model, name: str, size: int
) -> StreamedPayload | None:
    """The dense payload of a large sparse tensor as writers of such files store it; else None."""
    values, kept = holder.payload(sparse.values), tuple(sparse.indices.dims)
    if values.size < STREAMED or kept != (values.size,) or not isinstance(values, MappedPayload):
        return None
    positions, last = holder.payload(sparse.indices), -1
    if positions.dtype != np.int64:
        return None
    for chunk in positions.chunks():
        _checked(chunk, size, name)
        if chunk[0] <= last or not (chunk[1:] > chunk[:-1]).all():
            return None
        last = int(chunk[-1])
    return StreamedPayload(positions, values, size)


def _positions(
    sparse: SparseTensorProto, holder: Model, name: str, size: int, kept: int
) -> np.ndarray:
    """Linear int64 positions of the values, in the order of the file; all below `size`."""
    shape, indices = tuple(sparse.dims), sparse.indices
    if kept == 0 and (not sparse.HasField("indices") or 0 in indices.dims or not indices.dims):
        return np.empty(0, np.int64)
    linear = tuple(indices.dims) == (kept,)
    if not linear and tuple(indices.dims) != (kept, len(shape)):
        found = "x".join(map(str, indices.dims)) or "no"
        raise _damaged(name, f"has {kept:,} values and {found} indices")
    stored = holder.payload(indices).array()
    if stored.dtype.kind not in "iu":
        raise _damaged(name, f"has indices of type {type_name(indices.data_type)}")
    numbers = stored.astype(np.int64)
    if linear:
        return _checked(numbers, size, name)
    positions = np.zeros(kept, np.int64)
    for axis, length in enumerate(shape):
        coordinates = _checked(numbers.reshape(kept, len(shape))[:, axis], length, name)
        positions = positions * length + coordinates
    return positions


def _checked(numbers: np.ndarray, bound: int, name: str) -> np.ndarray:
    """The numbers, if all are in [0, bound); raises ModelError otherwise."""
    outside = np.flatnonzero((numbers < 0) | (numbers >= bound))
    if outside.size:
        raise _damaged(name, f"has the index {numbers[outside[0]]} where only {bound:,} fit")
    return numbers


def _declare_dense(graph: GraphProto, names: frozenset[str]) -> None:
    """Turn declared sparse types of values into the dense types that they now have."""
    for values in (graph.input, graph.output, graph.value_info):
        for value in values:
            if value.name in names and value.type.HasField("sparse_tensor_type"):
                element, shape = value.type.sparse_tensor_type.elem_type, TensorShapeProto()
                shape.CopyFrom(value.type.sparse_tensor_type.shape)
                value.type.tensor_type.elem_type = element
                value.type.tensor_type.shape.CopyFrom(shape)


def _damaged(name: str, what: str) -> ModelError:
    return ModelError(f"sparse tensor '{name}' {what}; the file is damaged, export the model again")
