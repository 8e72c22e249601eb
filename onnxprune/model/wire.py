"""The protobuf wire form of a model, with the bytes of big tensors taken out and put back.

A ModelProto that holds its weights is parsed and serialised by copying every byte several times.
`split` walks the length-prefixed fields of a model file, takes the bytes of big tensors out, and
leaves a small message that refers to them; `join` is its inverse and streams them back in.
Wire format: https://protobuf.dev/programming-guides/encoding/ ; field numbers: onnx.proto.
"""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ..errors import ModelError
from .model import PAYLOAD_PREFIX, payload_key
from .payload import Payload

__all__ = ["SMALLEST_PAYLOAD", "Joined", "Slice", "join", "split"]

#: Tensors of fewer bytes stay inside the message.
SMALLEST_PAYLOAD = 1024
#: The protobuf parsers' own limit on nested messages.
MAX_DEPTH = 100

RAW_DATA = 9
#: Fields of TensorProto that hold little-endian elements back to back, as raw_data does, and the
#: element type for which they do.
PACKED_FIELDS = {4: TensorProto.FLOAT, 10: TensorProto.DOUBLE}
#: Field of TensorProto that holds int64 elements as varints; taken out of indices alone.
INT64_DATA = 7
DATA_TYPE, EXTERNAL_DATA, DATA_LOCATION = 2, 13, 14

#: Which fields of each message lead to tensors, and to what message.
CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor",
                  23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Indices"},
}  # fmt: skip

#: Fields whose bytes are taken out of each kind of tensor, and the element type they must have.
PACKED = {"Tensor": PACKED_FIELDS, "Indices": {**PACKED_FIELDS, INT64_DATA: TensorProto.INT64}}
TENSORS = frozenset(PACKED)


@dataclass(frozen=True)
class Slice:
    """Where the bytes of a tensor lie in the model file; `varints`: as packed varints."""

    offset: int
    length: int
    data_type: int
    varints: bool = False


@dataclass(frozen=True)
class Joined:
    """A serialised model as parts to write in order, and its whole size in bytes."""

    parts: tuple[bytes | Payload, ...]
    size: int

    def blocks(self) -> Iterator[memoryview]:
        """The bytes of the model in order, block by block."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield memoryview(part)
            else:
                for chunk in part.chunks():
                    yield chunk.view(np.uint8).data


class _Malformed(Exception):
    """The bytes are not a protobuf message."""


def split(view: memoryview, smallest: int = SMALLEST_PAYLOAD) -> tuple[bytes, dict[str, Slice]]:
    """Serialised ModelProto without the bytes of big tensors, and where those bytes are.

    Args:
        view: The whole model file, e.g. a memory map.
        smallest: Tensors of fewer bytes stay inside the message.

    Raises:
        ModelError: The bytes are not a protobuf message, or it ends too early.
    """
    splitter = _Splitter(view, smallest)
    try:
        parts = splitter.message(0, len(view), "Model", 0)
    except _Malformed as error:
        raise ModelError(
            f"the file is not an ONNX model or is cut short ({error}); export or copy it again"
        ) from None
    return b"".join(parts), splitter.slices


def join(skeleton: bytes, payloads: Mapping[str, Payload]) -> Joined:
    """Serialised ModelProto with payload references replaced by the payloads' bytes.

    References whose key is not in `payloads` stay as they are. A payload whose attribute
    ``wire_field`` is 7 holds packed varints of ``int64_data``; all others are ``raw_data``.
    """
    joiner = _Joiner(memoryview(skeleton), payloads)
    parts, size = joiner.message(0, len(skeleton), "Model")
    return Joined(tuple(parts), size)


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    """Value of the varint at `at`, and the position after it."""
    result = shift = 0
    while at < end and shift < 64:
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise _Malformed(f"a number at byte {at:,} does not end")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _length_prefix(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _encode_varint(number << 3 | 2) + _encode_varint(length)


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Fields of the message in [start, end): number, wire type, start, body start, end."""
    at = start
    while at < end:
        begin = at
        tag, at = _varint(view, at, end)
        number, kind = tag >> 3, tag & 7
        body = at
        if kind == 2:
            length, body = _varint(view, at, end)
            at = body + length
        elif kind == 0:
            _, at = _varint(view, at, end)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise _Malformed(f"unknown field kind {kind} at byte {begin:,}")
        if number == 0 or at > end:
            raise _Malformed(f"a field at byte {begin:,} runs past the end")
        yield number, kind, begin, body, at


class _Splitter:
    """Rewrites messages bottom-up, recording the slices that it takes out."""

    def __init__(self, view: memoryview, smallest: int) -> None:
        self.view, self.smallest = view, smallest
        self.slices: dict[str, Slice] = {}
        # A file that was made to refer to another tensor's payload cannot know this.
        self.token = secrets.token_hex(8)

    def message(self, start: int, end: int, kind: str, depth: int) -> list[bytes]:
        """Parts of the rewritten message body."""
        children, parts, copied = CHILDREN[kind], [], start
        for number, wire, begin, body, stop in _fields(self.view, start, end):
            child = children.get(number)
            if child is None or wire != 2 or stop - body < self.smallest or depth > MAX_DEPTH:
                continue
            if child in TENSORS:
                new = self.tensor(body, stop, PACKED[child])
            else:
                new = b"".join(self.message(body, stop, child, depth + 1))
            parts.append(bytes(self.view[copied:begin]))
            parts.append(_length_prefix(number, len(new)))
            parts.append(new)
            copied = stop
        parts.append(bytes(self.view[copied:end]))
        return parts

    def tensor(self, start: int, end: int, packed: Mapping[int, int]) -> bytes:
        """The tensor message with a payload reference for its bytes, where that is possible."""
        data_type, found, kept = 0, [], []
        for number, wire, begin, body, stop in _fields(self.view, start, end):
            if number == DATA_TYPE and wire == 0:
                data_type, _ = _varint(self.view, body, stop)
            if wire == 2 and (number == RAW_DATA or number in packed):
                found.append((number, body, stop))
            elif number in (EXTERNAL_DATA, DATA_LOCATION):
                return bytes(self.view[start:end])
            else:
                kept.append(bytes(self.view[begin:stop]))
        if len(found) != 1 or found[0][2] - found[0][1] < self.smallest:
            return bytes(self.view[start:end])
        number, body, stop = found[0]
        if number != RAW_DATA and packed[number] != data_type:
            return bytes(self.view[start:end])
        key = f"{self.token}.{len(self.slices)}"
        self.slices[key] = Slice(body, stop - body, data_type, number == INT64_DATA)
        return b"".join(kept) + _reference(key)


def _reference(key: str) -> bytes:
    """The two fields of a TensorProto that refer to a payload."""
    reference = TensorProto(data_location=TensorProto.EXTERNAL)
    entry = reference.external_data.add()
    entry.key, entry.value = "location", PAYLOAD_PREFIX + key
    return bytes(reference.SerializeToString())


class _Joiner:
    """Rewrites only the messages that hold a payload reference; all else is copied as it is."""

    def __init__(self, view: memoryview, payloads: Mapping[str, Payload]) -> None:
        self.view, self.payloads = view, payloads
        self.marks = _positions(bytes(view), PAYLOAD_PREFIX.encode())

    def message(self, start: int, end: int, kind: str) -> tuple[list[bytes | Payload], int]:
        """Parts and length of the rewritten message body."""
        children = CHILDREN[kind]
        parts: list[bytes | Payload] = []
        size, copied = 0, start
        for number, wire, begin, body, stop in _fields(self.view, start, end):
            child = children.get(number)
            if child is None or wire != 2 or not self.marked(body, stop):
                continue
            new, length = (
                self.tensor(body, stop) if child in TENSORS else self.message(body, stop, child)
            )
            head = bytes(self.view[copied:begin]) + _length_prefix(number, length)
            parts += [head, *new]
            size += len(head) + length
            copied = stop
        parts.append(bytes(self.view[copied:end]))
        return parts, size + end - copied

    def marked(self, start: int, end: int) -> bool:
        """Whether a payload reference may lie in [start, end)."""
        index = bisect_left(self.marks, start)
        return index < len(self.marks) and self.marks[index] < end

    def tensor(self, start: int, end: int) -> tuple[list[bytes | Payload], int]:
        """Parts and length of a tensor message with its bytes."""
        tensor = TensorProto.FromString(bytes(self.view[start:end]))
        key = payload_key(tensor)
        if key is None or key not in self.payloads:
            return [bytes(self.view[start:end])], end - start
        payload = self.payloads[key]
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        head = tensor.SerializeToString()
        head += _length_prefix(getattr(payload, "wire_field", RAW_DATA), payload.nbytes)
        return [head, payload], len(head) + payload.nbytes


def _positions(data: bytes, pattern: bytes) -> list[int]:
    """Every place where `pattern` starts in `data`, ascending."""
    found, at = [], data.find(pattern)
    while at >= 0:
        found.append(at)
        at = data.find(pattern, at + 1)
    return found
