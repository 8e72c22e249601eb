"""Mutations of the bytes of a file, whatever they mean."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

__all__ = ["BYTES"]

Change = Callable[[Random, bytearray], None]
MARKERS = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\x1b[2J", b"\n")


def flip(random: Random, data: bytearray) -> None:
    """A few bits turned over."""
    for _ in range(random.choice((1, 1, 2, 8))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def overwrite(random: Random, data: bytearray) -> None:
    """A few bytes replaced by any."""
    start = random.randrange(len(data))
    for at in range(start, min(len(data), start + random.choice((1, 2, 4, 16)))):
        data[at] = random.randrange(256)


def insert(random: Random, data: bytearray) -> None:
    """Markers such as endless varints put in between."""
    at = random.randrange(len(data))
    data[at:at] = random.choice(MARKERS)


def delete(random: Random, data: bytearray) -> None:
    """A piece left out."""
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 1, 4, 64))]


def truncate(random: Random, data: bytearray) -> None:
    """The end cut off."""
    del data[random.randrange(len(data)) :]


def duplicate(random: Random, data: bytearray) -> None:
    """A piece twice."""
    start = random.randrange(len(data))
    data[start:start] = data[start : start + random.choice((4, 32, 256))]


def move(random: Random, data: bytearray) -> None:
    """A piece somewhere else."""
    start, length = random.randrange(len(data)), random.choice((2, 16, 128))
    piece = data[start : start + length]
    del data[start : start + length]
    at = random.randrange(len(data) + 1)
    data[at:at] = piece


def append(random: Random, data: bytearray) -> None:
    """Something behind the end."""
    data += random.choice((b"\0", b"\n", bytes(data[:64]), random.randbytes(32)))


BYTES: dict[str, Change] = {
    f"bytes: {change.__name__}": change
    for change in (flip, overwrite, insert, delete, truncate, duplicate, move, append)
}
