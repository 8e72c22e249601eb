"""Layers whose data are at hand: what they compute without a run, and what then stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import DataError
from onnxprune.model.model import Model
from onnxprune.repair import refit as refit_module
from onnxprune.repair.linear import linear_of, placed
from onnxprune.repair.repair import Repairer
from onnxprune.repair.targets import observed
from onnxprune.repair.writing import rewritten
from tests.builders import mlp
from tests.repair.cases import CASES, Case, data, opened, pruned, tensor
from tests.repair.test_repair import INPUTS, samples


def at_hand(case: Case) -> tuple[Model, Repairer]:
    dense = opened(case.proto())
    cut, plans = pruned(dense, 0.5)
    random = np.random.default_rng(3)
    x = random.standard_normal(case.data).astype(np.float32)
    repairer = Repairer(dense, plans, data(dense, x))
    if repairer.jobs.jobs:
        repairer.targets.need(repairer.jobs.jobs)
    return repairer.started(cut), repairer


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layer_whose_data_are_at_hand_computes_what_a_run_says(case: Case) -> None:
    model, repairer = at_hand(case)
    for job in repairer.jobs.jobs:
        linear = linear_of(model, job, repairer.samples, repairer.targets)
        if linear is None:
            continue
        ran = observed(model, [job], repairer.samples, stack=repairer.jobs.stackable)
        ours = placed([job], repairer.samples, repairer.targets)
        for (_, run), (_, seen) in zip(ran, ours, strict=True):
            np.testing.assert_array_equal(seen.picks, run.picks)
            assert seen.y.shape == run.y.shape and seen.key == run.key
            rows = seen.site.unfolding.rows(seen.x, seen.y.shape, seen.picks)
            wanted = run.site.unfolding.targets(run.y, run.picks)
            np.testing.assert_allclose(linear(rows), wanted, rtol=1e-4, atol=1e-5)


def test_most_layouts_need_no_run() -> None:
    names = []
    for case in CASES:
        model, repairer = at_hand(case)
        names += [
            case.name
            for job in repairer.jobs.jobs
            if linear_of(model, job, repairer.samples, repairer.targets) is not None
        ]
    assert {"conv", "gemm"} <= set(names) and len(names) > len(CASES) / 2


def test_the_fit_is_the_same_with_and_without_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = opened(mlp((INPUTS, 32, 24, 10)))
    cut, plans = pruned(dense, 0.6)
    repairer = Repairer(dense, plans, data(dense, samples(300)))
    without = repairer.repair(cut).model
    monkeypatch.setattr(refit_module, "linear_of", lambda *_: None)
    with_run = repairer.repair(cut).model
    for name in (f"fc{i}.{part}" for i in range(3) for part in ("weight", "bias")):
        np.testing.assert_allclose(
            tensor(without, name), tensor(with_run, name), rtol=1e-4, atol=1e-5
        )


def test_layers_before_the_first_loss_stay_bit_for_bit() -> None:
    dense = opened(mlp((INPUTS, 32, 24, 10)))
    cut, plans = pruned(dense, 0.6)
    kept = {"fc0.weight", "fc0.bias"}
    whole = {a: dense.payload(dense.tensors[a]) for a in dense.tensors if a.name in kept}
    result = Repairer(dense, plans, data(dense, samples(300))).repair(cut.with_payloads(whole))
    for name in kept:
        assert tensor(result.model, name).tobytes() == tensor(dense, name).tobytes()
    assert (tensor(result.model, "fc1.weight") != tensor(cut, "fc1.weight")).any()


def test_weights_that_overflow_are_refused_as_after_a_run() -> None:
    dense = opened(mlp((INPUTS, 32, 10)))
    cut, plans = pruned(dense, 0.5)
    address = next(a for a in cut.tensors if a.name == "fc0.weight")
    repairer = Repairer(dense, plans, data(dense, samples(100)))
    huge = np.full(cut.array(cut.tensors[address]).size, 3e38, np.float32)
    with pytest.raises(DataError, match="gives NaN or infinity"):
        repairer.repair(rewritten(cut, {address: huge}))
