"""Which elements of a tensor are not zero: counted in one pass, read out chunk by chunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .payload import CHUNK, Payload
from .varint import encoded_size

__all__ = ["LONGEST_GAP", "KeptPart", "Occupancy", "kept_elements", "scan"]

#: Longest distance between two entries of the gap code (a uint8).
LONGEST_GAP = 255


@dataclass(frozen=True)
class Occupancy:
    """What one pass over a payload finds out, enough for the exact size of every sparse form.

    Attributes:
        size: Elements.
        kept: Elements that are not zero bit for bit (-0.0 is kept).
        varint_bytes: Bytes of the kept positions as packed varints.
        fillers: Zeros that the gap code adds because two kept elements are too far apart.
    """

    size: int
    kept: int
    varint_bytes: int
    fillers: int


def scan(payload: Payload) -> Occupancy:
    """Count what is kept in one pass."""
    kept = varint_bytes = fillers = last = 0
    for positions, _ in kept_elements(payload):
        if positions.size == 0:
            continue
        kept += positions.size
        varint_bytes += encoded_size(positions)
        longer = np.diff(positions, prepend=last)
        longer = longer[longer > LONGEST_GAP]
        fillers += int(((longer - 1) // LONGEST_GAP).sum())
        last = int(positions[-1])
    return Occupancy(payload.size, kept, varint_bytes, fillers)


def kept_elements(payload: Payload) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (int64, ascending) and values of the non-zero elements, chunk by chunk."""
    start = 0
    for chunk in payload.chunks():
        kept = np.flatnonzero(chunk.view(f"u{chunk.dtype.itemsize}") != 0)
        yield kept + start, chunk[kept]
        start += chunk.size


@dataclass(frozen=True, eq=False)
class KeptPart(ABC):
    """Base of payloads made from the kept elements of another one: streamed, never held whole.

    Attributes:
        source: The dense payload.
        occupancy: What `scan` says of it.
    """

    source: Payload
    occupancy: Occupancy

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Storage type."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of storage elements, known before any of them is made."""

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return self.size * self.dtype.itemsize

    @abstractmethod
    def pieces(self) -> Iterator[np.ndarray]:
        """Flat arrays of any length that make up the payload, in order."""

    def chunks(self) -> Iterator[np.ndarray]:
        """The storage elements in order, in flat slices of at most `CHUNK` elements."""
        for piece in self.pieces():
            for start in range(0, piece.size, CHUNK):
                yield piece[start : start + CHUNK]

    def array(self) -> np.ndarray:
        """All storage elements, made anew on every call."""
        whole = np.empty(self.size, self.dtype)
        filled = 0
        for piece in self.pieces():
            whole[filled : filled + piece.size] = piece
            filled += piece.size
        return whole
