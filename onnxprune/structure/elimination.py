"""Backward elimination: which channel the layers that read it can do without most easily, and next.

A layer that loses inputs can make up for them with those that it keeps, as far as these say the
same. With H the covariance of its inputs, W its weights and P the inverse of H, losing the inputs J
costs ``tr(W_J^T P_JJ^-1 W_J)`` of its outputs' variance after the best correction, which is
``W - P_:J P_JJ^-1 W_J``; then P loses J by the same step. Sources: Hassibi and Stork, "Second order
derivatives for network pruning: Optimal Brain Surgeon" (1993), for blocks of weights; elimination
channel by channel as in Luo et al., "ThiNet" (2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Elimination", "Reader", "eliminate"]

#: Ridge, as a share of each input's own variance, and of the mean over all inputs of a layer: what
#: never varies is free to go, and what hardly does can be divided by.
RIDGE, LEAST_RIDGE = 1e-2, 1e-6
#: Most steps of an elimination: larger groups lose several channels in each.
STEPS = 128


class Reader:
    """One layer that sums over the channels of a group, while they go.

    Args:
        weights: Its linear map [groups, inputs, outputs].
        variance: Variances of its inputs [groups, inputs].
        covariance: Their covariances [groups, inputs, inputs]; None: inputs count as independent.
        columns: Inputs that go with each channel [channels, inputs of one].
    """

    def __init__(
        self,
        weights: np.ndarray,
        variance: np.ndarray,
        covariance: np.ndarray | None,
        columns: np.ndarray,
    ) -> None:
        self.weights = weights.copy()
        self.original = weights
        self.columns = columns
        least = LEAST_RIDGE * variance.mean(axis=1, keepdims=True) + np.finfo(np.float64).tiny
        ridge = RIDGE * variance + least
        spread = float(np.einsum("gk,gkm,gkm->", variance, weights, weights))
        if covariance is None:
            self._inverse = None
            powers = (variance + ridge) * np.square(weights).sum(axis=2)
            self._costs = powers[:, columns].sum(axis=(0, 2))
        else:
            spread = float(np.einsum("gkm,gkl,glm->", weights, covariance, weights, optimize=True))
            diagonal = np.eye(covariance.shape[1]) * ridge[:, None, :]
            self._inverse = np.linalg.inv(covariance + diagonal)
        self.spread = spread if spread > 0 else 1.0

    def costs(self, channels: np.ndarray) -> np.ndarray:
        """Share of the outputs' variance that each of these channels costs by itself."""
        if self._inverse is None:
            return np.asarray(self._costs[channels]) / self.spread
        columns = self.columns[channels]
        weights = self.weights[:, columns]
        blocks = self._inverse[:, columns[:, :, None], columns[:, None, :]]
        solved = weights / blocks if columns.shape[1] == 1 else np.linalg.solve(blocks, weights)
        return np.asarray(np.einsum("garm,garm->a", weights, solved) / self.spread)

    def remove(self, channels: np.ndarray) -> None:
        """Let channels go, and the weights of the others make up for them."""
        columns = self.columns[channels].reshape(-1)
        if self._inverse is None:
            self.weights[:, columns] = 0
            return
        across = self._inverse[:, columns]
        right = np.concatenate([across, self.weights[:, columns]], axis=2)
        solved = np.linalg.solve(across[:, :, columns], right)
        down = self._inverse[:, :, columns]
        inputs = self._inverse.shape[1]
        self._inverse -= down @ solved[:, :, :inputs]
        self.weights -= down @ solved[:, :, inputs:]
        self.weights[:, columns] = 0

    @property
    def change(self) -> np.ndarray:
        """Change of the linear map so far [groups, outputs, inputs]."""
        return np.asarray((self.weights - self.original).swapaxes(1, 2))


@dataclass(frozen=True, eq=False)
class Elimination:
    """In which order channels go.

    Attributes:
        order: Channels, the first to go first.
        losses: What each costs when its turn comes [channels], in the order of the channels;
            rising along `order`.
        changes: When `stop` of them were gone, the change of every reader's linear map [groups,
            outputs, inputs].
    """

    order: np.ndarray
    losses: np.ndarray
    changes: tuple[np.ndarray, ...]


def eliminate(size: int, readers: Sequence[Reader], stop: int) -> Elimination:
    """Let all channels of a group go, those first that cost its readers least.

    Args:
        size: Number of channels.
        readers: The layers that sum over them; their weights change.
        stop: Number of channels that are gone when changes are kept.
    """
    alive = np.ones(size, bool)
    order: list[int] = []
    losses = np.zeros(size)
    changes: tuple[np.ndarray, ...] = ()
    step = max(1, -(-size // STEPS))
    while len(order) < size:
        if len(order) == stop:
            changes = tuple(reader.change for reader in readers)
        channels = np.flatnonzero(alive)
        costs = sum((reader.costs(channels) for reader in readers), np.zeros(len(channels)))
        most = min(step, stop - len(order)) if len(order) < stop else step
        chosen = channels[np.argsort(costs, kind="stable")[:most]]
        losses[chosen] = np.maximum(np.sort(costs)[: len(chosen)], 0.0)
        for reader in readers:
            reader.remove(chosen)
        alive[chosen] = False
        order += chosen.tolist()
    placed = np.array(order, np.int64)
    losses[placed] = np.maximum.accumulate(losses[placed])
    return Elimination(placed, losses, changes)
