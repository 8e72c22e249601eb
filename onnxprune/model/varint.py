"""Packed varints: how protobuf stores a sorted list of positions in few bytes.

A number takes one byte for every 7 bits; the top bit of a byte says that another byte follows.
https://protobuf.dev/programming-guides/encoding/#varints
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..errors import ModelError
from .payload import CHUNK, release

__all__ = ["VarintPayload", "decode", "encode_sorted", "encoded_size"]

#: Smallest numbers that take 2, 3, ... 9 bytes.
BOUNDS = 1 << (7 * np.arange(1, 9, dtype=np.int64))
#: Bytes of the longest varint of 64 bits.
LONGEST = 10


def encoded_size(values: np.ndarray) -> int:
    """Bytes of sorted non-negative int64 values as packed varints."""
    shorter = np.searchsorted(values, BOUNDS)
    return int(values.size + (values.size - shorter).sum())


def encode_sorted(values: np.ndarray) -> np.ndarray:
    """Packed varints of sorted non-negative int64 values, as a flat uint8 array.

    Sorted values come in runs of equal encoded length, and a run is a matrix of bytes.
    """
    edges = [0, *np.searchsorted(values, BOUNDS).tolist(), values.size]
    runs = [
        _encode_run(values[start:stop], length)
        for length, (start, stop) in enumerate(pairwise(edges), start=1)
        if stop > start
    ]
    return np.concatenate(runs) if runs else np.empty(0, np.uint8)


def _encode_run(values: np.ndarray, length: int) -> np.ndarray:
    """Varints of values that all take `length` bytes."""
    encoded = np.empty((values.size, length), np.uint8)
    for byte in range(length):
        septet = (values >> (7 * byte)).astype(np.uint8)
        encoded[:, byte] = septet & 0x7F if byte == length - 1 else septet | 0x80
    return encoded.reshape(-1)


def decode(encoded: np.ndarray) -> np.ndarray:
    """The int64 values of whole packed varints, a flat uint8 array.

    Raises:
        ModelError: A number is longer than 64 bits.
    """
    ends = np.flatnonzero(encoded < 0x80)
    lengths = np.diff(ends, prepend=-1)
    longest = int(lengths.max(initial=0))
    if longest > LONGEST:
        raise ModelError("a number in the file does not end; it is damaged, export the model again")
    starts = ends - lengths + 1
    values = np.zeros(ends.size, np.uint64)
    for byte in range(longest):
        has = slice(None) if byte < lengths.min() else lengths > byte
        septet = (encoded[starts[has] + byte] & 0x7F).astype(np.uint64)
        values[has] |= septet << np.uint64(7 * byte)
    return values.view(np.int64)


@dataclass(frozen=True, eq=False)
class VarintPayload:
    """Int64 elements that lie in a buffer as packed varints; decoded block by block."""

    buffer: memoryview
    offset: int
    length: int
    size: int

    @classmethod
    def of(cls, buffer: memoryview, offset: int, length: int) -> VarintPayload:
        """The payload over so many bytes of a buffer; raises ModelError where the last is cut."""
        encoded = np.frombuffer(buffer, np.uint8, length, offset)
        if length and encoded[-1] >= 0x80:
            raise ModelError(
                "the last of packed numbers is cut short; the file is damaged, export it again"
            )
        size = 0
        for start in range(0, length, CHUNK):
            size += int(np.count_nonzero(encoded[start : start + CHUNK] < 0x80))
            release(buffer, offset + start, offset + min(start + CHUNK, length))
        return cls(buffer, offset, length, size)

    @property
    def dtype(self) -> np.dtype:
        """Type of the decoded elements."""
        return np.dtype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded elements."""
        return 8 * self.size

    def array(self) -> np.ndarray:
        """All elements, decoded anew on every call."""
        whole, filled = np.empty(self.size, np.int64), 0
        for chunk in self.chunks():
            whole[filled : filled + chunk.size] = chunk
            filled += chunk.size
        return whole

    def chunks(self) -> Iterator[np.ndarray]:
        """The elements in order, at most `CHUNK` at a time: one needs a byte at least."""
        encoded = np.frombuffer(self.buffer, np.uint8, self.length, self.offset)
        start = 0
        while start < self.length:
            block = encoded[start : start + CHUNK]
            ends = np.flatnonzero(block[-LONGEST:] < 0x80)
            if not ends.size:
                raise ModelError(
                    "a number in the file does not end; it is damaged, export the model again"
                )
            stop = start + max(block.size - LONGEST, 0) + int(ends[-1]) + 1
            yield decode(encoded[start:stop])
            release(self.buffer, self.offset + start, self.offset + stop)
            start = stop
