"""Elimination against least squares solved anew for every set of channels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from onnxprune.structure.elimination import LEAST_RIDGE, RIDGE, STEPS, Reader, eliminate

RANDOM = np.random.default_rng(5)


def problem(groups: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [groups, inputs, outputs], and variances and covariances of correlated inputs."""
    x = RANDOM.standard_normal((groups, 200, 3)) @ RANDOM.standard_normal((groups, 3, inputs))
    x = (x + 0.3 * RANDOM.standard_normal(x.shape)) * RANDOM.uniform(0.2, 2, inputs)
    centred = x - x.mean(axis=1, keepdims=True)
    covariance = centred.swapaxes(1, 2) @ centred / 200
    weights = RANDOM.standard_normal((groups, inputs, outputs))
    return weights, np.einsum("gkk->gk", covariance).copy(), covariance


def best_without(
    weights: np.ndarray, covariance: np.ndarray, gone: np.ndarray
) -> tuple[float, np.ndarray]:
    """Loss of the best weights with zeros at these inputs, and the weights: normal equations."""
    total, found = 0.0, np.zeros_like(weights)
    kept = np.setdiff1d(np.arange(weights.shape[1]), gone)
    for group, (w, h) in enumerate(zip(weights, covariance, strict=True)):
        own = np.diag(h)
        h = h + np.diag(RIDGE * own + LEAST_RIDGE * own.mean())
        right = h[np.ix_(kept, kept)], h[kept] @ w
        found[group, kept] = np.linalg.solve(*right)
        delta = w - found[group]
        total += float(np.trace(delta.T @ h @ delta))
    return total, found


def spread(weights: np.ndarray, covariance: np.ndarray) -> float:
    return float(np.einsum("gkm,gkl,glm->", weights, covariance, weights))


@pytest.mark.parametrize(("groups", "each"), [(1, 1), (1, 3), (2, 2)])
def test_costs_and_corrections(groups: int, each: int) -> None:
    weights, variance, covariance = problem(groups, 6 * each, 4)
    columns = RANDOM.permutation(6 * each).reshape(6, each)
    reader = Reader(weights, variance, covariance, columns)
    whole = spread(weights, covariance)
    for channel, cost in enumerate(reader.costs(np.arange(6))):
        expected, _ = best_without(weights, covariance, columns[channel])
        assert cost * whole == pytest.approx(expected)
    reader.remove(np.array([4]))
    reader.remove(np.array([0, 3]))
    already, best = best_without(weights, covariance, columns[[4, 0, 3]].reshape(-1))
    np.testing.assert_allclose(reader.change, (best - weights).swapaxes(1, 2), atol=1e-9)
    for channel in (1, 2, 5):
        cost = reader.costs(np.array([channel]))[0] * whole
        more, _ = best_without(weights, covariance, columns[[4, 0, 3, channel]].reshape(-1))
        assert cost == pytest.approx(more - already)


def test_the_first_to_go_is_the_one_that_others_replace() -> None:
    weights, variance, covariance = problem(1, 5, 4)
    columns = np.arange(5)[:, None]
    found = eliminate(5, [Reader(weights, variance, covariance, columns)], 3)
    best = min(range(5), key=lambda k: best_without(weights, covariance, np.array([k]))[0])
    assert found.order[0] == best
    assert sorted(found.order) == list(range(5))
    assert (np.diff(found.losses[found.order]) >= 0).all()
    # Its three first are about as good a set of three as there is.
    least = min(
        best_without(weights, covariance, np.array(three))[0] for three in combinations(range(5), 3)
    )
    ours, kept = best_without(weights, covariance, found.order[:3])
    assert ours <= 1.2 * least
    np.testing.assert_allclose(found.changes[0], (kept - weights).swapaxes(1, 2), atol=1e-9)


def test_several_readers_count_relative_to_their_outputs() -> None:
    one, two = problem(1, 6, 4), problem(1, 6, 3)
    columns = np.arange(6)[:, None]

    def order(scale: float) -> list[int]:
        readers = [Reader(*one, columns), Reader(scale * two[0], *two[1:], columns)]
        return list(eliminate(6, readers, 2).order)

    assert order(1.0) == order(1000.0)


def test_layers_too_wide_for_covariances_count_their_inputs_as_independent() -> None:
    weights, variance, _ = problem(1, 6, 4)
    columns = np.arange(6).reshape(3, 2)
    reader = Reader(weights, variance, None, columns)
    ridge = RIDGE * variance[0] + LEAST_RIDGE * variance.mean()
    expected = (variance[0] + ridge) * np.square(weights[0]).sum(axis=1)
    share = expected.reshape(3, 2).sum(axis=1) / (variance[0] @ np.square(weights[0])).sum()
    np.testing.assert_allclose(reader.costs(np.arange(3)), share)
    reader.remove(np.array([1]))
    assert (reader.weights[:, 2:4] == 0).all()
    np.testing.assert_allclose(reader.weights[:, :2], weights[:, :2])


def test_large_groups_lose_several_at_a_time() -> None:
    size = 2 * STEPS + 10
    weights, variance, covariance = problem(1, size, 2)
    reader = Reader(weights, variance, covariance, np.arange(size)[:, None])
    found = eliminate(size, [reader], 100)
    assert sorted(found.order) == list(range(size))
    assert found.changes[0].shape == (1, 2, size)
    # Exactly a hundred were gone when the changes were kept.
    assert (np.abs(found.changes[0][0] + weights[0].T) < 1e-12).all(axis=0).sum() == 100


def test_inputs_that_never_vary() -> None:
    zeros = np.zeros((1, 3))
    reader = Reader(np.ones((1, 3, 2)), zeros, np.zeros((1, 3, 3)), np.arange(3)[:, None])
    found = eliminate(3, [reader], 1)
    assert np.isfinite(found.losses).all()
