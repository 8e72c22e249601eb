"""What SparseGPT does to a single layer's linear map, narrow or wide."""

from __future__ import annotations

import numpy as np

from ..pattern import BlockPattern
from ..repair.jobs import Job
from ..repair.seen import OUTSIDE
from .choosers import BlockChooser, GroupChooser, SettledChooser, ShareChooser
from .columns import Columns, columns_of
from .inputs import Grams
from .mapped import scattered
from .obs import Chooser, damped, inverse_factor, prune_columns
from .wanted import Wanted, best

__all__ = ["WIDE_BLOCK", "pruned_map"]

#: Inputs of a block of a wide layer, about: a block of a pattern is not cut apart.
WIDE_BLOCK = 2048


def pruned_map(
    job: Job, weights: np.ndarray, inputs: Grams, wanted: Wanted, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a layer after SparseGPT, and which of them are zero [groups, outputs, inputs].

    Args:
        job: The layer.
        weights: Its weights [groups, outputs, inputs]; zeros stay.
        inputs: What it multiplies.
        wanted: The pattern, and what a group of N:M keeps.
        shares: The share of the weights of each input that goes [inputs].
    """
    columns = columns_of(job, wanted.pattern)
    order = columns.order
    held = (job.sites[0].positions == OUTSIDE) | (weights == 0)
    chooser = _chooser(job, weights, inputs, wanted, shares, columns)
    part = weights[:, :, order], held[:, :, order], chooser
    if inputs.matrix is not None:
        natural = wanted.pattern is None
        matrix = inputs.matrix if natural else inputs.matrix[:, order[:, None], order]
        factor = inverse_factor(damped(matrix))
        new, gone = prune_columns(part[0], factor, chooser, held=part[1])
    else:
        new, gone = _pruned_wide(*part, np.concatenate(inputs.rows, axis=1)[:, :, order])
    return columns.restored(new), columns.restored(gone)


def _chooser(
    job: Job,
    weights: np.ndarray,
    inputs: Grams,
    wanted: Wanted,
    shares: np.ndarray,
    columns: Columns,
) -> Chooser:
    """What decides on a layer's weights, in the order of `columns`."""
    if wanted.pattern is None:
        return ShareChooser(shares)
    if not columns.aligned:
        # A group that is no run of neighbours cannot be decided on when its turn comes.
        scores = scattered(job, np.abs(weights) * inputs.norms()[:, None, :], 0.0, np.float32)
        own = Wanted(float(shares.mean()), "layer", wanted.pattern)
        (kept,) = best([job.layer], [scores], own if wanted.groups is None else wanted)
        return SettledChooser(~kept.reshape(-1)[job.sites[0].positions[:, :, columns.order]])
    if wanted.groups is not None:
        return GroupChooser(wanted.groups.keep, wanted.groups.of)
    assert isinstance(wanted.pattern, BlockPattern)
    return BlockChooser(wanted.pattern, shares[columns.order])


def _pruned_wide(
    weights: np.ndarray, held: np.ndarray, choose: Chooser, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Prune a layer in blocks of inputs, each with its own Hessian.

    Args:
        weights: [groups, outputs, inputs].
        held: Weights that must be zero.
        choose: What goes.
        rows: The inputs [groups, rows, inputs].
    """
    new, gone = weights.copy(), np.zeros(weights.shape, bool)
    missing = np.zeros((*rows.shape[:2], weights.shape[1]))
    block = choose.step * max(1, WIDE_BLOCK // choose.step)
    for start in range(0, weights.shape[2], block):
        part = slice(start, start + block)
        x = rows[:, :, part].astype(np.float64)
        factor = inverse_factor(damped(x.swapaxes(1, 2) @ x))
        # What the errors so far leave, as far as these inputs explain it: inv(H) @ x.T @ missing.
        wished = factor.swapaxes(1, 2) @ (factor @ (x.swapaxes(1, 2) @ missing))
        own = weights[:, :, part] + np.where(held[:, :, part], 0.0, wished.swapaxes(1, 2))
        new[:, :, part], gone[:, :, part] = prune_columns(
            own, factor, _Shifted(choose, start), held=held[:, :, part]
        )
        missing += x @ (weights[:, :, part] - new[:, :, part]).swapaxes(1, 2)
    return new, gone


class _Shifted:
    """A chooser of all inputs, asked about those of a block."""

    def __init__(self, choose: Chooser, start: int) -> None:
        self.step = choose.step
        self._choose, self._start = choose, start

    def __call__(self, start: int, losses: np.ndarray) -> np.ndarray:
        return self._choose(self._start + start, losses)
