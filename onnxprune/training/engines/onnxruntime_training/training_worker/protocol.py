"""Messages between the engine and its worker: a JSON header and the bytes of arrays.

A message on the wire is the length of the header (8 bytes, little-endian), the header (UTF-8
JSON), then the arrays' elements one after another, C order, little-endian. Nothing in a message
is code. Both interpreters import this file, so it needs numpy only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

__all__ = ["MODEL", "Closed", "Message", "read", "write"]

#: Name of the array with a model's bytes, which no weight has.
MODEL = ""

_LENGTH = struct.Struct("<Q")
#: Longest header that is believed; what follows a longer one is no message of ours.
_LONGEST_HEADER = 1 << 26
#: Kinds of element types (numpy's letters) that a message can carry: plain numbers.
_KINDS = frozenset("biufc")


class Closed(Exception):
    """The other side has gone."""


@dataclass(frozen=True)
class Message:
    """One request or answer.

    Attributes:
        kind: What is asked for or answered.
        fields: Values that JSON can hold.
        arrays: Arrays by name.
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def write(stream: IO[bytes], message: Message) -> None:
    """Send a message.

    Raises:
        ValueError: An array's elements are not plain numbers.
        Closed: The other side has gone.
    """
    arrays = {name: _plain(name, array) for name, array in message.arrays.items()}
    header = json.dumps(
        {
            "kind": message.kind,
            "fields": dict(message.fields),
            "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()],
        }
    ).encode()
    try:
        stream.write(_LENGTH.pack(len(header)) + header)
        for array in arrays.values():
            stream.write(array.reshape(-1).view(np.uint8).data)
        stream.flush()
    except (BrokenPipeError, ConnectionResetError) as error:
        raise Closed from error


def read(stream: IO[bytes]) -> Message:
    """Receive a message.

    Raises:
        Closed: The stream ended.
        ValueError: What came is no message.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, bytearray(_LENGTH.size)))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(bytes(_exactly(stream, bytearray(length))))
    arrays = {}
    for name, code, shape in header["arrays"]:
        dtype = np.dtype(code)
        if dtype.kind not in _KINDS:
            raise ValueError(f"an array of element type {code!r}")
        array = np.empty(shape, dtype)
        _exactly(stream, array.reshape(-1).view(np.uint8).data)
        arrays[name] = array
    return Message(header["kind"], header["fields"], arrays)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """The array contiguous and little-endian; unlike `np.ascontiguousarray`, 0-d stays 0-d."""
    if array.dtype.kind not in _KINDS:
        raise ValueError(f"'{name}' has elements of type {array.dtype}, which are no plain numbers")
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _exactly(stream: IO[bytes], buffer: bytearray | memoryview) -> bytearray | memoryview:
    """Fill a buffer from the stream."""
    view = memoryview(buffer)
    while len(view):
        count = stream.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise Closed
        view = view[count:]
    return buffer
