"""Optimal Brain Surgeon, column by column: SparseGPT's algorithm on plain arrays.

Source: Frantar & Alistarh 2023, *SparseGPT: Massive Language Models Can Be Accurately Pruned in
One-Shot*, algorithm 1, after Hassibi & Stork 1993. A linear map ``y = x @ w.T`` loses weights one
input after the other; what each loss does to the outputs is made up for by the inputs that are
still to come. With ``H = x.T @ x`` and the upper triangular ``U`` of ``U.T @ U = inv(H)``, row j of
``U`` is row j of the inverse of what is left of H from j on, over the root of its first element:
losing weight w at j costs ``w**2 / U[j, j]**2``, and the later weights change by
``-w / U[j, j] * U[j, j+1:]``. All groups and outputs share the steps.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["DAMPENING", "Chooser", "damped", "inverse_factor", "losses", "prune_columns"]

#: Share of the mean of H's diagonal that is added to it.
DAMPENING = 0.01
#: Inputs between two updates of all later weights ("lazy batches").
BLOCK = 128


class Chooser(Protocol):
    """Decides which weights of a few neighbouring inputs go, when their turn comes."""

    @property
    def step(self) -> int:
        """Of how many inputs it decides at a time."""
        ...

    def __call__(self, start: int, losses: np.ndarray) -> np.ndarray:
        """Which weights go.

        Args:
            start: The first of the inputs.
            losses: What losing each weight costs [groups, outputs, inputs of the step]; negative
                where a weight must go.
        """
        ...


def damped(hessian: np.ndarray, dampening: float = DAMPENING) -> np.ndarray:
    """H with a share of its mean diagonal added; inputs that are always zero get 1 there.

    Args:
        hessian: Gram matrices [groups, inputs, inputs], float64.
        dampening: The share.
    """
    result = hessian.copy()
    diagonal = np.einsum("gkk->gk", result)
    dead = diagonal == 0
    diagonal += dampening * diagonal.mean(axis=1, keepdims=True)
    diagonal[dead & (diagonal == 0)] = 1.0
    return result


def inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """The upper triangular U with ``U.T @ U = inv(H)``, for each group.

    From one Cholesky decomposition: with the inputs in reverse order ``H = L @ L.T`` reads
    ``H = R @ R.T`` with R upper triangular, and then U is its inverse.

    Args:
        hessian: Positive definite matrices [groups, inputs, inputs], float64.
    """
    from scipy.linalg.lapack import dtrtri

    reverse = np.linalg.cholesky(hessian[:, ::-1, ::-1])[:, ::-1, ::-1]
    factor = np.empty(hessian.shape)
    for group, upper in enumerate(reverse):
        factor[group], failed = dtrtri(np.asfortranarray(upper), lower=0)
        assert not failed  # a Cholesky factor has no zero on its diagonal
    return np.triu(factor)


def losses(weights: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """What losing each weight costs in squared outputs, once those before it have gone.

    Args:
        weights: [groups, outputs, inputs].
        factor: U [groups, inputs, inputs].
    """
    diagonal = np.einsum("gkk->gk", factor)
    cost: np.ndarray = (weights / diagonal[:, None, :]) ** 2
    return cost


def prune_columns(
    weights: np.ndarray,
    factor: np.ndarray,
    choose: Chooser,
    *,
    held: np.ndarray | None = None,
    block: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights with those at zero that the chooser takes, and the others changed to make up.

    Args:
        weights: [groups, outputs, inputs], float64; left as they are.
        factor: U [groups, inputs, inputs]; see `inverse_factor`.
        choose: Which weights go, asked step by step with what earlier losses made of them.
        held: Weights that must be zero afterwards, whatever is chosen.
        block: Inputs between two updates of all later weights.

    Returns:
        The new weights, and which of them have gone.
    """
    weights = weights.copy()
    inputs = weights.shape[2]
    gone = np.zeros(weights.shape, bool)
    block = max(choose.step, block - block % choose.step)
    for start in range(0, inputs, block):
        stop = min(start + block, inputs)
        part = slice(start, stop)
        errors = _prune_block(weights, factor, choose, gone, held, start, stop)
        weights[:, :, stop:] -= errors @ factor[:, part, stop:]
    weights[gone] = 0.0
    return weights, gone


def _prune_block(
    weights: np.ndarray,
    factor: np.ndarray,
    choose: Chooser,
    gone: np.ndarray,
    held: np.ndarray | None,
    start: int,
    stop: int,
) -> np.ndarray:
    """Prune the inputs of one block in place; returns errors [groups, outputs, inputs]."""
    own = weights[:, :, start:stop].copy()
    local = np.ascontiguousarray(factor[:, start:stop, start:stop])
    errors = np.zeros(own.shape)
    for column in range(stop - start):
        if column % choose.step == 0:
            end = min(column + choose.step, stop - start)
            cost = losses(own[:, :, column:end], local[:, column:end, column:end])
            if held is not None:
                cost[held[:, :, start + column : start + end]] = -1.0  # they go before all others
            chosen = choose(start + column, cost)
            if held is not None:
                chosen = chosen | held[:, :, start + column : start + end]
            gone[:, :, start + column : start + end] = chosen
        lost = np.where(gone[:, :, start + column], own[:, :, column], 0.0)
        error = lost / local[:, None, column, column]
        own[:, :, column:] -= error[:, :, None] * local[:, None, column, column:]
        errors[:, :, column] = error
    weights[:, :, start:stop] = own
    return errors
