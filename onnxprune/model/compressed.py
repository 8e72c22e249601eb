"""How many bytes a model takes once compressed, as a download or an archive would hold it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["CompressedSize", "compressed_size", "file_blocks"]

#: Up to this size the whole stream is compressed; above it, evenly spaced samples are.
EXACT_LIMIT = 16 * 2**20
SAMPLE_BYTES = 2 * 2**20
SAMPLE_BLOCK = 64 * 2**10
GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class CompressedSize:
    """Bytes after gzip at its usual level 6, and whether they were estimated from samples."""

    bytes: int
    estimated: bool


def compressed_size(blocks: Iterable[memoryview], total: int) -> CompressedSize:
    """Size of a byte stream after gzip.

    Args:
        blocks: The stream, block by block.
        total: Its size in bytes; streams over 16 MiB are estimated from 2 MiB of samples.
    """
    if total <= EXACT_LIMIT:
        return CompressedSize(_gzip(blocks), estimated=False)
    sampled, compressed = 0, 0
    for piece in _samples(blocks, stride=total // (SAMPLE_BYTES // SAMPLE_BLOCK)):
        sampled += len(piece)
        compressed += _gzip([piece])
    return CompressedSize(round(compressed / sampled * total), estimated=True)


def _gzip(blocks: Iterable[memoryview]) -> int:
    compressor = zlib.compressobj(6, zlib.DEFLATED, GZIP)
    return sum(len(compressor.compress(block)) for block in blocks) + len(compressor.flush())


def _samples(blocks: Iterable[memoryview], stride: int) -> Iterator[memoryview]:
    """One block of `SAMPLE_BLOCK` bytes at every multiple of `stride`."""
    position, wanted = 0, 0
    for block in blocks:
        while wanted < position + len(block):
            start = wanted - position
            yield block[start : start + SAMPLE_BLOCK]
            wanted += stride
        position += len(block)


def file_blocks(buffers: Iterable[memoryview]) -> Iterator[memoryview]:
    """Buffers cut into blocks of a megabyte."""
    for buffer in buffers:
        for start in range(0, len(buffer), 2**20):
            yield buffer[start : start + 2**20]
