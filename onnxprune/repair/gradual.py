"""Pruning in steps, with a repair after each: what is left can adapt before more goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from ..data.source import BatchSource
from ..errors import UsageError
from ..graph.layer import Layer
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..pruning.floating import FLOAT_DTYPES
from ..pruning.plan import LayerPlan, Progress, apply_plan
from .gains import BATCHES, OutputProbe, layer_gains, with_gains
from .gram import Fit
from .influence import Influence, influence_of
from .jobs import Job
from .refit import RIDGE
from .repair import SAMPLES, Repaired, Repairer, single_threaded_algebra
from .samples import Samples
from .scores import Uses, input_uses, stored_outputs, uses_of, without_least
from .writing import rewritten

__all__ = ["Criterion", "Reached", "Way", "in_steps", "prune_in_steps", "schedule"]

Criterion = Literal["magnitude", "activation"]
#: Share of zeros after the first step, and by how much each later one divides what is left.
FIRST, FACTOR = 0.5, 1.3


def schedule(
    target: float, steps: int | None = None, *, most: int | None = None
) -> tuple[float, ...]:
    """Shares of zeros to go through: what is left shrinks by equal factors.

    Args:
        target: The last share, 0 to 1.
        steps: How many; by default as many as keep each factor within `FACTOR`.
        most: How many they are at most, where that is the default.
    """
    if target <= FIRST or target >= 1 or steps == 1:
        return (target,)
    left = (1 - FIRST) / (1 - target)
    if steps is None:
        wanted = 1 + math.ceil(math.log(left) / math.log(FACTOR))
        steps = wanted if most is None else min(wanted, max(most, 2))
    later = steps - 1
    return (*(1 - (1 - FIRST) / left ** (i / later) for i in range(later)), target)


def prune_in_steps(
    source: Model,
    plans: Sequence[LayerPlan],
    data: BatchSource | Samples,
    sparsity: float,
    *,
    steps: int | None = None,
    criterion: Criterion = "activation",
    samples: int = SAMPLES,
    ridge: float = RIDGE,
    progress: Progress | None = None,
) -> Repaired:
    """Prune a model to a share of zeros and refit it, step by step.

    Layers whose plan has a quality of its own, and quantised ones, are pruned by their plan at
    once; those with a reason to stay as they are do. All other layers reach the share together.

    Args:
        source: The unpruned model.
        plans: Its layers.
        data: Inputs, or samples that were taken already; labels are not used.
        sparsity: Share of zeros over the layers that have no quality of their own, 0 to 1.
        steps: Number of steps; None: see `schedule`.
        criterion: What the least weights are: of least ``magnitude``, or of least magnitude times
            the deviation of what they multiply (``activation``).
        samples: Most samples that are taken.
        ridge: Pull of a refit towards the weights as they are.
        progress: Told of the layers done.

    Raises:
        UsageError: A share, criterion or number of steps without sense.
        DataError: The data does not fit the model, or holds NaN or infinity.
        CannotRun: onnxruntime does not run the model.
    """
    if not 0 <= sparsity <= 1:
        raise UsageError(f"a sparsity lies from 0 to 1, and {sparsity:g} does not")
    if steps is not None and steps < 1:
        raise UsageError(f"pruning in steps needs at least one step, not {steps}")
    if criterion not in ("magnitude", "activation"):
        raise UsageError(f"no criterion is called '{criterion}'; take magnitude or activation")
    repairer = Repairer(source, plans, data, samples=samples)
    pool = [
        plan.layer
        for plan in plans
        if plan.reason is None and plan.quality is None and _is_float(source, plan.layer)
    ]
    own = {layer.address for layer in pool}
    begun = apply_plan(source, [plan for plan in plans if plan.layer.address not in own])
    start = repairer.started(begun)
    shares = schedule(sparsity, steps, most=repairer.effort.steps)
    way = _way(repairer, start, pool, criterion)
    first = None
    if way.uses is not None:
        ways = way, _Way(pool)
        way, first = _better(repairer, start, ways, shares[0], ridge, progress)
    with single_threaded_algebra():
        reached = _through(repairer, start, way, shares, ridge, progress, first)
    finished = repairer.finished(begun, reached.model, reached.fits)
    how = f"in {len(shares)} steps" if len(shares) > 1 else "at once"
    return replace(finished, choice=f"{way.choice}, {how}")


@dataclass(frozen=True, eq=False)
class Reached:
    """A pruned and refitted model in its working form, and each layer's fit by name."""

    model: Model
    fits: Mapping[str, Fit]


class Way(Protocol):
    """How weights are chosen, step by step."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers that lose them."""

    def __call__(self, reached: Reached, share: float) -> Model:
        """The model with this share of zeros, in its working form; zeros stay."""


def in_steps(
    repairer: Repairer,
    begun: Model,
    start: Model,
    way: Way,
    shares: Sequence[float],
    *,
    ridge: float = RIDGE,
    progress: Progress | None = None,
) -> Repaired:
    """Prune a model to each of these shares, and refit it after each.

    Args:
        repairer: Repairs prunings of the model.
        begun: The model, with what is pruned whatever the shares.
        start: Its working form, as `Repairer.started` gives it.
        way: Chooses weights.
        shares: Shares of zeros, rising.
        ridge: Pull of a refit towards the weights of the unpruned model.
        progress: Told of the layers done in all steps.
    """
    with single_threaded_algebra():
        reached = _through(repairer, start, way, shares, ridge, progress)
    return repairer.finished(begun, reached.model, reached.fits)


def _through(
    repairer: Repairer,
    start: Model,
    way: Way,
    shares: Sequence[float],
    ridge: float,
    progress: Progress | None,
    first: Reached | None = None,
) -> Reached:
    """Prune and refit at each of these shares.

    What is refitted at a step says which weights go at the next. The refit itself begins with the
    weights of the unpruned model every time: its ridge pulls towards those. Pulled towards those of
    the step before, weights would drift with the number of steps, as far as few samples let them.
    The first step may have been tried already: `first` is what it reached, roughly.
    """
    reached = Reached(start, {})
    for number, share in enumerate(shares):
        last = number == len(shares) - 1
        if first is not None and number == 0 and not last:
            reached = first
            continue

        def told(stage: str, done: int, total: int, number: int = number) -> None:
            if progress:
                progress(stage, number * total + done, len(shares) * total)

        cut = _masked(start, way(reached, share), way.layers)
        reached = Reached(*repairer.refit(cut, ridge=ridge, rough=not last, progress=told))
    return reached


def _masked(start: Model, pruned: Model, layers: Sequence[Layer]) -> Model:
    """The model to start from, without what a pruning of it lacks."""
    changed: dict[TensorAddress, np.ndarray] = {}
    for layer in layers:
        own = start.array(start.tensors[layer.address]).reshape(-1)
        gone = pruned.array(pruned.tensors[layer.address]).reshape(-1) == 0
        if (own[gone] != 0).any():
            changed[layer.address] = np.where(gone, np.zeros((), own.dtype), own)
    return rewritten(start, changed)


def _is_float(model: Model, layer: Layer) -> bool:
    dtype = model.payload(model.tensors[layer.address]).dtype
    return layer.quantization is None and dtype in FLOAT_DTYPES


@dataclass(frozen=True, eq=False)
class _Way:
    """How weights are chosen: the least magnitudes go, or the least effects on the outputs.

    Attributes:
        layers: The layers that share a target.
        jobs: Those of them whose inputs are seen.
        uses: How much their inputs vary in the unpruned model; None: magnitudes are compared.
        influence: Measures how much the outputs follow each channel; None where that can't be.
        gains: What losing a layer does to the outputs, where there is no influence.
    """

    layers: Sequence[Layer]
    jobs: Sequence[Job] = ()
    uses: Uses | None = None
    influence: Influence | None = None
    gains: Mapping[TensorAddress, float] = field(default_factory=dict)

    @property
    def choice(self) -> str:
        """What the report says of it."""
        if self.uses is None:
            return "least magnitude over all layers"
        whose = "layer" if self.influence is None else "channel"
        return f"least magnitude x deviation of its input x its {whose}'s influence on the outputs"

    def __call__(self, reached: Reached, share: float) -> Model:
        """The model with this share of zeros; zeros stay."""
        if self.uses is None:
            return without_least(reached.model, self.layers, share)
        seen = {job: reached.fits.get(job.layer.name) for job in self.jobs}
        variances = {j: f.variance for j, f in seen.items() if f and f.variance is not None}
        uses = uses_of(variances) if variances else self.uses
        if self.influence is None:
            scores = with_gains(uses, self.gains)
        else:
            scores = with_gains(uses, stored_outputs(self.jobs, self.influence(reached.model)))
        return without_least(reached.model, self.layers, share, scores)


def _better(
    repairer: Repairer,
    start: Model,
    ways: Sequence[_Way],
    share: float,
    ridge: float,
    progress: Progress | None,
) -> tuple[_Way, Reached | None]:
    """The way whose first step changes the outputs least, on samples that its refit did not see.

    Where a refit makes up for nearly all that the first layers of a deep network lose, their
    influence says too much of them. The first way is taken where no samples are held out. What
    the step of the better way has reached comes along.
    """
    held = repairer.effort.held
    if held is None:
        return ways[0], None
    probe = OutputProbe(repairer.source, held)
    changes: list[float] = []
    tried: list[Reached] = []
    for number, way in enumerate(ways):

        def told(stage: str, done: int, total: int, number: int = number) -> None:
            if progress:
                progress("criterion (layers)", number * total + done, len(ways) * total)

        cut = _masked(start, way(Reached(start, {}), share), way.layers)
        with single_threaded_algebra():
            tried.append(Reached(*repairer.refit(cut, ridge=ridge, rough=True, progress=told)))
        changes.append(probe.distance(tried[-1].model))
    best = int(np.argmin(changes))
    return ways[best], tried[best]


def _way(repairer: Repairer, start: Model, layers: Sequence[Layer], criterion: Criterion) -> _Way:
    """How weights are chosen in prunings of a model."""
    names = {layer.name for layer in layers}
    jobs = [job for job in repairer.jobs.jobs if job.layer.name in names]
    if criterion == "magnitude" or not jobs:
        return _Way(layers)
    uses = input_uses(start, jobs, repairer.effort.rough, stack=repairer.jobs.stackable)
    influence = influence_of(start, jobs, repairer.effort.influence)
    if influence is not None:
        return _Way(layers, jobs, uses, influence)
    probe = OutputProbe(repairer.source, repairer.samples, BATCHES)
    return _Way(layers, jobs, uses, gains=layer_gains(repairer.source, jobs, uses, probe))
