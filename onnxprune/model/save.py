"""Writing a model: one file, or a file with external data beside it, streamed tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, TensorProto

from ..errors import OutputError
from .model import Model, payload_key
from .payload import Payload
from .tensors import walk_tensors
from .wire import Joined, join

__all__ = ["INLINE_LIMIT", "Places", "serialised", "to_proto", "write_data", "write_model"]

#: The largest message that protobuf parsers take.
INLINE_LIMIT = 2**31 - 1
#: Tensors in a data file start at multiples of a page, so that runtimes can map them.
ALIGNMENT = 4096


#: Offset and length of each tensor in a data file, by payload key.
Places = Mapping[str, tuple[int, int]]


def write_data(model: Model, path: Path) -> Places:
    """Write the dense tensors of a model to a data file; sparse forms have no place there."""
    keys = _dense_keys(model)
    with path.open("wb") as file:
        return {key: _append(file, model.payloads[key]) for key in model.payloads if key in keys}


def write_model(model: Model, path: Path, *, data: str = "", places: Places | None = None) -> int:
    """Write a model file; its size in bytes.

    Args:
        model: The model.
        path: The file.
        data: Name of the data file that `write_data` wrote, if any.
        places: What `write_data` gave back; tensors in it refer to the data file.

    Raises:
        OutputError: The message would be 2 GB or more.
    """
    proto, inside = model.proto, model.payloads
    if places:
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        for _, _, tensor in walk_tensors(proto):
            key = payload_key(tensor)
            if key in places:
                _refer(tensor, data, *places[key])
        inside = {key: value for key, value in inside.items() if key not in places}
    joined = serialised(proto, inside)
    if joined.size > INLINE_LIMIT:
        raise OutputError(
            f"the model would be one message of {joined.size:,} bytes, and protobuf stops at 2 GB; "
            "save it with external data"
        )
    with path.open("wb") as file:
        for block in joined.blocks():
            file.write(block)
    return joined.size


def serialised(proto: ModelProto, payloads: Mapping[str, Payload]) -> Joined:
    """The bytes of a model, the same on every run."""
    return join(proto.SerializeToString(deterministic=True), payloads)


def to_proto(model: Model) -> ModelProto:
    """The whole model as one message in memory; raises OutputError at 2 GB and more."""
    joined = serialised(model.proto, model.payloads)
    if joined.size > INLINE_LIMIT:
        raise OutputError("the model is over 2 GB, too large for one ModelProto; save it to a file")
    proto = ModelProto()
    proto.ParseFromString(b"".join(joined.blocks()))
    return proto


def _dense_keys(model: Model) -> set[str]:
    """Keys of tensors that may live outside the model file."""
    keys = (payload_key(tensor) for _, _, tensor in walk_tensors(model.proto))
    return {key for key in keys if key is not None}


def _append(file: BinaryIO, payload: Payload) -> tuple[int, int]:
    """Write a payload at the next aligned position; its offset and length."""
    offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
    file.seek(offset)
    for block in Joined((payload,), payload.nbytes).blocks():
        file.write(block)
    return offset, payload.nbytes


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Point a tensor at its bytes in a data file."""
    tensor.ClearField("external_data")
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
