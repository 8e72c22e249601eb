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

Every step is measured on all validation data, and what is returned is a pruning that was.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..config import PruneConfig
from ..data.checks import quoted
from ..data.source import Given
from ..errors import DataError
from ..evaluation import Meter
from ..graph.layer import LayerScan
from ..metrics.request import MetricRequest
from ..model.model import Model
from ..pruning.selection import select
from ..report.format import plural
from ..report.search import Search
from .bound import Bound, bound_of
from .config import ScanConfig
from .dense import measured_dense
from .goal import DropGoal
from .reach import reaches
from .scan import Prune, scan_layers
from .searcher import LEAST, Attempt, Searcher, Trial
from .ways import Allocation, SensitivityWay, ThresholdWay, Way, curves_of

__all__ = ["Task", "Within", "most_within"]

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
#: The distance of outputs from those of the unpruned model.
OUTPUTS = MetricRequest("mse")
PLAIN_NAME, LAYER_NAME = "over all layers", "in every layer"

Progress = Callable[[str, int, int], None]


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


@dataclass(frozen=True, eq=False)
class Task:
    """What is searched, and by which means.

    Attributes:
        source: The unpruned model.
        scan: Its layers.
        base: How to prune, but for how hard.
        goal: How much may be lost.
        meter: Measures models; it has measured the unpruned one.
        val: The validation data.
        request: The metric.
        prune: Prunes, and perhaps repairs.
        retrain: Prunes and retrains; None without training data.
        alone: Prunes one layer alone, as it would be repaired.
        progress: Told how far the search is.
    """

    source: Model
    scan: LayerScan
    base: PruneConfig
    goal: DropGoal
    meter: Meter
    val: Given
    request: MetricRequest
    prune: Attempt
    retrain: Attempt | None = None
    alone: Prune | None = None
    progress: Progress | None = None


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
        self.notes: list[str] = []
        self.warnings: list[str] = []
        unmeasured = _unmeasured(task)
        if unmeasured:
            names = quoted(unmeasured)
            self.warnings.append(
                f"not pruned, since nothing that is measured depends on it: {names}"
            )
        exclude = (*task.base.exclude, *map(glob.escape, unmeasured))
        self.base = replace(task.base, exclude=exclude)
        choices = select(
            task.scan.layers,
            overrides=self.base.layers,
            exclude=exclude,
            unprunable=task.scan.unprunable,
        )
        self.pool = {
            layer.address
            for layer, choice in zip(task.scan.layers, choices, strict=True)
            if choice.off is None and choice.quality is None
        }
        plain = LAYER_NAME if self.base.scope == "layer" else PLAIN_NAME
        self.plain = ThresholdWay(self.base, plain)

    def prune(self) -> None:
        """Search without retraining."""
        task, searcher = self.task, self.searcher
        if task.retrain is not None:
            searcher.most -= self._retrainings
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
        task, source = self.task, self.task.meter.source
        assert source is not None  # the unpruned model was measured
        others = [layer.name for layer in task.scan.layers if layer.address not in self.pool]
        config = ScanConfig(
            sparsities=SPARSITIES,
            exclude=tuple(map(glob.escape, others)),
            allow_nonfinite=self.base.allow_nonfinite,
        )
        try:
            dense = measured_dense(task.source, source, config.samples, OUTPUTS, unlabelled=True)
        except DataError:  # the outputs are no floats
            dense = measured_dense(task.source, source, config.samples, task.request)
        how = {} if task.alone is None else {"prune": task.alone}
        layers = scan_layers(task.source, task.scan, config, dense, progress=task.progress, **how)
        self.scanned = dense.taken.count
        drops = [[max(dense.measured.drop(t.measured), 0.0) for t in one.tried] for one in layers]
        for name, power in COSTS.items():
            costs = [[drop**power for drop in own] for own in drops]
            curves = curves_of(layers, costs)
            size = sum(curve.plan.statistics.size for curve in curves)
            yield SensitivityWay(self.base, task.scan, Allocation(curves), size, name)


def _unmeasured(task: Task) -> list[str]:
    """Names of layers that change nothing that is measured: nothing would bound their pruning."""
    outputs = [info.name for info in task.source.proto.graph.output]
    wanted = outputs if task.request.kind == "function" else outputs[:1]
    addresses = [layer.address for layer in task.scan.layers]
    reach = reaches(task.source.proto, addresses, wanted)
    free = {each.address for each in reach if not each.wanted}
    return [layer.name for layer in task.scan.layers if layer.address in free]
