"""Pruning of one layer alone, with what is left of it refitted on calibration samples."""

from __future__ import annotations

from ..model.model import Model
from ..pruning.plan import LayerPlan, apply_plan
from ..repair.frontier import advanced
from ..repair.refit import refit_layers
from ..repair.repair import Repairer, single_threaded_algebra

__all__ = ["Refitted"]


class Refitted:
    """Prunes one layer and fits its other weights to what it computed.

    All other layers are as they were, so that what comes into the layer is too.

    Args:
        repairer: Repairs prunings of the model.
    """

    def __init__(self, repairer: Repairer) -> None:
        self._repairer = repairer
        self._jobs = {job.layer.address: job for job in repairer.jobs.jobs}
        self._level, self._samples = 0, repairer.samples

    @property
    def reasons(self) -> dict[str, str]:
        """Why a layer is pruned without a refit, by its name."""
        return self._repairer.jobs.reasons

    def __call__(self, model: Model, plan: LayerPlan) -> Model:
        """The model with one layer pruned and refitted."""
        pruned = apply_plan(model, [plan])
        job = self._jobs.get(plan.layer.address)
        if job is None:
            return pruned
        repairer = self._repairer
        if job.level < self._level:  # samples cannot go back
            self._samples = repairer.samples
        self._level = job.level
        self._samples = advanced(model, self._samples, repairer.jobs.levels, job.level)
        with single_threaded_algebra():
            return refit_layers(pruned, [job], repairer.targets, self._samples)[0]
