"""SparseGPT on the layers of a model, each on the inputs that the pruned ones before it give.

Source: Frantar & Alistarh 2023, *SparseGPT: Massive Language Models Can Be Accurately Pruned in
One-Shot*. The numbers are in `obs`, what a single layer goes through is in `layerwise`; here is how
much each layer loses. Each loses the same share (the paper), or all of them share one ranking:
that is Wanda's. The losses of `obs` say what a weight costs if it goes alone, and inputs that could
each be done without cannot all be: a ranking by them strips whole layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..model.model import Model
from ..model.tensors import TensorAddress
from ..repair.jobs import Job
from ..repair.repair import single_threaded_algebra
from ..repair.samples import Samples
from ..repair.seen import OUTSIDE
from ..repair.writing import rewritten, rounded
from .cut import Cut
from .inputs import grams
from .layerwise import pruned_map
from .mapped import scattered, weights_of_map
from .wanda import global_scores
from .wanted import Wanted, best

__all__ = ["SparseGptCut"]

#: Shares of the weights of each input that go [inputs], by layer.
Shares = Mapping[TensorAddress, np.ndarray]


class SparseGptCut(Cut):
    """Prunes a model, in its working form, to a share of zeros; zeros stay."""

    def __call__(self, model: Model, share: float) -> Model:
        """The model with this share of zeros."""
        wanted = replace(self.wanted, share=share)
        jobs = self.jobs()
        shares = self._shares(model, jobs, wanted)

        def prune(worked: Model, level: Sequence[Job], samples: Samples) -> Model:
            return self._level(worked, level, samples, wanted, shares)

        with single_threaded_algebra():
            return self.by_level(model, jobs, wanted, prune, stage="sparsegpt (layers)")

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
