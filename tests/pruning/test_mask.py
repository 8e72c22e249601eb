from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model.payload import ArrayPayload, Payload
from onnxprune.pruning.mask import PrunedPayload, kept_counts, kept_curve
from onnxprune.pruning.weights import FloatWeights
from tests.pruning.cut import CutPayload


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_pruned_slices_are_those_of_the_whole_array(workers: int) -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    pruned = PrunedPayload(FloatWeights(CutPayload(values, length=37)), 0.8, workers)
    expected = np.where(np.abs(values) < np.float64(0.8), np.float32(0), values)
    assert isinstance(pruned, Payload)
    assert (pruned.dtype, pruned.size, pruned.nbytes) == (values.dtype, 10_000, 40_000)
    assert max(chunk.size for chunk in pruned.chunks()) == 37
    np.testing.assert_array_equal(np.concatenate(list(pruned.chunks())), expected)
    np.testing.assert_array_equal(pruned.array(), expected)


def test_pruned_payloads_can_be_pruned_again_and_read_twice() -> None:
    values = np.arange(-5, 6).astype(np.float16)
    once = PrunedPayload(FloatWeights(ArrayPayload(values)), 2.0)
    twice = PrunedPayload(FloatWeights(once), 4.0)
    expected = [-5, -4, 0, 0, 0, 0, 0, 0, 0, 4, 5]
    np.testing.assert_array_equal(twice.array(), expected)
    np.testing.assert_array_equal(twice.array(), expected)
    np.testing.assert_array_equal(values, np.arange(-5, 6))


def test_a_reader_may_stop_early() -> None:
    pruned = PrunedPayload(FloatWeights(CutPayload(np.ones(1000, np.float32))), 0.5, 2)
    assert next(pruned.chunks()).size == 7


def test_counts_are_taken_for_all_layers_in_one_pass() -> None:
    layers = [
        FloatWeights(CutPayload(np.array(values, np.float32), length=2))
        for values in ([1, -2, 3, 0], [], [5, 5, 5], [0.1])
    ]
    read: list[int] = []
    counts = kept_counts(layers, [[0.0, 2.0, 9.0], [1.0], [5.0], []], advance=read.append)
    assert counts == [[3, 2, 0], [0], [3], []]
    assert sum(read) == 28
    assert kept_curve(layers[0], [0.0, 1.5, 2.5]) == [3, 2, 1]
