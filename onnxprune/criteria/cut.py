"""A cut that prunes layer by layer, each on the inputs that the pruned ones before it give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..graph.layer import Layer
from ..model.model import Model
from ..pruning.plan import Progress
from ..repair.gram import Fit
from ..repair.jobs import Job
from ..repair.repair import Repairer
from ..repair.samples import Samples
from .wanted import Wanted, least_by_magnitude

__all__ = ["Cut", "PruneLevel"]

#: Prunes layers that do not depend on each other.
PruneLevel = Callable[[Model, Sequence[Job], Samples], Model]


@dataclass(frozen=True, eq=False)
class Cut:
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

    def jobs(self) -> list[Job]:
        """The layers whose inputs can be seen."""
        own = {layer.address for layer in self.layers}
        return [job for job in self.repairer.jobs.jobs if job.layer.address in own]

    def by_level(
        self, model: Model, jobs: Sequence[Job], wanted: Wanted, prune: PruneLevel, *, stage: str
    ) -> Model:
        """Prune the layers of `jobs` level by level, the others by magnitude."""
        seen = {job.layer.address for job in jobs}
        others = [layer for layer in self.layers if layer.address not in seen]
        model = least_by_magnitude(model, others, replace(wanted, scope="layer"))

        def step(
            worked: Model, level: tuple[Job, ...], samples: Samples
        ) -> tuple[Model, dict[str, Fit]]:
            chosen = [job for job in level if job.layer.address in seen]
            return prune(worked, chosen, samples), {}

        return self.repairer.sweep(model, step, stage=stage, progress=self.progress)[0]
