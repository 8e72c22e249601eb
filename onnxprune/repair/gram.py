"""What a least-squares fit needs to know of a layer, gathered from batches as they pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from .solve import ROUGH, block_deltas, normal_deltas, rough_deltas, sample_deltas, sample_work

__all__ = ["Fit", "NormalSums", "SampleRows", "Sums"]

#: Numbers that are laid out and multiplied at a time.
PIECE = 2**22
#: How much slower a decomposition is than a product of as many multiplications, and
#: multiplications that could be done while one is prepared.
SLOWER, EACH = 6, 2e6
#: Squared difference of pre-activations, over their squared deviation, that is rounding.
NOISE = 1e-11
#: Multiplications up to which wide layers are solved exactly, and not in blocks.
SAMPLE_WORK = 4e11


@dataclass(frozen=True, eq=False)
class Fit:
    """What a repair found for one layer.

    Attributes:
        weights: Changes of weights [groups, outputs, inputs], or factors [groups, outputs].
        bias: Changes of the biases [groups x outputs]; zero where they are fixed.
        before: Squared difference of the pre-activations from those of the unpruned model, over
            the squared deviation of those from their means.
        after: The same with the changes; None where it is not known.
        variance: Of the inputs [groups, inputs], where a fit looked at them.
    """

    weights: np.ndarray
    bias: np.ndarray
    before: float
    after: float | None
    variance: np.ndarray | None = None


class _Spread:
    """Squared deviation of the targets from their means."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | None = None
        self.squares = 0.0

    def add(self, y: np.ndarray) -> None:
        wide = y.astype(np.float64, copy=False)
        total = wide.sum(axis=1)
        self.total = total if self.total is None else self.total + total
        self.squares += float(np.einsum("grm,grm->", wide, wide))
        self.count += y.shape[1]

    @property
    def value(self) -> float:
        if self.total is None:
            return 0.0
        return max(self.squares - float((self.total**2).sum()) / self.count, 0.0)


class NormalSums:
    """Normal equations: sums over rows of ``x.T @ x`` and ``x.T @ r``, in float64.

    Products of one piece are computed in the data's own type: its rounding errors stay within the
    piece and do not grow with the number of rows.

    Args:
        groups: Groups of the layer.
        outputs: Outputs of a group.
        inputs: Inputs of a group.
        intercept: Whether biases change too.
    """

    def __init__(self, groups: int, outputs: int, inputs: int, *, intercept: bool) -> None:
        self.intercept = intercept
        self.gram = np.zeros((groups, inputs, inputs))
        self.cross = np.zeros((groups, inputs, outputs))
        self.x_sum = np.zeros((groups, inputs))
        self.r_sum = np.zeros((groups, outputs))
        self.r_squares = np.zeros((groups, outputs))
        self.spread = _Spread()
        self.count = 0

    def add(self, x: np.ndarray, residual: np.ndarray, y: np.ndarray) -> None:
        """Count in rows: inputs [groups, rows, inputs], residuals and targets [..., outputs]."""
        turned = x.swapaxes(1, 2)
        if len(x) == 1:
            # The two-dimensional product notices that both sides are one matrix: half the work.
            self.gram[0] += x[0].T @ x[0]
        else:
            self.gram += turned @ x
        self.cross += turned @ residual
        wide = residual.astype(np.float64, copy=False)
        self.x_sum += x.sum(axis=1, dtype=np.float64)
        self.r_sum += wide.sum(axis=1)
        self.r_squares += np.einsum("grm,grm->gm", wide, wide)
        self.spread.add(y)
        self.count += x.shape[1]

    def fit(self, alive: np.ndarray, strength: float, *, rough: bool = False) -> Fit:
        """The fit over the weights that are alive [groups, outputs, inputs].

        The ridge is `strength` times the mean of the Gram matrix's diagonal, group by group.
        Where few digits are enough, a `rough` one is quicker.
        """
        gram, cross, squares = self.gram, self.cross, self.r_squares
        if self.intercept and self.count:
            mean = self.x_sum / self.count
            gram = gram - self.x_sum[:, :, None] * mean[:, None, :]
            cross = cross - mean[:, :, None] * self.r_sum[:, None, :]
            squares = squares - self.r_sum**2 / self.count
        diagonal = np.einsum("gkk->gk", gram)
        ridge = strength * diagonal.mean(axis=1) + np.finfo(np.float64).tiny
        delta = (_rough if rough else normal_deltas)(gram, cross, alive, ridge)
        bias = np.zeros(self.r_sum.shape)
        if self.intercept and self.count:
            bias = (self.r_sum - np.einsum("gmk,gk->gm", delta, self.x_sum)) / self.count
        spread = self.spread.value or 1.0
        as_before = _rounding(self.r_squares, spread)
        delta[as_before], bias[as_before] = 0.0, 0.0
        explained = 2 * np.einsum("gmk,gkm->gm", delta, cross)
        explained -= np.einsum("gmk,gmk->gm", delta @ gram, delta)
        after = max(float((squares - explained).sum()), 0.0)
        before = float(self.r_squares.sum())
        return Fit(delta, bias.reshape(-1), before / spread, after / spread, self._variance())

    def _variance(self) -> np.ndarray:
        count = max(self.count, 1)
        squares = np.einsum("gkk->gk", self.gram) / count
        found: np.ndarray = np.maximum(squares - (self.x_sum / count) ** 2, 0.0)
        return found


class SampleRows:
    """The rows themselves, for a layer with more inputs than rows: no inputs x inputs matrix."""

    def __init__(self, groups: int, outputs: int, inputs: int, *, intercept: bool) -> None:
        self.intercept = intercept
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self.spread = _Spread()

    def add(self, x: np.ndarray, residual: np.ndarray, y: np.ndarray) -> None:
        """Keep rows: inputs [groups, rows, inputs], residuals and targets [..., outputs]."""
        self._parts.append((x.copy(), residual.copy()))
        self.spread.add(y)

    def fit(self, alive: np.ndarray, strength: float, *, rough: bool = False) -> Fit:
        """The fit over the weights that are alive; see `NormalSums.fit`."""
        x = np.concatenate([x for x, _ in self._parts], axis=1)
        residual = np.concatenate([r for _, r in self._parts], axis=1).astype(np.float64)
        self._parts = []
        squares = np.einsum("grm,grm->gm", residual, residual)
        spread = self.spread.value or 1.0
        as_before = _rounding(squares, spread)
        variance = x.var(axis=1, dtype=np.float64)
        shift, offset = x.mean(axis=1, dtype=np.float64), residual.mean(axis=1)
        if self.intercept:
            x -= shift[:, None].astype(x.dtype)
            residual = residual - offset[:, None]
        delta = np.zeros(alive.shape)
        after = 0.0
        for group, rows in enumerate(x):
            total = float(np.einsum("rk,rk->", rows, rows, dtype=np.float64))
            ridge = strength * total / rows.shape[1] + np.finfo(np.float64).tiny
            cheap = sample_work(alive[group], len(rows)) <= SAMPLE_WORK
            solve = _rough_samples if rough else sample_deltas if cheap else block_deltas
            delta[group] = solve(rows, residual[group], alive[group], ridge)
            delta[group, as_before[group]] = 0.0
            after += float(((residual[group] - rows @ delta[group].T) ** 2).sum())
        bias = np.zeros(offset.shape)
        if self.intercept:
            bias = np.where(as_before, 0.0, offset - np.einsum("gmk,gk->gm", delta, shift))
        before = float(squares.sum())
        return Fit(delta, bias.reshape(-1), before / spread, after / spread, variance)


def _rounding(squares: np.ndarray, spread: float) -> np.ndarray:
    """Outputs that differ from the unpruned model's no more than two runs of one model may."""
    found: np.ndarray = squares <= NOISE * spread / squares.size
    return found


Sums = NormalSums | SampleRows


def _rough(gram: np.ndarray, cross: np.ndarray, alive: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """`normal_deltas`, roughly where that is quicker."""
    sizes = alive.sum(axis=2).astype(float)
    # Counted in multiplications of a large product: decompositions get fewer of them done.
    exact = (SLOWER * sizes**3 / 3 + EACH).sum(axis=1)
    quicker = exact > 2 * ROUGH * alive.shape[1] * alive.shape[2] ** 2
    delta = np.zeros(alive.shape)
    for group in range(len(gram)):
        own = slice(group, group + 1)
        if quicker[group]:
            matrix = gram[group].astype(np.float32)
            right = cross[group].T.astype(np.float32)
            delta[group] = rough_deltas(
                partial(np.matmul, matrix), np.diagonal(matrix), right, alive[group], ridge[group]
            )
        else:
            delta[own] = normal_deltas(gram[own], cross[own], alive[own], ridge[own])
    return delta


def _rough_samples(
    x: np.ndarray, residual: np.ndarray, alive: np.ndarray, ridge: float
) -> np.ndarray:
    """`sample_deltas`, roughly."""
    return rough_deltas(
        lambda way: x.T @ (x @ way),
        np.einsum("rk,rk->k", x, x),
        residual.T.astype(x.dtype) @ x,
        alive,
        ridge,
    )
