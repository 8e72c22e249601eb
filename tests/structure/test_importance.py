"""Importance of channels from their weights."""

from __future__ import annotations

import numpy as np

from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_groups
from onnxprune.structure.importance import magnitudes
from tests.structure.graphs import Case, built, ints

RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def over_mean(values: np.ndarray) -> np.ndarray:
    return values / values.mean()


def test_all_weights_of_a_channel_count_relative_to_their_layer() -> None:
    w, v, k = 100 * weights(8, 4, 3, 3), 0.01 * weights(3, 8, 1, 1), weights(8, 1, 3, 3)
    case = Case(
        "h = Conv(x, w, b)\na = Conv<group=8>(h, k)\ny = Conv(a, v)",
        {"w": w, "k": k, "v": v, "b": 1000 * weights(8)},
        [],
    )
    coupling = analyse(built(case))
    (scores,) = magnitudes(coupling, find_groups(coupling))
    expected = (
        over_mean((w**2).sum((1, 2, 3)))
        + over_mean((v**2).sum((0, 2, 3)))
        + over_mean((k**2).sum((1, 2, 3)))
    )
    np.testing.assert_allclose(scores, over_mean(expected), rtol=1e-5)


def test_heads_are_all_their_dimensions() -> None:
    w, v = weights(6, 12), weights(12, 3)
    case = Case(
        "h = MatMul(x, w)\na = Reshape(h, s)\nb = Relu(a)\nc = Reshape(b, t)\ny = MatMul(c, v)",
        {"w": w, "s": ints(0, 3, 4), "t": ints(0, 12), "v": v},
        [],
        (6,),
    )
    coupling = analyse(built(case))
    groups = find_groups(coupling)
    scores = {group.size: s for group, s in zip(groups, magnitudes(coupling, groups), strict=True)}
    first, second = (w.T**2).sum(1).reshape(3, 4), (v**2).sum(1).reshape(3, 4)
    for axis, size in ((1, 3), (0, 4)):
        expected = over_mean(first.sum(axis)) + over_mean(second.sum(axis))
        np.testing.assert_allclose(scores[size], over_mean(expected), rtol=1e-5)


def test_a_group_of_vectors_alone_has_scores_too() -> None:
    scale = np.array([1, 2, 3, 4], np.float32)
    case = Case(
        "h = Expand(z, s)\na = Mul(h, p)\nb = ReduceSum<keepdims=1>(a, i)\ny = Add(x, b)",
        {"z": np.ones((1, 1), np.float32), "s": ints(1, 4), "p": scale, "i": ints(0)},
        [],
    )
    coupling = analyse(built(case))
    for scores in magnitudes(coupling, find_groups(coupling)):
        np.testing.assert_allclose(scores.mean(), 1)


def test_zeros_are_all_alike() -> None:
    case = Case(
        "h = Conv(x, w)\ny = Conv(h, v)",
        {"w": np.zeros((8, 4, 1, 1), np.float32), "v": np.zeros((3, 8, 1, 1), np.float32)},
        [],
    )
    coupling = analyse(built(case))
    (scores,) = magnitudes(coupling, find_groups(coupling))
    assert (scores == 1).all()
