"""How many samples the quick parts of a pruning see."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.graph.layers import find_layers
from onnxprune.model.model import Model
from onnxprune.pruning.plan import make_plan
from onnxprune.repair import effort as effort_module
from onnxprune.repair.repair import Repairer
from tests.builders import mlp
from tests.repair.cases import CASES, data, opened
from tests.repair.test_repair import INPUTS, samples

CONV = next(case for case in CASES if case.name == "conv")


def repairer(dense: Model, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Repairer:
    monkeypatch.setattr("onnxprune.repair.samples.BATCH", 8)
    plans = make_plan(dense, find_layers(dense), sparsity=0.5)
    return Repairer(dense, plans, data(dense, x), samples=len(x))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *CONV.data[1:])).astype(np.float32)


def test_small_matrices_see_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = repairer(opened(mlp((INPUTS, 24, 10))), samples(200), monkeypatch).effort
    assert sum(effort.rough.sizes) == sum(effort.influence.sizes) == 200
    assert effort.held is None


def test_convolutions_average_over_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    effort = repairer(opened(CONV.proto()), images(400), monkeypatch).effort
    assert sum(effort.rough.sizes) == 200
    assert sum(effort.influence.sizes) == effort_module.CONVOLVED
    held = effort.held
    assert held is not None and sum(held.sizes) == effort_module.CONVOLVED
    assert held.batches[0] is not effort.rough.batches[0], "others than those of the refit"
    assert effort.rough.count == 400, "by which the positions are chosen that targets are kept of"


def test_multiplications_are_bounded_but_some_samples_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 4 outputs of 27 inputs at 8 x 7 positions.
    each = 4 * 27 * 8 * 7
    for work, wanted in ((64 * each, 64), (each, effort_module.LEAST)):
        monkeypatch.setattr(effort_module, "WORK", work)
        effort = repairer(opened(CONV.proto()), images(400), monkeypatch).effort
        assert sum(effort.rough.sizes) == sum(effort.influence.sizes) == wanted
        assert effort.steps == (effort_module.STEPS if work == each else None)


def test_nothing_to_repair_needs_no_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = opened(mlp((INPUTS, 10)))
    empty = Repairer(dense, [], data(dense, samples(64)))
    assert sum(empty.effort.rough.sizes) == 64
