"""Dense payloads that are zero but for some elements, whose positions and values are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .payload import CHUNK, MappedPayload, Payload

__all__ = ["ScatteredPayload", "StreamedPayload"]


@dataclass(frozen=True, eq=False)
class ScatteredPayload:
    """A dense payload that is zero but for some elements.

    Attributes:
        positions: Ascending, each once, all below `size`.
        values: As many.
        size: Number of elements, the zeros included.
    """

    positions: np.ndarray
    values: np.ndarray
    size: int

    @property
    def dtype(self) -> np.dtype:
        """Storage type."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return self.size * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """All elements, made anew on every call."""
        whole = np.zeros(self.size, self.dtype)
        whole[self.positions] = self.values
        return whole

    def chunks(self) -> Iterator[np.ndarray]:
        """The elements in order, in slices of at most `CHUNK`."""
        starts = np.arange(0, self.size, CHUNK, dtype=np.int64)
        edges = np.searchsorted(self.positions, starts.astype(self.positions.dtype)).tolist()
        for start, (first, last) in zip(
            starts.tolist(), pairwise([*edges, self.positions.size]), strict=True
        ):
            chunk = np.zeros(min(CHUNK, self.size - start), self.dtype)
            chunk[self.positions[first:last] - start] = self.values[first:last]
            yield chunk


@dataclass(frozen=True, eq=False)
class StreamedPayload:
    """A `ScatteredPayload` whose positions are read anew on every pass: they may be gigabytes.

    Attributes:
        positions: Ascending int64, each once, all below `size`.
        values: As many.
        size: Number of elements, the zeros included.
    """

    positions: Payload
    values: MappedPayload
    size: int

    @property
    def dtype(self) -> np.dtype:
        """Storage type."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return self.size * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """All elements, made anew on every call."""
        whole = np.zeros(self.size, self.dtype)
        for positions, values in self._kept():
            whole[positions] = values
        return whole

    def _kept(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Positions and values side by side, part by part."""
        values, first = self.values.array(), 0
        for positions in self.positions.chunks():
            last = first + positions.size
            yield positions, values[first:last]
            self.values.release(first, last)
            first = last

    def chunks(self) -> Iterator[np.ndarray]:
        """The elements in order, in slices of at most `CHUNK`."""
        start, chunk = 0, np.zeros(min(CHUNK, self.size), self.dtype)
        for positions, values in self._kept():
            done = 0
            while done < positions.size:
                inside = int(np.searchsorted(positions[done:], start + chunk.size)) + done
                chunk[positions[done:inside] - start] = values[done:inside]
                done = inside
                if done < positions.size:
                    yield chunk
                    start += chunk.size
                    chunk = np.zeros(min(CHUNK, self.size - start), self.dtype)
        while chunk.size:
            yield chunk
            start += chunk.size
            chunk = np.zeros(min(CHUNK, self.size - start), self.dtype)
