"""Packed varints: how protobuf stores a sorted list of positions in few bytes.

A number takes one byte for every 7 bits; the top bit of a byte says that another byte follows.
https://protobuf.dev/programming-guides/encoding/#varints
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

__all__ = ["encode_sorted", "encoded_size"]

#: Smallest numbers that take 2, 3, ... 9 bytes.
BOUNDS = 1 << (7 * np.arange(1, 9, dtype=np.int64))


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
