"""The most pruning whose metric stays within a bound.

The search on the whole model:

1. One threshold for all layers (what ``--sparsity`` does): the share of weights left is halved in
   on, on a logarithmic scale.
2. Every layer is pruned alone, to several degrees, and the distance of the model's outputs from the
   unpruned one's is measured. Weights are then taken where they cost least, as far as distances add
   up: two ways, by squared distances and by distances. Each gets one trial just below what was
   found so far, and is narrowed down only if that is within the bound.
3. The best way's bracket is narrowed further.
4. With training: prunings with half of the weights, a quarter and so on are retrained until one is
   beyond the bound, then the bracket between the last two is narrowed.

With a pattern N:M, which says how hard to prune, it is found out which layers get it: see `groups`.

Every step is measured on all validation data, and what is returned is a pruning that was.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..data.checks import quoted
from ..pruning.once import planned
from ..report.format import plural
from ..report.search import Search
from .bound import Bound, bound_of
from .groups import GroupSearch
from .searcher import LEAST, Attempt, Searcher, Trial
from .task import Task, tried_alone, unmeasured
from .ways import Allocation, SensitivityWay, ThresholdWay, Way, curves_of

__all__ = ["Within", "most_within"]

#: Shares of zeros that layers are tried at alone.
SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
#: How far below the best so far another way is tried first.
BELOW = 0.96
#: Factor between the ends of the last bracket.
FINE = 1.015
#: Share of the trials that may be retrained, and how much of the weights each of them loses.
RETRAINED, HALF = 1 / 3, 0.5
#: Trials that narrow down the bracket of retrained prunings.
LAST_RETRAININGS = 2
#: What layers cost: powers of the squared distance of the outputs, by what reports call the way.
COSTS = {"sensitivity, squared": 1.0, "sensitivity": 0.5}
PLAIN_NAME, LAYER_NAME = "over all layers", "in every layer"


@dataclass(frozen=True, eq=False)
class Within:
    """What a search found.

    Attributes:
        best: The chosen trial; None where none is within the bound.
        bound: The bound.
        facts: What the report says.
        warnings: What a user should know.
    """

    best: Trial | None
    bound: Bound
    facts: Search
    warnings: tuple[str, ...]


def most_within(task: Task) -> Within:
    """Search for the most pruning within a bound.

    Raises:
        OnnxPruneError: As for pruning, measuring and retraining.
    """
    started = time.perf_counter()
    dense = task.meter.measured
    assert dense is not None  # the unpruned model was measured
    bound = bound_of(task.goal.max_drop, dense, task.source, task.val)
    search = _Search(task, bound)
    search.prune()
    if task.retrain is not None:
        search.retrain(task.retrain)
    best = search.searcher.best
    facts = Search(
        max_drop=task.goal.max_drop,
        unit=bound.unit,
        bound=bound.drop,
        metric=dense.metric.name,
        better=dense.metric.better,
        share=dense.metric.share,
        dense=dense.value,
        trials=tuple(search.searcher.rows),
        chosen=None if best is None else best.facts.trial,
        drop=0.0 if best is None else best.facts.drop,
        drop_error=None if best is None else dense.drop_error(best.measured),
        samples=dense.samples,
        scanned=search.scanned,
        seconds=time.perf_counter() - started,
        notes=tuple(search.notes),
    )
    return Within(best, bound, facts, tuple(search.warnings))


class _Search:
    """A search under way; `base` leaves alone what nothing would bound."""

    def __init__(self, task: Task, bound: Bound) -> None:
        self.task = task
        self.searcher = Searcher(task.meter, bound, task.goal.trials, task.progress)
        self.scanned = 0
        self.groups: GroupSearch | None = None
        self.notes: list[str] = []
        self.warnings: list[str] = []
        free = unmeasured(task)
        if free:
            self.warnings.append(
                f"not pruned, since nothing that is measured depends on it: {quoted(free)}"
            )
        exclude = (*task.base.exclude, *map(glob.escape, free))
        self.base = replace(task.base, exclude=exclude)
        plans = planned(task.source, task.scan, replace(self.base, criterion=None))
        self.pool = {
            plan.layer.address for plan in plans if plan.reason is None and plan.quality is None
        }
        plain = LAYER_NAME if self.base.scope == "layer" else PLAIN_NAME
        self.plain = ThresholdWay(self.base, plain)

    def prune(self) -> None:
        """Search without retraining."""
        task, searcher = self.task, self.searcher
        if task.retrain is not None:
            searcher.most -= self._retrainings
        if self.base.groups is not None:
            self.groups = GroupSearch(task, self.base, searcher)
            self.scanned = self.groups.alone.samples
            self.groups.prune()
            return
        # The other ways and the last bracket need trials too.
        most = max(searcher.left // 2, 2)
        brackets = {self.plain.name: self._narrow(self.plain, 1.0, LEAST, most)}
        for way in self._sensitivity_ways() if searcher.left else ():
            bracket = self._compared(way)
            if bracket is not None:
                brackets[way.name] = bracket
        way = self.plain if searcher.best is None else searcher.best.way
        good, bad = searcher.narrow(task.prune, way, *brackets[way.name], narrow=FINE)
        if good > FINE * bad:
            self.notes.append(
                f"all {plural(task.goal.trials, 'trial')} were used: --trials with a larger number"
                " may find more"
            )

    def retrain(self, attempt: Attempt) -> None:
        """Retrain prunings of fewer and fewer weights, then narrow down where that fails."""
        searcher = self.searcher
        searcher.most = len(searcher.rows) + self._retrainings
        if self.groups is not None:
            self.groups.retrain(attempt)
            return
        best = searcher.best
        way, good = (self.plain, 1.0) if best is None else (best.way, self._share(best))
        bad = LEAST
        while searcher.left > LAST_RETRAININGS and good > LEAST:
            wanted = max(good * HALF, LEAST)
            if not self._retrained(attempt, way, wanted):
                bad = wanted
                break
            good = wanted
        bad = max(bad, good * HALF)
        while searcher.left and good > FINE * bad:
            middle = (good * bad) ** 0.5
            fits = self._retrained(attempt, way, middle)
            good, bad = (middle, bad) if fits else (good, middle)

    @property
    def _retrainings(self) -> int:
        return max(round(self.task.goal.trials * RETRAINED), 1)

    def _retrained(self, attempt: Attempt, way: Way, wanted: float) -> bool:
        """Whether a pruning is within the bound once it is retrained."""
        trial = self.searcher.measure(attempt, way, wanted, retrained=True)
        if trial is None:  # the way cannot leave so few
            trial = self.searcher.measure(attempt, self.plain, wanted, retrained=True)
        return trial is not None and trial.facts.within

    def _narrow(self, way: Way, good: float, bad: float, most: int) -> tuple[float, float]:
        return self.searcher.narrow(self.task.prune, way, good, bad, most=most)

    def _compared(self, way: Way) -> tuple[float, float] | None:
        """Try another way just below the best so far, and narrow it down where that holds."""
        searcher = self.searcher
        if not searcher.left:
            return None
        good = BELOW * (1.0 if searcher.best is None else self._share(searcher.best))
        trial = searcher.measure(self.task.prune, way, good)
        if trial is None or not trial.facts.within:
            return None
        return self._narrow(way, good, LEAST, max(searcher.left * 2 // 3, 1))

    def _share(self, trial: Trial) -> float:
        """The share of the searched weights that a trial leaves."""
        plans = [plan for plan in trial.outcome.plans if plan.layer.address in self.pool]
        size = sum(plan.statistics.size for plan in plans)
        return sum(plan.kept for plan in plans) / size if size else 1.0

    def _sensitivity_ways(self) -> Iterator[Way]:
        """Ways that follow from what layers cost alone; a note where there are none."""
        if self.base.needs_samples:
            self.notes.append(
                f"layers were not tried alone: criterion {self.base.criterion} has one target for"
                " all of them"
            )
            return
        settings = [
            replace(self.base, sparsity=share, scope="layer", criterion=None)
            for share in SPARSITIES
        ]
        alone = tried_alone(self.task, settings)
        self.scanned = alone.samples
        for name, power in COSTS.items():
            costs = [[cost**power for cost in own] for own in alone.costs]
            curves = curves_of(alone.layers, costs)
            size = sum(curve.plan.statistics.size for curve in curves)
            yield SensitivityWay(self.base, self.task.scan, Allocation(curves), size, name)
