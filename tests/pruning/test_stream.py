from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from onnxprune.pruning.stream import BATCH, blocks, ordered_map, slices
from tests.pruning.cut import CutPayload


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, BATCH, 50])
def test_results_come_in_the_order_of_the_items(workers: int, count: int) -> None:
    found = list(ordered_map(lambda i: i * i, iter(range(count)), workers=workers))
    assert found == [i * i for i in range(count)]


def test_items_are_taken_only_a_little_ahead_of_the_reader() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    results = ordered_map(lambda i: i, items(), workers=2)
    assert next(results) == 1
    assert taken <= BATCH * 6
    results.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("onnxprune")]


def test_an_error_in_a_thread_reaches_the_reader() -> None:
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda i: 1 // (i - 30), range(60), workers=2))


def test_slices_and_blocks_know_where_they_start() -> None:
    payload = CutPayload(np.arange(20), length=8)
    assert [start for _, start in slices(payload)] == [0, 8, 16]
    assert [(start, block[0]) for block, start in blocks(np.arange(200_000), 5)] == [
        (5, 0),
        (131_077, 131_072),
    ]
