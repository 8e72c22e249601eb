"""Wanda: the least products of a weight's magnitude and the norm of its input go.

Source: Sun et al. 2023, *A Simple and Effective Pruning Approach for Large Language Models*:
weights are compared within each output (equation 1 and section 3), layers are pruned one after
the other on the inputs that the pruned ones before them give. Between layers the products say
nothing as they are, since layers differ in the scale of their inputs: there, norms count in the
root mean square of their layer's norms, so that weights whose inputs are all alike compare by
magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..graph.layer import Layer
from ..model.model import Model
from ..repair.jobs import Job
from ..repair.repair import Repairer
from ..repair.samples import Samples
from .cut import Cut
from .inputs import norms
from .mapped import scattered, weights_of_map
from .wanted import Wanted, best, magnitudes, without

__all__ = ["WandaCut", "global_scores", "rows_kept"]


class WandaCut(Cut):
    """Prunes a model, in its working form, to a share of zeros; zeros stay."""

    def __call__(self, model: Model, share: float) -> Model:
        """The model with this share of zeros."""
        wanted = replace(self.wanted, share=share)
        jobs = self.jobs()
        if wanted.scope == "global" and wanted.groups is None:
            return self._together(model, jobs, wanted)

        def prune(worked: Model, level: Sequence[Job], samples: Samples) -> Model:
            return self._each(worked, level, samples, wanted)

        return self.by_level(model, jobs, wanted, prune, stage="wanda (layers)")

    def _together(self, model: Model, jobs: Sequence[Job], wanted: Wanted) -> Model:
        """Prune all layers by one ranking."""
        kept = best(self.layers, global_scores(self.repairer, model, self.layers, jobs), wanted)
        return without(
            model, {layer.address: stays for layer, stays in zip(self.layers, kept, strict=True)}
        )

    def _each(self, model: Model, jobs: Sequence[Job], samples: Samples, wanted: Wanted) -> Model:
        """Prune layers, each by itself."""
        if not jobs:
            return model
        found = norms(model, jobs, samples, stack=self.repairer.jobs.stackable)
        kept = {}
        for job, norm in zip(jobs, found, strict=True):
            scores = np.abs(weights_of_map(model, job)) * norm[:, None, :]
            if wanted.pattern is None:
                stays = scattered(job, rows_kept(scores, wanted.share), True)
            else:
                (stays,) = best([job.layer], [scattered(job, scores, 0.0, np.float32)], wanted)
            kept[job.layer.address] = stays
        return without(model, kept)


def global_scores(
    repairer: Repairer, model: Model, layers: Sequence[Layer], jobs: Sequence[Job]
) -> list[np.ndarray]:
    """Scores by which weights of different layers compare, in the stored shapes.

    Args:
        repairer: Knows the samples.
        model: The model that runs, in its working form.
        layers: The layers; those that are no job have their magnitudes.
        jobs: The layers whose inputs can be seen.
    """
    found = norms(model, jobs, repairer.samples, stack=repairer.jobs.stackable)
    relative = {
        job.layer.address: scattered(job, _relative(norm)[:, None, :], 1.0, np.float32)
        for job, norm in zip(jobs, found, strict=True)
    }
    return [
        magnitudes(model, layer) * relative.get(layer.address, np.float32(1)) for layer in layers
    ]


def rows_kept(scores: np.ndarray, share: float) -> np.ndarray:
    """Which inputs every output keeps: those of highest score [groups, outputs, inputs]."""
    count = round(share * scores.shape[2])
    order = np.argsort(scores, axis=2, kind="stable")
    kept = np.ones(scores.shape, bool)
    np.put_along_axis(kept, order[:, :, :count], False, axis=2)
    return kept


def _relative(norm: np.ndarray) -> np.ndarray:
    """Norms in their root mean square; all one where every input is zero."""
    whole = float(np.sqrt(np.mean(norm**2)))
    return norm / whole if whole > 0 else np.ones_like(norm)
