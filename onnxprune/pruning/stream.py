"""Running over big tensors: slices in order, worked on by a few threads a little ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from ..model.payload import Payload

__all__ = ["Slice", "blocks", "ordered_map", "slices", "worker_count"]

#: A slice of a tensor's storage elements and the index of its first element.
Slice = tuple[np.ndarray, int]

#: Storage elements per numpy call: large, since threads that meet at the interpreter lock between
#: short calls wait for each other; small, so that a block and its copies stay in a core's L2 cache.
BLOCK = 131_072
#: Items per task: waking the reader of the results costs as much as half an item.
BATCH = 4
#: More threads than this wait for memory rather than work.
MAX_WORKERS = 4

T = TypeVar("T")
R = TypeVar("R")


def worker_count() -> int:
    """Number of threads that work on slices; numpy releases the interpreter lock meanwhile."""
    return max(1, min(os.cpu_count() or 1, MAX_WORKERS))


def slices(payload: Payload) -> Iterator[Slice]:
    """The chunks of a payload, each with its start."""
    start = 0
    for chunk in payload.chunks():
        yield chunk, start
        start += chunk.size


def blocks(chunk: np.ndarray, start: int = 0) -> Iterator[Slice]:
    """Views of at most `BLOCK` elements of a chunk, each with its start in the tensor."""
    for offset in range(0, chunk.size, BLOCK):
        yield chunk[offset : offset + BLOCK], start + offset


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int | None = None
) -> Iterator[R]:
    """Results of `function` in the order of `items`, computed on threads a few items ahead.

    Args:
        function: Called once per item, from any thread.
        items: Taken lazily on the caller's thread, at most ``BATCH * (2 * workers + 2)`` ahead of
            the results that were taken: that bounds the memory.
        workers: Number of threads; None for `worker_count`. Few items need no thread.
    """
    workers = workers or worker_count()
    source = iter(items)
    head = list(islice(source, BATCH + 1))
    if workers == 1 or len(head) <= BATCH:
        yield from map(function, chain(head, source))
        return
    source = chain(head, source)

    def work(batch: list[T]) -> list[R]:
        return [function(item) for item in batch]

    pending: deque[Future[list[R]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="onnxprune") as pool:
        try:
            while batch := list(islice(source, BATCH)):
                pending.append(pool.submit(work, batch))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
