"""SparseGPT on models: the numbers of `obs` for layers, in every layout, narrow and wide."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.criteria import layerwise as layerwise_module
from onnxprune.repair import jobs as jobs_module
from tests.builders import mlp
from tests.criteria.test_obs import by_the_paper
from tests.repair.cases import CASES, Case, opened
from tests.repair.test_refit import with_tensors
from tests.repair.test_repair import branching
from tests.test_calibration_doors import error, weight

INPUTS = 24
SIZES = (INPUTS, 40, 30, 10)


def correlated(count: int = 300, width: int = INPUTS) -> np.ndarray:
    random = np.random.default_rng(3)
    mixed = random.standard_normal((width, width)) / np.sqrt(width) + 0.4 * np.eye(width)
    return (random.standard_normal((count, width)) @ mixed + 0.3).astype(np.float32)


def pruned(proto: onnx.ModelProto, x: np.ndarray, **options: Any) -> onnx.ModelProto:
    options = {
        "criterion": "sparsegpt",
        "repair": "none",
        "check": False,
        "shrink": False,
        **options,
    }
    return onnxprune.prune(proto, calibrate=x, **options).to_proto()


def masked(dense: onnx.ModelProto, cut: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The dense model with the zeros of a pruned one, and all else as it was."""
    kept = {name: weight(dense, name) * (weight(cut, name) != 0) for name in names}
    return with_tensors(opened(dense), kept)


def test_layers_get_the_weights_of_the_papers_algorithm() -> None:
    dense, x = mlp(SIZES), correlated()
    found = pruned(dense, x, sparsity=0.5, scope="layer")
    data = x.astype(np.float64)
    for i in range(3):
        name = f"fc{i}.weight"
        w, after = weight(dense, name).astype(np.float64), weight(found, name)
        gram = data.T @ data
        h = gram + 0.01 * np.diag(gram).mean() * np.eye(len(gram))
        gone = after == 0
        assert gone.sum() == round(0.5 * gone.size)
        np.testing.assert_allclose(after, by_the_paper(w, h, gone), atol=2e-5)
        data = np.maximum(data @ after.T + weight(dense, f"fc{i}.bias"), 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_in_every_layout_what_is_left_makes_up_for_what_went(case: Case) -> None:
    """With the same zeros, the updates of the right layout lower the error; others raise it."""
    dense = case.proto()
    x = case.samples()
    smooth = np.cumsum(x, axis=-1) * 0.5 if "Conv" in case.op else x
    x = (smooth + smooth.mean(axis=-1, keepdims=True)).astype(np.float32)
    found = pruned(dense, x, sparsity=0.5, scope="layer")
    zeros = (weight(found, "w") == 0).sum()
    assert zeros == pytest.approx(0.5 * weight(found, "w").size, abs=1)
    assert error(dense, found, x) < 0.999 * error(dense, masked(dense, found, ["w"]), x)


@pytest.mark.parametrize("options", [{"sparsity": 0.5, "scope": "layer"}, {"pattern": "2:4"}])
def test_wide_layers_are_pruned_in_blocks(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    random, dense = np.random.default_rng(3), mlp((320, 24))
    common = random.standard_normal((900, 60)) @ random.standard_normal((60, 320)) / 8
    x = (common + 0.3 * random.standard_normal((900, 320))).astype(np.float32)
    narrow = error(dense, pruned(dense, x, **options), x)
    monkeypatch.setattr(jobs_module, "WIDE", 100)
    monkeypatch.setattr(layerwise_module, "WIDE_BLOCK", 128)
    wide = pruned(dense, x, **options)
    w = weight(wide, "fc0.weight")
    assert (w == 0).mean() == pytest.approx(0.5, abs=1e-3)
    plain = error(dense, masked(dense, wide, ["fc0.weight"]), x)
    assert error(dense, wide, x) < 0.45 * plain
    assert error(dense, wide, x) < 1.4 * narrow


def test_a_layer_of_ten_thousand_inputs_needs_no_hessian_of_them() -> None:
    import tracemalloc

    dense = mlp((12_000, 8))
    x = np.random.default_rng(0).standard_normal((128, 12_000)).astype(np.float32)
    tracemalloc.start()
    found = pruned(dense, x, sparsity=0.7, scope="layer")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (weight(found, "fc0.weight") == 0).mean() == pytest.approx(0.7, abs=1e-3)
    assert peak < 0.4 * 8 * 12_000**2  # a Hessian alone would have that, and more


def test_over_all_layers_shares_follow_one_ranking() -> None:
    dense, x = mlp(SIZES), correlated()
    cuts = {name: pruned(dense, x, sparsity=0.7, criterion=name) for name in ("sparsegpt", "wanda")}
    names = [f"fc{i}.weight" for i in range(3)]
    zeros = {
        key: np.array([(weight(cut, name) == 0).mean() for name in names])
        for key, cut in cuts.items()
    }
    np.testing.assert_allclose(zeros["sparsegpt"], zeros["wanda"], atol=2e-3)
    assert np.ptp(zeros["wanda"]) > 0.05, "layers differ"
    assert error(dense, cuts["sparsegpt"], x) < 0.9 * error(dense, cuts["wanda"], x)


def test_zeros_stay() -> None:
    dense, x = mlp(SIZES), correlated()
    for tensor in dense.graph.initializer:
        if tensor.name.endswith("weight"):
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[:, ::3] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    found = pruned(dense, x, sparsity=0.5, scope="layer")
    for i in range(3):
        after = weight(found, f"fc{i}.weight")
        assert not after[:, ::3].any()
        assert (after == 0).sum() == pytest.approx(0.5 * after.size, abs=1)


def test_layers_whose_inputs_are_not_seen_go_by_magnitude() -> None:
    x = np.random.default_rng(3).standard_normal((100, 8)).astype(np.float32)
    for scope in ("layer", "global"):
        found = pruned(branching(), x, sparsity=0.5, scope=scope)
        for name in ("rnn", "outer", "again"):
            before, after = weight(branching(), name), weight(found, name)
            gone = after == 0
            assert gone.mean() == pytest.approx(0.5, abs=1 / gone.size)
            assert np.abs(before[gone]).max() <= np.abs(before[~gone]).min()
            assert np.array_equal(after[~gone], before[~gone])
