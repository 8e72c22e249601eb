"""SparseGPT's numbers against the formulas of the paper, written out densely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from onnxprune.criteria.choosers import (
    BlockChooser,
    GroupChooser,
    SettledChooser,
    ShareChooser,
)
from onnxprune.criteria.obs import damped, inverse_factor, losses, prune_columns
from onnxprune.pattern import BlockPattern


def inputs(rows: int, width: int, seed: int = 0, groups: int = 1) -> np.ndarray:
    """Correlated inputs [groups, rows, width]."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((groups, width, width)) / np.sqrt(width)
    return random.standard_normal((groups, rows, width)) @ (mixed + 0.5 * np.eye(width)) + 0.3


def hessian(x: np.ndarray) -> np.ndarray:
    return damped(x.swapaxes(1, 2) @ x)


def by_the_paper(weights: np.ndarray, h: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Algorithm 1 for a single group without any of its shortcuts.

    For every input in turn, the inverse of what is left of H is computed anew (equation 3): weight
    w goes at the price of changing the later ones by ``-w / inv[0, 0] * inv[0, :]``.
    """
    weights = weights.copy()
    for column in range(weights.shape[1]):
        inverse = np.linalg.inv(h[column:, column:])
        for row in np.flatnonzero(gone[:, column]):
            weights[row, column:] -= weights[row, column] / inverse[0, 0] * inverse[0]
            weights[row, column] = 0.0
    return weights


def test_the_factor_is_that_of_the_inverse() -> None:
    h = hessian(inputs(80, 30, groups=3))
    factor = inverse_factor(h)
    for group in range(3):
        np.testing.assert_allclose(
            factor[group].T @ factor[group], np.linalg.inv(h[group]), rtol=1e-8, atol=1e-12
        )
        assert np.array_equal(factor[group], np.triu(factor[group]))
        # Row j over its diagonal is row j of the inverse of H from j on, over its first element.
        inverse = np.linalg.inv(h[group, 12:, 12:])
        np.testing.assert_allclose(
            factor[group, 12, 12:] / factor[group, 12, 12], inverse[0] / inverse[0, 0], rtol=1e-7
        )


def test_dampening_is_a_share_of_the_mean_diagonal_and_dead_inputs_stay_solvable() -> None:
    x = inputs(40, 10)
    x[:, :, 3] = 0.0
    plain = x[0].T @ x[0]
    h = hessian(x)[0]
    np.testing.assert_allclose(h - plain, 0.01 * np.diag(plain).mean() * np.eye(10), atol=1e-9)
    nothing = damped(np.zeros((2, 4, 4)))
    assert np.array_equal(nothing, np.stack([np.eye(4)] * 2))
    assert np.isfinite(inverse_factor(nothing)).all()


@pytest.mark.parametrize("column", [0, 4, 18])
def test_one_weight_less_is_the_optimum_of_the_later_ones(column: int) -> None:
    x, random = inputs(60, 20), np.random.default_rng(1)
    weights, h = random.standard_normal((1, 5, 20)), hessian(x)
    gone = np.zeros(weights.shape, bool)
    gone[0, :, column] = True
    found, _ = prune_columns(weights, inverse_factor(h), SettledChooser(gone))
    # Ridge regression of what the input added on the inputs after it.
    ridge = np.sqrt(0.01 * np.diag(x[0].T @ x[0]).mean())
    design = np.vstack([x[0], ridge * np.eye(20)])
    lost = design[:, [column]] @ weights[0, :, [column]]
    later = np.linalg.lstsq(design[:, column + 1 :], lost, rcond=None)[0].T
    expected = weights[0].copy()
    expected[:, column] = 0
    expected[:, column + 1 :] += later
    np.testing.assert_allclose(found[0], expected, atol=1e-10)


def test_a_loss_is_what_the_squared_outputs_lose() -> None:
    x, random = inputs(60, 12), np.random.default_rng(1)
    weights, h = random.standard_normal((1, 4, 12)), hessian(x)
    factor = inverse_factor(h)
    cost = losses(weights, factor)
    for column in (0, 5, 11):
        gone = np.zeros(weights.shape, bool)
        gone[0, :, column] = True
        found, _ = prune_columns(weights, factor, SettledChooser(gone))
        change = (found - weights)[0]
        price = np.einsum("ok,kl,ol->o", change, h[0], change)
        np.testing.assert_allclose(cost[0, :, column], price, rtol=1e-9)


@pytest.mark.parametrize("block", [8, 16, 128])
def test_lazy_blocks_give_what_the_paper_does(block: int) -> None:
    x, random = inputs(300, 70), np.random.default_rng(2)
    weights, h = random.standard_normal((1, 9, 70)), hessian(x)
    gone = random.random(weights.shape) < 0.6
    chooser = SettledChooser(gone, step=8)
    found, taken = prune_columns(weights, inverse_factor(h), chooser, block=block)
    assert np.array_equal(taken, gone)
    np.testing.assert_allclose(found[0], by_the_paper(weights[0], h[0], gone[0]), atol=1e-9)
    assert not found[gone].any() and found[~gone].all()


def test_groups_are_independent() -> None:
    x, random = inputs(50, 9, groups=4), np.random.default_rng(3)
    weights, h = random.standard_normal((4, 3, 9)), hessian(x)
    gone = random.random(weights.shape) < 0.5
    found, _ = prune_columns(weights, inverse_factor(h), SettledChooser(gone))
    for group in range(4):
        expected = by_the_paper(weights[group], h[group], gone[group])
        np.testing.assert_allclose(found[group], expected, atol=1e-10)


@dataclass(eq=False)
class Recorder:
    """A chooser that remembers what it was asked."""

    chooser: object
    asked: list[tuple[int, np.ndarray]]

    @property
    def step(self) -> int:
        return self.chooser.step  # type: ignore[attr-defined]

    def __call__(self, start: int, costs: np.ndarray) -> np.ndarray:
        self.asked.append((start, costs.copy()))
        return self.chooser(start, costs)  # type: ignore[operator]


def test_masks_are_adaptive() -> None:
    """The second block is chosen by what the losses of the first made of its weights."""
    x, random = inputs(600, 256), np.random.default_rng(4)
    weights, h = random.standard_normal((1, 6, 256)), hessian(x)
    factor = inverse_factor(h)
    recorder = Recorder(ShareChooser(np.full(256, 0.5)), [])
    found, gone = prune_columns(weights, factor, recorder)
    assert [start for start, _ in recorder.asked] == [0, 128]
    first = np.zeros(weights.shape, bool)
    first[:, :, :128] = gone[:, :, :128]
    halfway = by_the_paper(weights[0], h[0], first[0])
    diagonal = np.array([np.linalg.inv(h[0, j:, j:])[0, 0] for j in range(128, 256)])
    np.testing.assert_allclose(recorder.asked[1][1][0], halfway[:, 128:] ** 2 / diagonal, rtol=1e-6)
    for part in (slice(0, 128), slice(128, 256)):
        assert gone[0, :, part].sum() == 6 * 64
    np.testing.assert_allclose(found[0], by_the_paper(weights[0], h[0], gone[0]), atol=1e-9)


def test_groups_of_four_keep_the_two_that_cost_most() -> None:
    x, random = inputs(200, 40), np.random.default_rng(5)
    weights, h = random.standard_normal((1, 7, 40)), hessian(x)
    recorder = Recorder(GroupChooser(2, 4), [])
    found, gone = prune_columns(weights, inverse_factor(h), recorder)
    assert [start for start, _ in recorder.asked] == list(range(0, 40, 4))
    assert (gone.reshape(1, 7, 10, 4).sum(axis=3) == 2).all()
    for start, costs in recorder.asked:
        here = gone[:, :, start : start + 4]
        lost, left = np.where(here, costs, -1), np.where(here, np.inf, costs)
        assert (lost.max(axis=2) <= left.min(axis=2)).all()
    np.testing.assert_allclose(found[0], by_the_paper(weights[0], h[0], gone[0]), atol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(4, 1), (1, 4), (2, 3)])
def test_blocks_go_together(rows: int, columns: int) -> None:
    x, random = inputs(200, 36), np.random.default_rng(6)
    weights, h = random.standard_normal((2, 8, 36)), hessian(np.concatenate([x, x[:, ::-1]]))
    chooser = BlockChooser(BlockPattern(rows, columns), np.full(36, 0.75))
    found, gone = prune_columns(weights, inverse_factor(h), chooser)
    blocks = gone.reshape(2, 8 // rows, rows, 36 // columns, columns)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert gone.mean() == pytest.approx(0.75, abs=0.01)
    assert np.array_equal(found == 0, gone)


def test_weights_that_are_zero_stay_so_and_count() -> None:
    x, random = inputs(400, 256), np.random.default_rng(7)
    weights, h = random.standard_normal((1, 6, 256)), hessian(x)
    held = random.random(weights.shape) < 0.3
    weights[held] = 0
    chooser = ShareChooser(np.full(256, 0.5))
    # What the first block loses makes the zeros of the second something else for a while.
    found, gone = prune_columns(weights, inverse_factor(h), chooser, held=held)
    assert gone[held].all() and gone.sum() == 6 * 128
    assert np.array_equal(found == 0, gone)
    chooser = ShareChooser(np.full(256, 0.1))
    found, gone = prune_columns(weights, inverse_factor(h), chooser, held=held)
    assert np.array_equal(gone, held), "more zeros than wanted are no reason for other ones"
    np.testing.assert_allclose(found, weights, atol=1e-12)


def test_shares_of_inputs_are_met_in_sum() -> None:
    random = np.random.default_rng(8)
    shares = random.random(500)
    chooser = ShareChooser(shares)
    gone = 0
    for start in range(0, 500, 128):
        costs = random.random((2, 3, min(128, 500 - start)))
        chosen = chooser(start, costs)
        assert np.where(chosen, costs, 0).max() <= np.where(chosen, 1, costs).min()
        gone += chosen.sum()
        assert abs(gone - 6 * shares[: start + 128].sum()) <= 0.5
