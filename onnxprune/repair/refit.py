"""Least-squares refit: the weights that are left, layer by layer, towards the unpruned model.

Each layer is fitted on the inputs that it gets in the pruned model, as repaired so far, so that it
makes up for what earlier layers lost. The fit is of the change of the weights, against the
difference between the two models' pre-activations: where there is none, nothing changes.
Source: sequential reconstruction as in Frantar and Alistarh, "SparseGPT" (2023), and He et al.,
"Channel Pruning for Accelerating Very Deep Neural Networks" (2017), without their updates by
approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from ..model.model import Model
from .gram import NOISE, PIECE, Fit, NormalSums, SampleRows, Sums
from .jobs import Job
from .linear import Linear, linear_of, placed
from .samples import Samples, check_values
from .targets import Observed, Targets, observed
from .writing import Edits

__all__ = ["RIDGE", "refit_layers"]

#: Ridge, as a share of the mean of the Gram matrix's diagonal.
RIDGE = 3e-3


def refit_layers(
    model: Model,
    jobs: Sequence[Job],
    targets: Targets,
    samples: Samples,
    *,
    ridge: float = RIDGE,
    rough: bool = False,
) -> tuple[Model, dict[str, Fit]]:
    """Refit layers that do not depend on each other.

    Args:
        model: The pruned model; zeros of its weights stay.
        jobs: The layers.
        targets: What the unpruned model computes.
        samples: Calibration samples.
        ridge: Pull towards the weights as they are, as a share of the Gram diagonal's mean.
        rough: Whether a few digits are enough.

    Returns:
        The model with refitted weights and biases, and each layer's fit by name.
    """
    targets.need(jobs)
    sums = {job: _sums(job, targets.rows(job)) for job in jobs}
    maps = {job: linear_of(model, job, samples, targets) for job in jobs}
    run = [job for job in jobs if maps[job] is None]
    shown = observed(model, run, samples, stack=targets.stack) if run else iter(())
    at_hand = placed([job for job in jobs if maps[job] is not None], samples, targets)
    for job, seen in chain(shown, at_hand):
        _add(sums[job], seen, targets.of(seen), maps[job], f"layer '{job.layer.name}'")
    fits: dict[str, Fit] = {}
    edits = Edits(model)
    for job in jobs:
        site, address = job.sites[0], job.layer.address
        fit = fits[job.layer.name] = sums.pop(job).fit(
            edits.alive(site, address), ridge, rough=rough
        )
        if fit.before <= NOISE:
            continue
        if fit.weights.any():
            edits.weights(site, address, factor=1.0, shift=fit.weights)
        if fit.bias.any():
            edits.bias(site, address, np.ones(len(fit.bias)), fit.bias)
    return edits.applied(), fits


def _sums(job: Job, rows: int) -> Sums:
    few = 2 * rows < job.shape[2]
    return (SampleRows if job.wide or few else NormalSums)(*job.shape, intercept=job.intercept)


def _add(sums: Sums, seen: Observed, target: np.ndarray, linear: Linear | None, place: str) -> None:
    """Count a batch in, piece by piece."""
    unfolding = seen.site.unfolding
    groups, _, inputs = seen.site.positions.shape
    _, each = unfolding.positions(seen.y)
    step = max(1, PIECE // (groups * inputs * each))
    made = target if linear else unfolding.targets(seen.y, seen.picks)
    shape = (groups, each, -1, target.shape[2])
    for start in range(0, len(seen.picks), step):
        part = slice(start, start + step)
        x = unfolding.rows(seen.x, seen.y.shape, seen.picks[part])
        wanted = _piece(target, shape, part)
        own = linear(x) if linear else _piece(made, shape, part)
        if linear:
            check_values(own, place)
        sums.add(x, wanted - own, wanted)


def _piece(rows: np.ndarray, shape: tuple[int, ...], part: slice) -> np.ndarray:
    """Rows of some picks: those of one sample lie together, picks are the second axis."""
    return rows.reshape(shape)[:, :, part].reshape(shape[0], -1, shape[-1])
