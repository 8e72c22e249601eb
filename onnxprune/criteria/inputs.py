"""What is known of the inputs of layers, gathered from batches as they pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..model.model import Model
from ..repair.gram import PIECE
from ..repair.jobs import Job
from ..repair.samples import Samples
from ..repair.targets import Observed, observed

__all__ = ["Grams", "grams", "norms"]


def norms(model: Model, jobs: Sequence[Job], samples: Samples, *, stack: bool) -> list[np.ndarray]:
    """The root mean square of every input [groups, inputs] of some layers.

    Args:
        model: The model that runs, in its working form.
        jobs: The layers.
        samples: What it is fed.
        stack: See `Taps`.
    """
    squares = {job: np.zeros((job.shape[0], job.shape[2])) for job in jobs}
    counts = dict.fromkeys(jobs, 0)
    for job, seen in observed(model, jobs, samples, stack=stack):
        for x in _pieces(seen):
            squares[job] += np.einsum("grk,grk->gk", x, x, dtype=np.float64)
            counts[job] += x.shape[1]
    return [np.sqrt(squares[job] / max(counts[job], 1)) for job in jobs]


@dataclass(eq=False)
class Grams:
    """The inputs of one layer, as SparseGPT needs them.

    Attributes:
        matrix: ``x.T @ x`` [groups, inputs, inputs]; None for a wide layer.
        rows: The inputs themselves [groups, rows, inputs] of a wide layer, in parts.
        count: Number of rows.
    """

    matrix: np.ndarray | None
    rows: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def add(self, x: np.ndarray) -> None:
        """Count rows in [groups, rows, inputs]."""
        self.count += x.shape[1]
        if self.matrix is None:
            self.rows.append(x.copy())
        elif len(x) == 1:
            # The two-dimensional product notices that both sides are one matrix: half the work.
            self.matrix[0] += x[0].T @ x[0]
        else:
            self.matrix += x.swapaxes(1, 2) @ x

    def norms(self) -> np.ndarray:
        """The norm of every input [groups, inputs]."""
        if self.matrix is not None:
            squares = np.einsum("gkk->gk", self.matrix)
        else:
            parts = [np.einsum("grk,grk->gk", x, x, dtype=np.float64) for x in self.rows]
            squares = np.sum(parts, axis=0)
        found: np.ndarray = np.sqrt(squares)
        return found


def grams(model: Model, jobs: Sequence[Job], samples: Samples, *, stack: bool) -> dict[Job, Grams]:
    """Gram matrices of the inputs of some layers, or their rows; arguments as for `norms`."""
    found = {
        job: Grams(None if job.wide else np.zeros((job.shape[0], job.shape[2], job.shape[2])))
        for job in jobs
    }
    for job, seen in observed(model, jobs, samples, stack=stack):
        for x in _pieces(seen):
            found[job].add(x)
    return found


def _pieces(seen: Observed) -> Iterator[np.ndarray]:
    """Inputs [groups, rows, inputs] at the picked positions of one batch, a part at a time."""
    groups, _, inputs = seen.site.positions.shape
    _, each = seen.site.unfolding.positions(seen.y)
    step = max(1, PIECE // max(groups * inputs * each, 1))
    for start in range(0, len(seen.picks), step):
        picks = seen.picks[start : start + step]
        yield seen.site.unfolding.rows(seen.x, seen.y.shape, picks)
