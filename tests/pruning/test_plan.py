from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, UsageError
from onnxprune.graph.layer import Layer, LayerScan, Quantization, Unprunable, WeightUse
from onnxprune.model.model import Model
from onnxprune.model.tensors import TensorAddress
from onnxprune.pruning.plan import LayerPlan, apply_plan, make_plan

RNG = np.random.default_rng(0)
ARRAYS = {
    "a": RNG.standard_normal((20, 30)).astype(np.float32),
    "b": (RNG.standard_normal((10, 10)) * 0.01).astype(np.float16),
    "zero": np.zeros((3, 3), np.float32),
    "same": np.full((3, 3), 0.25, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "q": RNG.integers(-128, 127, (8, 8)).astype(np.int8),
}
QUANTIZATION = Quantization(np.array(0.02, np.float32), np.array(3, np.int8))


def setting(**arrays: np.ndarray) -> tuple[Model, LayerScan]:
    """A model of these initializers, each a layer used by the node of that name in upper case."""
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = Model(helper.make_model(helper.make_graph([], "g", [], [], tensors)))
    layers = tuple(
        Layer(
            name,
            TensorAddress((), name),
            "initializer",
            array.shape,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            (WeightUse(name.upper(), "MatMul", "", 1, ("input", "output")),),
            QUANTIZATION if array.dtype == np.int8 else None,
        )
        for name, array in arrays.items()
    )
    return model, LayerScan(layers, (Unprunable("norm", "NORM", "Mul", None, "no weight"),))


def planned(**settings: Any) -> dict[str, LayerPlan]:
    return {plan.layer.name: plan for plan in make_plan(*setting(**ARRAYS), **settings)}


def test_quality_sets_each_threshold_by_its_own_deviation() -> None:
    plans = planned(quality=1.0)
    assert list(plans) == list(ARRAYS)
    for name in ("a", "b"):
        plan, values = plans[name], ARRAYS[name].astype(np.float64)
        assert plan.threshold == pytest.approx(values.std(), rel=1e-12)
        assert plan.kept == np.count_nonzero(np.abs(values) >= plan.threshold)
        assert (plan.quality, plan.reason, plan.changes) == (1.0, None, True)
    values = (ARRAYS["q"].astype(int) - 3) * np.float64(np.float32(0.02))
    assert plans["q"].kept == np.count_nonzero(np.abs(values) >= plans["q"].threshold)


def test_layers_without_a_sensible_threshold_stay_with_their_reason() -> None:
    plans = planned(quality=1.0)
    for name, reason in (("zero", "zero"), ("same", "constant"), ("empty", "empty")):
        plan = plans[name]
        assert reason in (plan.reason or "")
        assert (plan.threshold, plan.quality, plan.changes) == (0.0, None, False)
        assert plan.kept == plan.statistics.alive


def test_overrides_and_exclusions_set_layers_apart() -> None:
    plans = planned(quality=1.0, overrides=[("*", 0.5), ("B", None)], exclude=["q", "norm"])
    assert (plans["a"].quality, plans["b"].quality, plans["q"].quality) == (0.5, None, None)
    assert plans["b"].reason == "switched off by --layer 'B=off'"
    assert plans["q"].reason == "excluded by --exclude 'q'"
    assert plans["b"].statistics.std > 0
    assert plans["b"].kept == plans["b"].statistics.alive


def test_one_threshold_for_all_reaches_the_share() -> None:
    plans = planned(sparsity=0.6, overrides=[("q", 0.1)])
    pool = [plans["a"], plans["b"]]
    assert len({plan.threshold for plan in pool}) == 1
    assert 700 - sum(plan.kept for plan in pool) == 420
    assert all(plan.quality is None and plan.reason is None for plan in pool)
    assert plans["q"].quality == 0.1
    assert plans["same"].kept == 9


def test_a_share_for_each_layer() -> None:
    plans = planned(sparsity=0.5, scope="layer")
    assert (plans["a"].kept, plans["b"].kept) == (300, 50)
    assert plans["a"].threshold > plans["b"].threshold


def test_nonfinite_weights_are_an_error_or_left_alone() -> None:
    model, scan = setting(good=ARRAYS["a"], bad=np.array([1, np.nan, np.inf, 2], np.float32))
    with pytest.raises(
        ModelError, match=r"tensor 'bad' has NaN or infinity in 2 weights.*--allow-n"
    ):
        make_plan(model, scan, quality=1.0)
    good, bad = make_plan(model, scan, quality=1.0, allow_nonfinite=True)
    assert (bad.reason, bad.kept, bad.changes) == ("NaN or infinity in 2 weights", 4, False)
    assert good.changes
    _, bad = make_plan(model, scan, quality=1.0, exclude=["bad"])
    assert bad.reason == "excluded by --exclude 'bad'"


def test_settings_that_contradict_are_refused() -> None:
    for settings in ({}, {"quality": 1.0, "sparsity": 0.5}):
        with pytest.raises(UsageError, match="either a quality"):
            planned(**settings)
    with pytest.raises(UsageError, match="matches no layer"):
        planned(quality=1.0, exclude=["nowhere"])


def test_applying_replaces_only_what_loses_weights() -> None:
    model, scan = setting(**ARRAYS)
    before = model.proto.SerializeToString()
    plans = make_plan(model, scan, quality=1.0, overrides=[("b", 0.0)])
    pruned = apply_plan(model, plans)
    for plan in plans:
        name, address = plan.layer.name, plan.layer.address
        found = pruned.array(pruned.tensors[address])
        if plan.changes:
            zero = 3 if name == "q" else 0
            assert np.count_nonzero(found != zero) == plan.kept
            assert np.array_equal(found[found != zero], ARRAYS[name][found != zero])
        else:
            assert pruned.tensors[address] == model.tensors[address]
    assert {plan.layer.name for plan in plans if plan.changes} == {"a", "q"}
    assert model.proto.SerializeToString() == before


def test_four_bit_weights_are_pruned_where_they_are_packed() -> None:
    codes = [-8, -1, 0, 1, 2, 7, 3]
    tensor = helper.make_tensor("w", TensorProto.INT4, [7], codes)
    model = Model(helper.make_model(helper.make_graph([], "g", [], [], [tensor])))
    layer = Layer("w", TensorAddress((), "w"), "initializer", (7,), TensorProto.INT4, ())
    [plan] = make_plan(model, LayerScan((layer,), ()), sparsity=0.5)
    pruned = apply_plan(model, [plan])
    found = pruned.array(pruned.tensors[layer.address])
    assert found.astype(int).tolist() == [-8, 0, 0, 0, 2, 7, 3]
    assert (plan.kept, plan.statistics.size) == (4, 7)


def test_progress_is_told_in_megabytes() -> None:
    told: list[tuple[str, int, int]] = []
    arrays = {"w": RNG.standard_normal(900_000, dtype=np.float32)}
    make_plan(*setting(**arrays), sparsity=0.5, progress=lambda *step: told.append(step))
    assert [step for step in told if step[1] == step[2]] == [
        ("statistics (MB)", 3, 3),
        ("thresholds (MB)", 7, 7),
        ("counts (MB)", 3, 3),
    ]
