"""A second, plain writer: what the streaming one writes must parse to the same message."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from onnxprune.model.model import Model, payload_key


def materialise(model: Model) -> ModelProto:
    """The model as one message that holds all its bytes."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in list(_tensors(proto)):
        key = payload_key(tensor)
        if key is None:
            continue
        payload = model.payloads[key]
        chunks = list(payload.chunks())
        raw = b"".join(chunk.tobytes() for chunk in chunks)
        assert len(raw) == payload.nbytes
        assert raw == payload.array().tobytes()
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        if getattr(payload, "wire_field", 9) == 7:
            tensor.MergeFromString(b"\x3a" + _varint(len(raw)) + raw)
        else:
            tensor.raw_data = raw
    return proto


def _tensors(message: Message) -> Iterator[TensorProto]:
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for child in [value] if isinstance(value, Message) else value:
            if isinstance(child, TensorProto):
                yield child
            else:
                yield from _tensors(child)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
