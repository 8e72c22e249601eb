"""How many samples the quick parts of a pruning look at: fewer where each takes long.

The steps of a pruning only say which weights go next, for which a part of the samples tells enough
where a layer is used at many positions of each. What they may take is bounded, so that models of
hundreds of millions of multiplications are pruned in seconds as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from ..model.model import Model
from .jobs import Job
from .samples import Samples
from .targets import observed
from .unfold import ConvUnfolding

__all__ = ["Effort", "effort_of"]

#: Share of the samples for a rough refit of a model with convolutions, and most samples that
#: influences are measured on there: they average over positions.
PART, CONVOLVED = 0.5, 128
#: Multiplications that a run of the layers may take on all samples of a rough refit, or of a
#: measurement of influences, and samples that those have whatever they take.
WORK, LEAST = 2**33, 32
#: Most steps where even the least samples take more.
STEPS = 5


@dataclass(frozen=True)
class Effort:
    """Samples of the quick parts.

    Attributes:
        rough: For rough refits.
        influence: For influences.
        held: Others, as many as for influences, on which rough refits can be compared; None where
            those see all samples.
        steps: Most steps that a pruning takes; None: as many as it wants.
    """

    rough: Samples
    influence: Samples
    held: Samples | None
    steps: int | None = None


def effort_of(model: Model, jobs: Sequence[Job], samples: Samples, *, stack: bool) -> Effort:
    """How many of the samples the steps of a pruning see.

    Args:
        model: The model.
        jobs: The layers.
        samples: All samples.
        stack: See `Taps`.
    """
    each = max(_work(model, jobs, samples, stack), 1.0)
    is_convolved = any(isinstance(s.unfolding, ConvUnfolding) for job in jobs for s in job.sites)
    rough = samples.count * PART if is_convolved else samples.count
    influence = CONVOLVED if is_convolved else samples.count
    seen = _first(samples, max(min(rough, WORK / each), LEAST))
    few = max(min(influence, WORK / each), LEAST)
    used = len(seen.sizes)
    rest = replace(samples, batches=samples.batches[used:], sizes=samples.sizes[used:])
    held = _first(rest, few) if rest.sizes else None
    return Effort(seen, _first(samples, few), held, STEPS if each * LEAST > WORK else None)


def _work(model: Model, jobs: Sequence[Job], samples: Samples, stack: bool) -> float:
    """Multiplications that the layers do for each sample, from a run of one batch."""
    if not jobs:
        return 0.0
    one = _first(samples, 1)
    seen = observed(model, jobs, one, stack=stack, inputs=False)
    return sum(float(use.y.size) * job.shape[2] for job, use in seen) / sum(one.sizes)


def _first(samples: Samples, wanted: float) -> Samples:
    """The first batches that hold this many samples.

    Their count stays, by which the positions are chosen that targets are kept of.
    """
    enough = (n for n, held in enumerate(accumulate(samples.sizes), 1) if held >= wanted)
    part = next(enough, len(samples.sizes))
    return replace(samples, batches=samples.batches[:part], sizes=samples.sizes[:part])
