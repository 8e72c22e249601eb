"""Writing a model: one file, or a file with external data beside it, streamed tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from onnx import ModelProto, TensorProto

from ..errors import OutputError
from .model import Model, payload_key
from .payload import Payload
from .staging import write_blocks
from .tensors import walk_tensors
from .wire import Joined, join

__all__ = [
    "INLINE_LIMIT",
    "Places",
    "data_blocks",
    "data_places",
    "model_file",
    "serialised",
    "to_proto",
    "write_pair",
]

#: The largest message that protobuf parsers take.
INLINE_LIMIT = 2**31 - 1
#: Tensors in a data file start at multiples of a page, so that runtimes can map them.
ALIGNMENT = 4096


#: Offset and length of each tensor in a data file, by payload key, in the order of the file.
Places = Mapping[str, tuple[int, int]]


def data_places(model: Model) -> Places:
    """Where dense tensors go in a data file, in order; sparse forms have no place there."""
    keys = (payload_key(tensor) for _, _, tensor in walk_tensors(model.proto))
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for key in keys:
        if key is not None and key not in places:
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            places[key] = offset, model.payloads[key].nbytes
            end = sum(places[key])
    return places


def data_blocks(model: Model, places: Places) -> Iterator[memoryview]:
    """The bytes of a data file, block by block."""
    end = 0
    for key, (offset, length) in places.items():
        yield memoryview(bytes(offset - end))
        yield from Joined((model.payloads[key],), length).blocks()
        end = offset + length


def model_file(model: Model, *, data: str = "", places: Places | None = None) -> Joined:
    """The bytes of a model file.

    Args:
        model: The model.
        data: Name of its data file, if any.
        places: What is in the data file; those tensors refer to it.

    Raises:
        OutputError: The message would be 2 GB or more.
    """
    proto, inside = model.proto, model.payloads
    if places:
        proto = ModelProto()
        proto.CopyFrom(model.proto)
        for _, _, tensor in walk_tensors(proto):
            key = payload_key(tensor)
            if key is not None and key in places:
                _refer(tensor, data, *places[key])
        inside = {key: value for key, value in inside.items() if key not in places}
    joined = serialised(proto, inside)
    if joined.size > INLINE_LIMIT:
        raise OutputError(
            f"the model would be one message of {joined.size:,} bytes, and protobuf stops at 2 GB; "
            "save it with external data"
        )
    return joined


def write_pair(model: Model, path: Path) -> None:
    """Write a model with its tensors in a data file beside it, which runtimes can map."""
    places, data = data_places(model), path.with_name(f"{path.name}.data")
    write_blocks(data, data_blocks(model, places))
    write_blocks(path, model_file(model, data=data.name, places=places).blocks())


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


def _refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Point a tensor at its bytes in a data file."""
    tensor.ClearField("external_data")
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
