"""Masks decided on again: how many stay, what goes, what comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnxprune.pruning.revision import GRADUAL, SPLICING, Aim, Hysteresis, revised, weighed

each = pytest.mark.parametrize("hysteresis", [GRADUAL, SPLICING], ids=["gradual", "splicing"])


def drawn(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"a": (6, 5), "b": (4,), "c": (3, 2, 2)}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def everything(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ones(array.shape, bool) for name, array in weights.items()}


@each
def test_a_threshold_at_full_height_is_that_of_pruning_at_once(hysteresis: Hysteresis) -> None:
    weights = drawn()
    full = Hysteresis(1.0, hysteresis.upper)
    whole = everything(weights)
    found = revised(Aim({"a": 0.5, "b": 1.0}), 1.0, full, weights, whole, whole)
    assert found.keys() == {"a", "b"}
    assert np.array_equal(found["a"], np.abs(weights["a"]) >= 0.5)
    assert np.array_equal(found["b"], np.abs(weights["b"]) >= 1.0)


def test_weights_go_below_nine_tenths_and_come_back_at_eleven_tenths() -> None:
    weights = {"a": np.array([0.89, 0.91, -1.09, -1.11, 0.89, 0.91, 1.09, -1.11], np.float32)}
    mask = {"a": np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)}
    found = revised(Aim({"a": 1.0}), 1.0, SPLICING, weights, mask, everything(weights))
    assert found["a"].tolist() == [False, True, True, True, False, False, False, True]
    gone = revised(Aim({"a": 1.0}), 1.0, GRADUAL, weights, mask, everything(weights))
    assert gone["a"].tolist() == [False, False, True, True, False, False, False, False]


@each
@given(data=st.data(), height=st.floats(0, 1), kept=st.integers(0, 34))
def test_a_pool_keeps_as_many_as_it_shall(
    hysteresis: Hysteresis, data: st.DataObject, height: float, kept: int
) -> None:
    finite = st.floats(-2, 2, width=32)
    weights = {
        "a": data.draw(arrays.arrays(np.float32, (5, 6), elements=finite)),
        "b": data.draw(arrays.arrays(np.float32, 4, elements=finite)),
    }
    whole = everything(weights)
    aim = Aim({}, ((("a", "b"), kept),))
    found = revised(aim, height, hysteresis, weights, whole, whole)
    count = sum(int(mask.sum()) for mask in found.values())
    assert count == 34 - round((34 - kept) * height)
    left = np.concatenate([np.abs(weights[n])[found[n]] for n in "ab"])
    gone = np.concatenate([np.abs(weights[n])[~found[n]] for n in "ab"])
    assert not left.size or not gone.size or left.min() >= gone.max()


@given(seed=st.integers(0, 99), height=st.floats(0, 1))
def test_gradual_brings_nothing_back(seed: int, height: float) -> None:
    weights, random = drawn(seed), np.random.default_rng(seed)
    masks = {name: random.random(array.shape) < 0.5 for name, array in weights.items()}
    aim = Aim({"a": 0.3}, ((("b", "c"), 3),))
    found = revised(aim, height, GRADUAL, weights, masks, everything(weights))
    assert all(not (found[name] & ~masks[name]).any() for name in found)


@each
def test_zeros_of_the_source_stay(hysteresis: Hysteresis) -> None:
    weights = drawn()
    candidates = {name: np.abs(array) > 0.4 for name, array in weights.items()}
    grown = {name: array * 100 for name, array in weights.items()}
    aim = Aim({"a": 0.1}, ((("b", "c"), 2),))
    found = revised(aim, 1.0, hysteresis, grown, everything(weights), candidates)
    assert all(not (found[name] & ~candidates[name]).any() for name in found)
    assert int(found["b"].sum() + found["c"].sum()) == 2


def test_splicing_prefers_what_is_there() -> None:
    weights = {"a": np.array([1.0, 1.1, 1.3], np.float32)}
    mask = {"a": np.array([True, False, False])}
    found = revised(Aim({}, ((("a",), 1),)), 1.0, SPLICING, weights, mask, everything(weights))
    assert found["a"].tolist() == [False, False, True], "1.3 / 1.1 > 1.0 / 0.9 > 1.1 / 1.1"


def test_fisher_weighs_pools_by_the_root_of_squared_gradients_and_leaves_thresholds() -> None:
    weights = {"a": np.array([1.0, -2.0], np.float32), "b": np.array([3.0, -4.0], np.float32)}
    squares = {"a": np.array([9.0, 4.0], np.float32), "b": np.array([0.0, 0.25], np.float32)}
    aim = Aim({"a": 1.5}, ((("b",), 1),))
    found = weighed(aim, weights, squares)
    assert found["a"].tolist() == [1.0, -2.0]
    assert found["b"].tolist() == [0.0, -2.0]
    both = weighed(Aim({}, ((("a", "b"), 2),)), weights, squares)
    masks = revised(
        Aim({}, ((("a", "b"), 2),)), 1.0, GRADUAL, both, everything(weights), everything(weights)
    )
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "a": [True, True],
        "b": [False, False],
    }
