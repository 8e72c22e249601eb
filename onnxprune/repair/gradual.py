"""Pruning in steps, with a repair after each: what is left can adapt before more goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..data.source import BatchSource
from ..errors import UsageError
from ..graph.layer import Layer
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..pruning.floating import FLOAT_DTYPES
from ..pruning.plan import LayerPlan, Progress, apply_plan
from .gains import BATCHES, OutputProbe, layer_gains, with_gains
from .jobs import Job
from .refit import RIDGE
from .repair import SAMPLES, Repaired, Repairer
from .samples import Samples
from .scores import input_uses, without_least

__all__ = ["Criterion", "Cut", "in_steps", "prune_in_steps", "schedule"]

Criterion = Literal["magnitude", "activation"]
#: Prunes a model to a share of zeros, 0 to 1; zeros stay.
Cut = Callable[[Model, float], Model]
#: Share of zeros after the first step, and by how much each later one divides what is left.
FIRST, FACTOR = 0.5, 1.3


def schedule(target: float, steps: int | None = None) -> tuple[float, ...]:
    """Shares of zeros to go through: what is left shrinks by equal factors.

    Args:
        target: The last share, 0 to 1.
        steps: How many; by default as many as keep each factor within `FACTOR`.
    """
    if target <= FIRST or target >= 1 or steps == 1:
        return (target,)
    left = (1 - FIRST) / (1 - target)
    later = math.ceil(math.log(left) / math.log(FACTOR)) if steps is None else steps - 1
    return (*(1 - (1 - FIRST) / left ** (i / later) for i in range(later)), target)


def in_steps(
    repairer: Repairer,
    model: Model,
    cut: Cut,
    shares: Sequence[float],
    *,
    ridge: float = RIDGE,
    progress: Progress | None = None,
) -> Repaired:
    """Prune and refit at each of these shares, every time towards the unpruned model.

    Args:
        repairer: Repairs prunings of the model.
        model: Where to start from: the unpruned model, or a pruned one.
        cut: Prunes further.
        shares: Shares of zeros, rising.
        ridge: Pull of a refit towards the weights as they are.
        progress: Told of the layers done in all steps.

    Returns:
        The last step's result; its errors before are those that the last step's pruning made.
    """
    if not shares:
        raise UsageError("pruning in steps needs at least one step")

    result: Repaired | None = None
    for number, share in enumerate(shares):

        def advance(stage: str, done: int, total: int, number: int = number) -> None:
            if progress:
                progress(stage, number * total + done, len(shares) * total)

        pruned = cut(model if result is None else result.model, share)
        result = repairer.repair(pruned, ridge=ridge, progress=advance)
    assert result is not None  # there is a step
    choice = getattr(cut, "choice", "")
    how = f"in {len(shares)} steps" if len(shares) > 1 else "at once"
    return replace(result, choice=f"{choice}, {how}" if choice else how)


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
        steps: Number of steps; None: see `schedule`, or all at once where that brings the outputs
            nearer to those of the unpruned model.
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
    start = apply_plan(source, [plan for plan in plans if plan.layer.address not in own])
    cuts = _cuts(repairer, pool, criterion)
    shares = schedule(sparsity, steps)
    if len(cuts) == 1 and (steps is not None or len(shares) == 1):
        return in_steps(repairer, start, cuts[0], shares, ridge=ridge, progress=progress)
    return _nearest(repairer, start, cuts, shares, steps is None, ridge, progress)


def _nearest(
    repairer: Repairer,
    start: Model,
    cuts: Sequence[Cut],
    shares: Sequence[float],
    once: bool,
    ridge: float,
    progress: Progress | None,
) -> Repaired:
    """The pruning whose outputs are nearest to those of the unpruned model, on the samples.

    Each cut is tried at once, the better one then in steps. Which of them wins depends on the
    model, and samples without labels tell.

    Args:
        repairer: Repairs prunings of the model.
        start: Where to start from.
        cuts: Ways to prune.
        shares: Steps to go through.
        once: Whether pruning at once may win over pruning in steps.
        ridge: See `in_steps`.
        progress: See `in_steps`.
    """
    probe = OutputProbe(repairer.source, repairer.samples)
    total = len(cuts) + (len(shares) if len(shares) > 1 else 0)
    tried: list[tuple[float, int, Repaired]] = []
    for number, cut in enumerate(cuts):
        told = _part(progress, number, 1, total)
        result = in_steps(repairer, start, cut, shares[-1:], ridge=ridge, progress=told)
        tried.append((probe.distance(repairer.working(result.model)), number, result))
    tried.sort(key=lambda entry: entry[:2])
    distance, number, best = tried[0]
    if len(shares) == 1:
        return best
    told = _part(progress, len(cuts), len(shares), total)
    stepped = in_steps(repairer, start, cuts[number], shares, ridge=ridge, progress=told)
    if once and probe.distance(repairer.working(stepped.model)) > distance:
        return best
    return stepped


def _part(progress: Progress | None, before: int, own: int, total: int) -> Progress | None:
    """Progress of a part of the work: `own` of `total` runs, after `before` others."""
    if progress is None:
        return None

    def advance(stage: str, done: int, layers: int) -> None:
        one = layers // own
        progress(stage, before * one + done, total * one)

    return advance


def _is_float(model: Model, layer: Layer) -> bool:
    dtype = model.payload(model.tensors[layer.address]).dtype
    return layer.quantization is None and dtype in FLOAT_DTYPES


@dataclass(frozen=True, eq=False)
class _MagnitudeCut:
    """The least weights go."""

    layers: Sequence[Layer]
    choice = "least magnitude over all layers"

    def __call__(self, model: Model, share: float) -> Model:
        return without_least(model, self.layers, share)


@dataclass(frozen=True, eq=False)
class _ActivationCut:
    """The least products of weight and use go; `gains` compare layers where they are given."""

    repairer: Repairer
    layers: Sequence[Layer]
    jobs: Sequence[Job]
    gains: Mapping[TensorAddress, float] | None = None

    @property
    def choice(self) -> str:
        """What the report says of it."""
        compared = "root mean square" if self.gains is None else "effect on the outputs"
        return f"least magnitude x deviation of its input, layers compared by their {compared}"

    def __call__(self, model: Model, share: float) -> Model:
        uses, scales = self.uses(model)
        if self.gains is not None:
            uses = with_gains(uses, scales, self.gains)
        return without_least(model, self.layers, share, uses)

    def uses(
        self, model: Model
    ) -> tuple[dict[TensorAddress, np.ndarray], dict[TensorAddress, float]]:
        """How much inputs vary in a model."""
        stack = self.repairer.jobs.stackable
        worked = self.repairer.working(model)
        return input_uses(worked, self.jobs, self.repairer.samples, stack=stack)


def _cuts(repairer: Repairer, layers: Sequence[Layer], criterion: Criterion) -> list[Cut]:
    """Ways to prune that are worth trying: by use, layers compared with and without gains."""
    names = {layer.name for layer in layers}
    jobs = [job for job in repairer.jobs.jobs if job.layer.name in names]
    if criterion == "magnitude" or not jobs:
        return [_MagnitudeCut(layers)]
    plain = _ActivationCut(repairer, layers, jobs)
    probe = OutputProbe(repairer.source, repairer.samples, BATCHES)
    gains = layer_gains(repairer.source, jobs, *plain.uses(repairer.source), probe)
    return [plain, replace(plain, gains=gains)]
