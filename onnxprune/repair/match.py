"""Mean and standard deviation of every channel brought back to what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..model.model import Model
from .gram import Fit
from .jobs import Job
from .samples import Samples
from .targets import Targets, observed
from .writing import Edits

__all__ = ["CLIP", "Moments", "Pair", "match_layers"]

#: The least and the most that a channel is scaled by.
CLIP = (0.2, 5.0)


@dataclass(eq=False)
class Moments:
    """Count, mean and squared deviation of channels, over batches (Chan et al., 1983)."""

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, rows: np.ndarray) -> None:
        """Count rows in [groups, rows, channels]."""
        wide = rows.astype(np.float64, copy=False)
        mean = wide.mean(axis=1)
        squares = ((wide - mean[:, None]) ** 2).sum(axis=1)
        count = self.count + wide.shape[1]
        apart = mean - self.mean
        self.squares = self.squares + squares + apart**2 * self.count * wide.shape[1] / count
        self.mean = self.mean + apart * wide.shape[1] / count
        self.count = count

    @property
    def std(self) -> np.ndarray:
        """Standard deviation [groups, channels]."""
        std: np.ndarray = np.sqrt(self.squares / max(self.count, 1))
        return std


class Pair:
    """The same outputs in the pruned and the unpruned model."""

    def __init__(self) -> None:
        self.own, self.wanted, self.apart = Moments(), Moments(), Moments()
        self.squares = 0.0

    def add(self, own: np.ndarray, wanted: np.ndarray) -> None:
        """Count rows in [groups, rows, channels]."""
        apart = wanted.astype(np.float64) - own
        self.own.add(own)
        self.wanted.add(wanted)
        self.apart.add(apart)
        self.squares += float((apart**2).sum())

    def scale(self) -> np.ndarray:
        """What each channel is scaled by [groups, channels]; constant ones keep their scale."""
        moving = self.own.std > 1e-12 * (1 + np.abs(self.own.mean))
        scale = np.where(moving, self.wanted.std / np.where(moving, self.own.std, 1.0), 1.0)
        clipped: np.ndarray = np.clip(scale, *CLIP)
        return clipped

    def errors(self, scale: np.ndarray, *, shifted: bool) -> tuple[float, float | None]:
        """Squared difference over the wanted spread, before and after; None: not known."""
        own, wanted, apart = self.own.squares, self.wanted.squares, self.apart.squares
        spread = float(wanted.sum()) or 1.0
        if not shifted:
            return self.squares / spread, None
        # Twice the covariance is what the two spreads have more than that of the difference.
        after = scale**2 * own + wanted - scale * (own + wanted - apart)
        return self.squares / spread, max(float(after.sum()), 0.0) / spread


def match_layers(
    model: Model, jobs: Sequence[Job], targets: Targets, samples: Samples
) -> tuple[Model, dict[str, Fit]]:
    """Scale and shift every output of layers that do not depend on each other.

    Weights and biases take up scale and shift, so that each output has the mean and the standard
    deviation that it has in the unpruned model. Scales are kept within `CLIP`. Outputs whose bias
    cannot change are only scaled.

    Args:
        model: The pruned model.
        jobs: The layers.
        targets: What the unpruned model computes.
        samples: Calibration samples.

    Returns:
        The model, and each layer's scales, shifts and errors by name.
    """
    targets.need(jobs)
    pairs = {job: Pair() for job in jobs}
    for job, seen in observed(model, jobs, samples, stack=targets.stack, inputs=False):
        pairs[job].add(seen.site.unfolding.targets(seen.y, seen.picks), targets.of(seen))
    edits = Edits(model)
    fits: dict[str, Fit] = {}
    for job in jobs:
        site, address, pair = job.sites[0], job.layer.address, pairs[job]
        scale = pair.scale()
        shift = (pair.wanted.mean - scale * pair.own.mean).reshape(-1)
        fits[job.layer.name] = Fit(scale, shift, *pair.errors(scale, shifted=job.intercept))
        edits.weights(site, address, factor=scale[:, :, None], shift=0.0)
        if job.intercept:
            # The output of a MatMul does not hold its bias yet.
            inside = np.ones(shift.shape) if site.node.op_type == "MatMul" else scale.reshape(-1)
            edits.bias(site, address, inside, shift)
    return edits.applied(), fits
