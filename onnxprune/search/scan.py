"""Every layer pruned alone, to several degrees, and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError
from ..graph.layer import LayerScan
from ..graph.part import part_of
from ..metrics.metric import Measured
from ..model.model import Model
from ..model.save import INLINE_LIMIT, serialised
from ..model.tensors import TensorAddress
from ..pruning.plan import LayerPlan, apply_plan, make_plan
from .config import ScanConfig
from .dense import Dense
from .frontier import Frontier
from .parallel import chosen_jobs, run_tasks
from .reach import Reach, reaches
from .trial import Trial, measure

__all__ = ["Prune", "ScannedLayer", "Tried", "plans_of", "prune_alone", "scan_layers"]

#: Tasks that are prepared for each that runs at once, and bytes that they may hold together.
AHEAD, HELD_BYTES = 4, 2**30

Progress = Callable[[str, int, int], None]
#: From the unpruned model in the form in which it is run, and one layer's plan, to the model with
#: that layer pruned.
Prune = Callable[[Model, LayerPlan], Model]
#: Which layer, and which of its settings.
Key = tuple[TensorAddress, int]


@dataclass(frozen=True, eq=False)
class Tried:
    """One pruning of one layer: its plan and what came of it."""

    plan: LayerPlan
    measured: Measured


@dataclass(frozen=True, eq=False)
class ScannedLayer:
    """One layer.

    Attributes:
        plan: Its plan at the first setting.
        tried: What came of each setting; empty where the layer stays as it is.
        unreached: Whether the layer changes nothing that is measured.
    """

    plan: LayerPlan
    tried: tuple[Tried, ...]
    unreached: bool = False


def prune_alone(model: Model, plan: LayerPlan) -> Model:
    """The model with one layer pruned."""
    return apply_plan(model, [plan])


def scan_layers(
    by_setting: Sequence[Sequence[LayerPlan]],
    dense: Dense,
    *,
    jobs: int | None = None,
    prune: Prune = prune_alone,
    progress: Progress | None = None,
) -> tuple[ScannedLayer, ...]:
    """Measure every layer's prunings, in the order of the plans.

    The part of the model before a layer runs once for all prunings of it. Opening a session takes
    a few milliseconds, so each pruning gets one of its own, in which the runtime may do with its
    weights whatever makes them quick.

    Args:
        by_setting: What happens to each layer, for each degree of pruning.
        dense: The unpruned model on the samples.
        jobs: How many prunings are measured at once; see `chosen_jobs`.
        prune: How one layer is pruned.
        progress: Told of the prunings that are done.

    Raises:
        ModelError: The model is over 2 GB.
        DataError: The outputs of a pruned model do not fit the metric.
        CannotRun: onnxruntime fails.
    """
    by_layer = list(zip(*by_setting, strict=True))
    pruned = {plans[0].layer.address: plans for plans in by_layer if plans[0].reason is None}
    reach = {each.address: each for each in reaches(dense.model.proto, list(pruned), dense.names)}
    run = _Run(dense, chosen_jobs(jobs), prune, progress)
    run.total = sum(
        plan.changes for address, plans in pruned.items() if reach[address].wanted for plan in plans
    )
    for address, each in reach.items():
        if each.wanted:
            run.layer(each, pruned[address])
    run.flush()
    return tuple(_scanned(plans, run.found, dense, reach) for plans in by_layer)


class _Run:
    """The measurements done and those that wait to be done together."""

    def __init__(self, dense: Dense, jobs: int, prune: Prune, progress: Progress | None) -> None:
        self.found: dict[Key, Measured] = {}
        self.total = self.done = 0
        self._dense, self._jobs, self._prune, self._progress = dense, jobs, prune, progress
        self._frontier = Frontier(dense.model, dense.taken.feeds)
        self._waiting: dict[Key, Trial] = {}
        self._held = 0

    def layer(self, reach: Reach, plans: Sequence[LayerPlan]) -> None:
        """Prepare a layer's prunings, and measure what has gathered."""
        self._frontier.advance(reach.boundary)
        self._held += self._frontier.nbytes
        for at, plan in enumerate(plans):
            if plan.changes:
                trial = self._trial(self._prune(self._dense.model, plan))
                self._held += trial.model.nbytes
                self._waiting[reach.address, at] = trial
        if len(self._waiting) >= AHEAD * self._jobs or self._held > HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Measure all that waits."""
        results = run_tasks(measure, list(self._waiting.values()), self._jobs, self._advance)
        self.found.update(zip(self._waiting, results, strict=True))
        self._waiting.clear()
        self._held = 0

    def _advance(self, more: int) -> None:
        self.done += more
        if self._progress:
            self._progress("trying layers (prunings)", self.done, self.total)

    def _trial(self, model: Model) -> Trial:
        dense, values = self._dense, self._frontier.values
        part = part_of(model, [n for n in dense.names if n not in values[0]], values[0])
        joined = serialised(part.proto, part.payloads)
        if joined.size > INLINE_LIMIT:
            raise ModelError("sensitivity is not measured of models over 2 GB; split the model")
        return Trial(
            model=np.frombuffer(b"".join(joined.blocks()), np.uint8),
            feeds=values,
            names=dense.names,
            counts=dense.taken.counts,
            targets=dense.targets,
            metric=dense.measured.metric,
            place=dense.taken.place,
            threads=0 if self._jobs == 1 else 1,
        )


def _scanned(
    plans: Sequence[LayerPlan],
    found: Mapping[Key, Measured],
    dense: Dense,
    reach: Mapping[TensorAddress, Reach],
) -> ScannedLayer:
    address = plans[0].layer.address
    if address not in reach:
        return ScannedLayer(plans[0], ())
    tried = tuple(
        Tried(plan, found.get((address, at), dense.measured)) for at, plan in enumerate(plans)
    )
    return ScannedLayer(plans[0], tried, unreached=not reach[address].wanted)


def plans_of(source: Model, scan: LayerScan, config: ScanConfig) -> list[tuple[LayerPlan, ...]]:
    """Plans of all layers, for each setting.

    Raises:
        ModelError: A layer holds NaN or infinity.
        UsageError: A glob matches no layer.
    """
    settings: list[tuple[float | None, float | None]] = [(q, None) for q in config.qualities]
    settings += [(None, share) for share in config.sparsities]
    return [
        make_plan(
            source,
            scan,
            quality=quality,
            sparsity=share,
            scope="layer",
            exclude=config.exclude,
            allow_nonfinite=config.allow_nonfinite,
        )
        for quality, share in settings
    ]
