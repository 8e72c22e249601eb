"""A model in memory: the ModelProto without the bytes of its big tensors, and where those are.

Everything that is not a big tensor stays in the protobuf message exactly as it was read, unknown
fields included, so what onnxprune does not touch cannot change. Big tensors are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from ..errors import ModelError
from .dtypes import PACKED_BITS, logical_dtype, storage_bytes, storage_dtype, type_name, unpack
from .payload import ArrayPayload, Payload
from .tensors import TensorAddress, walk_tensors

__all__ = [
    "PAYLOAD_PREFIX",
    "Model",
    "Origin",
    "changed_tensors",
    "check_tensor",
    "element_count",
    "payload_key",
    "set_payload_key",
]

#: Dimensions that every version of numpy takes.
MOST_DIMENSIONS = 32
#: Elements that an empty array may span with its other dimensions.
LARGEST_SPAN = 2**59
#: External-data location of a tensor whose bytes are in `Model.payloads`.
PAYLOAD_PREFIX = "onnxprune-payload:"


@dataclass(frozen=True)
class Origin:
    """Where a model came from: its path (None when it was handed over in memory) and sizes."""

    path: Path | None = None
    file_bytes: int | None = None
    data_files: tuple[Path, ...] = ()
    sparse: frozenset[TensorAddress] = frozenset()

    @property
    def external(self) -> bool:
        """Whether the model came with external data files."""
        return bool(self.data_files)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the model came from."""
        return (*((self.path,) if self.path is not None else ()), *self.data_files)


@dataclass(frozen=True)
class Model:
    """A skeleton ModelProto (read-only by agreement) and the payloads of its big tensors."""

    proto: ModelProto
    payloads: Mapping[str, Payload] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)

    @cached_property
    def tensors(self) -> Mapping[TensorAddress, TensorProto]:
        """Every initializer and Constant value by address; the first of equal addresses wins."""
        found: dict[TensorAddress, TensorProto] = {}
        for address, _, tensor in walk_tensors(self.proto):
            found.setdefault(address, tensor)
        return found

    def payload(self, tensor: TensorProto) -> Payload:
        """The bytes of a tensor of this model, whether keyed or inline in the message."""
        key = payload_key(tensor)
        if key is not None:
            return self.payloads[key]
        return _inline_payload(tensor)

    def array(self, tensor: TensorProto) -> np.ndarray:
        """The values of a tensor in its shape, 4-bit types unpacked; treat as read-only."""
        flat = unpack(self.payload(tensor).array(), tensor.data_type, element_count(tensor))
        return flat.reshape(tuple(tensor.dims))

    def with_payloads(self, replaced: Mapping[TensorAddress, Payload]) -> Model:
        """The same graph with other bytes for some tensors; this model stays as it is."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        payloads = dict(self.payloads)
        changed = Model(proto, payloads, self.origin)
        for number, (address, payload) in enumerate(replaced.items()):
            tensor = changed.tensors[address]
            key = payload_key(tensor) or f"new{len(payloads)}.{number}"
            set_payload_key(tensor, key)
            payloads[key] = payload
        return changed


def changed_tensors(before: Model, after: Model) -> tuple[TensorAddress, ...]:
    """Tensors of both models that were given other bytes on the way from one to the other.

    Payloads are told apart by identity: nothing is read.
    """

    def same(old: TensorProto, new: TensorProto) -> bool:
        was, now = payload_key(old), payload_key(new)
        if was is None or now is None:
            return was == now and old == new
        return before.payloads[was] is after.payloads[now]

    return tuple(
        address
        for address, tensor in after.tensors.items()
        if address in before.tensors and not same(before.tensors[address], tensor)
    )


def element_count(tensor: TensorProto) -> int:
    """Number of logical elements; raises ModelError for dimensions that no array has."""
    count, spanned = 1, 1
    for size in tensor.dims:
        if size < 0:
            raise ModelError(
                f"tensor '{tensor.name}' has the negative dimension {size}; the file is damaged, "
                "export the model again"
            )
        count *= size
        spanned *= max(size, 1)
    if len(tensor.dims) > MOST_DIMENSIONS or (count == 0 and spanned > LARGEST_SPAN):
        shape = "x".join(map(str, tensor.dims[:8])) + "..." * (len(tensor.dims) > 8)
        raise ModelError(
            f"tensor '{tensor.name}' has {len(tensor.dims)} dimensions ({shape})"
            ", more than an array can have; export the model again"
        )
    return count


def payload_key(tensor: TensorProto) -> str | None:
    """Key into `Model.payloads`, or None for a tensor that holds its own bytes."""
    if tensor.data_location != TensorProto.EXTERNAL or not tensor.external_data:
        return None
    location = tensor.external_data[0].value
    return location[len(PAYLOAD_PREFIX) :] if location.startswith(PAYLOAD_PREFIX) else None


_DATA_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "external_data",
)


def set_payload_key(tensor: TensorProto, key: str) -> None:
    """Turn a tensor into a reference to the payload `key`, dropping the bytes it held."""
    for name in _DATA_FIELDS:
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", PAYLOAD_PREFIX + key


def _inline_payload(tensor: TensorProto) -> Payload:
    """Decode a tensor that holds its own bytes."""
    expected = checked_storage(tensor)
    if tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        raw = tensor.raw_data
        if len(raw) != expected:
            raise size_error(tensor, len(raw), expected)
        flat = np.frombuffer(raw, storage_dtype(tensor.data_type).newbyteorder("<"))
        return ArrayPayload(flat)
    if tensor.data_type in PACKED_BITS:
        packed = np.array(tensor.int32_data, np.int32).astype(np.uint8)
        if packed.size != expected:
            raise size_error(tensor, packed.size, expected)
        return ArrayPayload(packed)
    try:
        values = numpy_helper.to_array(tensor)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"tensor '{tensor.name}' cannot be decoded ({error}); export the model again"
        ) from error
    return ArrayPayload.of(values)


def check_tensor(tensor: TensorProto) -> None:
    """Refuse a constant whose type, shape and elements do not belong together.

    Raises:
        ModelError: What is wrong with it.
    """
    if tensor.HasField("segment"):
        raise ModelError(
            f"tensor '{tensor.name}' is stored in segments, which nothing reads; export the model "
            "again"
        )
    if payload_key(tensor) is not None:
        checked_storage(tensor)
    elif tensor.HasField("raw_data") and tensor.data_type != TensorProto.STRING:
        expected = checked_storage(tensor)
        if len(tensor.raw_data) != expected:
            raise size_error(tensor, len(tensor.raw_data), expected)
    else:
        _inline_payload(tensor)


def checked_storage(tensor: TensorProto) -> int:
    """Bytes a tensor must occupy; raises ModelError for an unknown type or an absurd shape."""
    try:
        expected = storage_bytes(tensor.data_type, element_count(tensor))
        logical_dtype(tensor.data_type)
    except KeyError:
        raise ModelError(
            f"tensor '{tensor.name}' has the unknown element type "
            f"{type_name(tensor.data_type)}; the file is damaged or newer than this onnx package"
        ) from None
    return expected


def size_error(tensor: TensorProto, found: int, expected: int) -> ModelError:
    """The error for a tensor whose bytes do not fill its shape."""
    shape = "x".join(map(str, tensor.dims)) or "scalar"
    return ModelError(
        f"tensor '{tensor.name}' ({shape} {type_name(tensor.data_type)}) holds {found:,} bytes "
        f"where its shape needs {expected:,}; the file is damaged, export the model again"
    )
