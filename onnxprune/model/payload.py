"""The bytes of one tensor, flat and lazy: read in slices, so that memory stays near one slice."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

__all__ = ["CHUNK", "ArrayPayload", "MappedPayload", "Payload", "release", "sliced"]

#: Storage elements per slice: 1 MiB of float32 stays inside a core's second-level cache.
CHUNK = 262_144
#: Bytes of the smallest file whose pages are given back once they have been read: they stay in the
#: system's cache, but no longer count as memory of this process.
RELEASED = 2**30
#: Bytes that are read between two times that pages are given back.
STRIDE = 32 * 2**20


@runtime_checkable
class Payload(Protocol):
    """The storage elements of one tensor in row-major order."""

    @property
    def dtype(self) -> np.dtype:
        """Storage type: the element's numpy type, or uint8 for packed 4- and 2-bit tensors."""
        ...

    @property
    def size(self) -> int:
        """Number of storage elements."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        ...

    def array(self) -> np.ndarray:
        """All storage elements, flat; a memory-mapped view where there is one."""
        ...

    def chunks(self) -> Iterator[np.ndarray]:
        """The same elements in order, in flat slices of at most `CHUNK` elements."""
        ...


def sliced(flat: np.ndarray) -> Iterator[np.ndarray]:
    """Views of at most `CHUNK` elements of a flat array, in order."""
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK]


@dataclass(frozen=True, eq=False)
class ArrayPayload:
    """A payload over an array that exists already, in memory or memory-mapped."""

    flat: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> ArrayPayload:
        """Payload of any array, flattened in row-major order (a view where it is contiguous)."""
        return cls(np.ascontiguousarray(array).reshape(-1))

    @property
    def dtype(self) -> np.dtype:
        """Storage type."""
        return self.flat.dtype

    @property
    def size(self) -> int:
        """Number of storage elements."""
        return int(self.flat.size)

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return int(self.flat.nbytes)

    def array(self) -> np.ndarray:
        """The array itself, flat."""
        return self.flat

    def chunks(self) -> Iterator[np.ndarray]:
        """Views of at most `CHUNK` elements each, in order."""
        return sliced(self.flat)


@dataclass(frozen=True, eq=False)
class MappedPayload:
    """A payload inside a buffer, usually a memory map, at any byte offset."""

    buffer: memoryview
    offset: int
    dtype: np.dtype
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return self.size * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """A view of the buffer; not aligned where the offset is not."""
        return np.frombuffer(self.buffer, self.dtype, self.size, self.offset)

    def release(self, first: int, last: int) -> None:
        """Say that elements [first, last) are not wanted for now."""
        size = self.dtype.itemsize
        release(self.buffer, self.offset + first * size, self.offset + last * size)

    def chunks(self) -> Iterator[np.ndarray]:
        """Slices in order: views, or copies where the offset is not aligned (faster to use)."""
        start = at = self.offset
        for chunk in sliced(self.array()):
            yield chunk if chunk.flags.aligned else _aligned(chunk)
            at += chunk.nbytes
            if at - start >= STRIDE:
                release(self.buffer, start, at)
                start = at
        release(self.buffer, start, at)


def release(buffer: memoryview, start: int, end: int) -> None:
    """Give back the pages of a large mapped file that lie within [start, end); they can be read
    again at any time.
    """
    file = buffer.obj
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if not isinstance(file, mmap.mmap) or advice is None or len(buffer) < RELEASED:
        return
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        file.madvise(advice, first, length)


def _aligned(chunk: np.ndarray) -> np.ndarray:
    """The same elements at an aligned address, copied as bytes."""
    copy = np.empty(chunk.size, chunk.dtype)
    copy.view(np.uint8)[:] = chunk.view(np.uint8)
    return copy
