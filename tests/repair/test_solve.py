"""Batched ridge solves against one numpy solve per output."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.repair.gram import NormalSums, SampleRows
from onnxprune.repair.solve import block_deltas, normal_deltas, rough_deltas, sample_deltas


def by_hand(x: np.ndarray, r: np.ndarray, alive: np.ndarray, ridge: float) -> np.ndarray:
    """One augmented least-squares problem per output."""
    found = np.zeros(alive.shape)
    for output, kept in enumerate(alive):
        rows = np.vstack([x[:, kept], np.sqrt(ridge) * np.eye(kept.sum())])
        right = np.concatenate([r[:, output], np.zeros(kept.sum())])
        found[output, kept] = np.linalg.lstsq(rows, right, rcond=None)[0]
    return found


@pytest.mark.parametrize("inputs", [7, 230])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_normal_equations(inputs: int, share: float) -> None:
    random = np.random.default_rng(0)
    x, r = random.standard_normal((300, inputs)), random.standard_normal((300, 9))
    alive = random.random((9, inputs)) < share * np.linspace(0.5, 1, 9)[:, None]
    alive[3] = alive[8]  # two outputs that keep the same inputs
    alive[5] = False
    found = normal_deltas((x.T @ x)[None], (x.T @ r)[None], alive[None], np.array([0.7]))[0]
    np.testing.assert_allclose(found, by_hand(x, r, alive, 0.7), atol=1e-9)
    assert not found[~alive].any()


@pytest.mark.parametrize("share", [0.05, 0.9])
def test_in_the_space_of_samples(share: float) -> None:
    random = np.random.default_rng(0)
    x, r = random.standard_normal((40, 500)), random.standard_normal((40, 6))
    alive = random.random((6, 500)) < share
    found = sample_deltas(x, r, alive, 0.7)
    np.testing.assert_allclose(found, by_hand(x, r, alive, 0.7), atol=1e-9)


def test_blocks_come_near_the_same_solution() -> None:
    random = np.random.default_rng(0)
    x, r = random.standard_normal((400, 300)), random.standard_normal((400, 6))
    alive = random.random((6, 300)) < 0.3
    exact = by_hand(x, r, alive, 0.7)
    apart = [
        np.abs(block_deltas(x, r, alive, 0.7, block=64, sweeps=sweeps) - exact).max()
        for sweeps in (1, 3, 30)
    ]
    assert apart[1] < 0.3 * apart[0] and apart[2] < 1e-9


@pytest.mark.parametrize("sums", [NormalSums, SampleRows])
@pytest.mark.parametrize("rough", [False, True])
def test_outputs_that_differ_by_rounding_alone_stay_as_they_are(
    sums: type[NormalSums | SampleRows], rough: bool
) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((1, 50, 8)), random.standard_normal((1, 50, 4))
    noise = 1e-8 * random.standard_normal((1, 50, 4)) + 1e-8
    residual = np.where([True, False, True, True], noise, y)
    whole = sums(1, 4, 8, intercept=True)
    whole.add(x, residual, y)
    fit = whole.fit(np.ones((1, 4, 8), bool), 0.01, rough=rough)
    assert fit.weights.any(axis=2).tolist() == [[False, True, False, False]]
    assert (fit.bias != 0).tolist() == [False, True, False, False]
    assert fit.after is not None and fit.after < fit.before


def test_rough_solutions_approach_the_exact_one() -> None:
    random = np.random.default_rng(0)
    x, r = random.standard_normal((400, 120)), random.standard_normal((400, 6))
    x *= np.linspace(0.1, 3, 120)
    alive = random.random((6, 120)) < 0.5
    alive[2] = False
    exact = by_hand(x, r, alive, 0.7)
    gram = x.T @ x
    apart = []
    for iterations in (2, 12, 100):
        found = rough_deltas(
            lambda way: gram @ way, np.diagonal(gram), r.T @ x, alive, 0.7, iterations=iterations
        )
        assert not found[~alive].any()
        apart.append(np.abs(found - exact).max() / np.abs(exact).max())
    assert apart[1] < 0.05 and apart[1] < apart[0] and apart[2] < 1e-9


@pytest.mark.parametrize("kind", [NormalSums, SampleRows])
def test_rough_fits_explain_nearly_as_much(kind: type[NormalSums] | type[SampleRows]) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 200, 300)).astype(np.float32)
    w = random.standard_normal((300, 64)).astype(np.float32)
    y = x @ w + np.float32(0.5)
    alive = random.random((1, 64, 300)) < 0.7
    fits = {}
    for rough in (False, True):
        sums = kind(1, 64, 300, intercept=True)
        sums.add(x, y, y)
        fits[rough] = sums.fit(alive, 1e-2, rough=rough)
    assert fits[True].before == fits[False].before
    gained = [fits[rough].before - (fits[rough].after or 0) for rough in (True, False)]
    assert gained[0] > 0.95 * gained[1]
    np.testing.assert_allclose(fits[True].bias, fits[False].bias, atol=2)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", [NormalSums, SampleRows])
def test_sums_over_pieces(kind: type[NormalSums] | type[SampleRows], intercept: bool) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 60, 11)) + 1, random.standard_normal((2, 60, 4)) + 2
    r = y - 0.9 * random.standard_normal((2, 60, 4))
    alive = random.random((2, 4, 11)) < 0.6
    sums = kind(2, 4, 11, intercept=intercept)
    for part in (slice(0, 25), slice(25, 60)):
        sums.add(x[:, part], r[:, part], y[:, part])
    fit = sums.fit(alive, 1e-3)
    after = 0.0
    for group in range(2):
        centred = x[group] - x[group].mean(0) if intercept else x[group]
        rest = r[group] - r[group].mean(0) if intercept else r[group]
        ridge = 1e-3 * (centred**2).sum(0).mean()
        expected = by_hand(centred, rest, alive[group], ridge)
        np.testing.assert_allclose(fit.weights[group], expected, atol=1e-9)
        bias = r[group].mean(0) - expected @ x[group].mean(0) if intercept else np.zeros(4)
        np.testing.assert_allclose(fit.bias[4 * group : 4 * group + 4], bias, atol=1e-9)
        after += ((r[group] - x[group] @ expected.T - bias) ** 2).sum()
    spread = ((y - y.mean(1, keepdims=True)) ** 2).sum()
    np.testing.assert_allclose([fit.before, fit.after], [(r**2).sum() / spread, after / spread])
