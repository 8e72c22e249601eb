"""SparseGPT on the layers of a model, each on the inputs that the pruned ones before it give.

Source: Frantar & Alistarh 2023, *SparseGPT: Massive Language Models Can Be Accurately Pruned in
One-Shot*. The numbers are in `obs`, what a single layer goes through is in `layerwise`; here is how
much each layer loses. Each loses the same share (the paper), or all of them share one ranking:
that is Wanda's. The losses of `obs` say what a weight costs if it goes alone, and inputs that could
each be done without cannot all be: a ranking by them strips whole layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.layer import Layer
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..pruning.plan import Progress
from ..repair.gram import Fit
from ..repair.jobs import Job
from ..repair.repair import Repairer, single_threaded_algebra
from ..repair.samples import Samples
from ..repair.seen import OUTSIDE
from ..repair.writing import rewritten, rounded
from .inputs import grams
from .layerwise import pruned_map
from .mapped import scattered, weights_of_map
from .wanda import global_scores
from .wanted import Wanted, best, least_by_magnitude

__all__ = ["SparseGptCut"]

#: Shares of the weights of each input that go [inputs], by layer.
Shares = Mapping[TensorAddress, np.ndarray]


@dataclass(frozen=True, eq=False)
class SparseGptCut:
    """Prunes a model, in its working form, to a share of zeros; zeros stay.

    Attributes:
        repairer: Knows the layers whose inputs can be seen, and the samples.
        layers: The layers that are pruned, of floats.
        wanted: How much goes in the end; the scope and the pattern count.
        progress: Told of the layers done.
    """

    repairer: Repairer
    layers: Sequence[Layer]
    wanted: Wanted
    progress: Progress | None = None

    def __call__(self, model: Model, share: float) -> Model:
        """The model with this share of zeros."""
        wanted = replace(self.wanted, share=share)
        own = {layer.address for layer in self.layers}
        jobs = [job for job in self.repairer.jobs.jobs if job.layer.address in own]
        seen = {job.layer.address for job in jobs}
        others = [layer for layer in self.layers if layer.address not in seen]
        shares = self._shares(model, jobs, wanted)
        model = least_by_magnitude(model, others, replace(wanted, scope="layer"))

        def step(
            worked: Model, level: tuple[Job, ...], samples: Samples
        ) -> tuple[Model, dict[str, Fit]]:
            chosen = [job for job in level if job.layer.address in seen]
            return self._level(worked, chosen, samples, wanted, shares), {}

        with single_threaded_algebra():
            return self.repairer.sweep(
                model, step, stage="sparsegpt (layers)", progress=self.progress
            )[0]

    def _shares(self, model: Model, jobs: Sequence[Job], wanted: Wanted) -> Shares:
        """How much of each input goes."""
        if wanted.scope == "layer" or wanted.groups is not None:
            return {
                job.layer.address: np.full(job.shape[2], wanted.share, np.float64) for job in jobs
            }
        layers = [job.layer for job in jobs]
        kept = best(layers, global_scores(self.repairer, model, layers, jobs), wanted)
        return {
            job.layer.address: _of_map(job, ~stays).mean(axis=(0, 1))
            for job, stays in zip(jobs, kept, strict=True)
        }

    def _level(
        self,
        model: Model,
        jobs: Sequence[Job],
        samples: Samples,
        wanted: Wanted,
        shares: Shares,
    ) -> Model:
        """Prune layers that do not depend on each other."""
        if not jobs:
            return model
        found = grams(model, jobs, samples, stack=self.repairer.jobs.stackable)
        changed: dict[TensorAddress, np.ndarray] = {}
        for job in jobs:
            address = job.layer.address
            before = weights_of_map(model, job)
            after, gone = pruned_map(job, before, found.pop(job), wanted, shares[address])
            if (gone & (before != 0)).any():
                changed[address] = _stored(model, job, after, gone)
        return rewritten(model, changed)


def _of_map(job: Job, stored: np.ndarray) -> np.ndarray:
    """Booleans of the stored tensor at the weights of the map; False for those of others."""
    positions = job.sites[0].positions
    found: np.ndarray = stored.reshape(-1)[positions] & (positions != OUTSIDE)
    return found


def _stored(model: Model, job: Job, weights: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """The stored tensor with the weights of the map, flat, in its storage type."""
    old = model.payload(model.tensors[job.layer.address]).array()
    values = scattered(job, weights, 0.0).reshape(-1)
    mapped = scattered(job, np.ones((), bool), False).reshape(-1)
    kept = scattered(job, ~gone, False).reshape(-1)
    new = rounded(values, old.dtype, kept)
    return np.where(mapped, new, old)
