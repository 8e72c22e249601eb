"""Trials of a search: every pruning is measured, and the best within the bound is remembered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ..config import PruneConfig
from ..evaluation import Meter
from ..metrics.metric import Measured
from ..outcome import Outcome
from ..report.search import SearchTrial
from .bound import Bound
from .ways import Way

__all__ = ["LEAST", "NARROW", "Attempt", "Searcher", "Trial"]

#: The least share of weights that is tried.
LEAST = 0.002
#: A bracket is narrow enough when its ends differ by this factor.
NARROW = 1.04

Progress = Callable[[str, int, int], None]
#: Prunes as a configuration says, and perhaps repairs and retrains.
Attempt = Callable[[PruneConfig], Outcome]


@dataclass(frozen=True, eq=False)
class Trial:
    """One pruning that was measured.

    Attributes:
        way: How pruning was spread over the layers.
        wanted: The share of the searched weights that was to be left.
        config: The configuration.
        outcome: The pruned model.
        measured: Its metric.
        facts: What the report says of it.
    """

    way: Way
    wanted: float
    config: PruneConfig
    outcome: Outcome
    measured: Measured
    facts: SearchTrial


@dataclass(eq=False)
class Searcher:
    """Measures prunings.

    Attributes:
        meter: What measures.
        bound: What is allowed.
        most: Most trials.
        progress: Told of the trials done.
        best: The trial within the bound that leaves the fewest weights, the first of equal ones.
        rows: All trials.
    """

    meter: Meter
    bound: Bound
    most: int
    progress: Progress | None = None
    best: Trial | None = None
    rows: list[SearchTrial] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Trials that are left."""
        return self.most - len(self.rows)

    def narrow(
        self,
        attempt: Attempt,
        way: Way,
        good: float,
        bad: float,
        *,
        narrow: float = NARROW,
        most: int | None = None,
    ) -> tuple[float, float]:
        """Halve a bracket of shares of weights left, on a logarithmic scale.

        Args:
            attempt: How a pruning is made.
            way: How it is spread over the layers.
            good: A share that is within the bound.
            bad: A smaller one that is taken to be beyond it.
            narrow: Factor between the ends at which the bracket is narrow enough.
            most: Most trials, once there is a pruning within the bound.

        Returns:
            The bracket's ends.
        """
        stop = 0 if most is None else max(self.left - most, 0)
        while good > narrow * bad and self.left > (0 if self.best is None else stop):
            middle = (good * bad) ** 0.5
            trial = self.measure(attempt, way, middle)
            if trial is None and way.config(middle) is None:
                bad = middle
                continue
            good, bad = (middle, bad) if trial and trial.facts.within else (good, middle)
        return good, bad

    def measure(
        self, attempt: Attempt, way: Way, wanted: float, *, retrained: bool = False
    ) -> Trial | None:
        """Prune and measure; None where the way cannot leave so few weights."""
        config = way.config(wanted)
        if config is None:
            return None
        started = time.perf_counter()
        outcome = attempt(config)
        self.meter(outcome.model)
        measured = self.meter.measured
        assert measured is not None  # it has just been measured
        within = self.bound.holds(measured)
        best = within and (self.best is None or outcome.kept < self.best.facts.kept)
        weights = sum(plan.statistics.size for plan in outcome.plans)
        facts = SearchTrial(
            trial=len(self.rows) + 1,
            way=way.name,
            setting=setting_of(config),
            zeros=1 - outcome.kept / weights if weights else 0.0,
            kept=outcome.kept,
            metric=measured.value,
            drop=self.bound.dense.drop(measured),
            within=within,
            best=best,
            retrained=retrained,
            seconds=time.perf_counter() - started,
        )
        self.rows.append(facts)
        if self.progress:
            self.progress("searching (prunings)", len(self.rows), self.most)
        trial = Trial(way, wanted, config, outcome, measured, facts)
        if best:
            self.best = trial
        return trial


def setting_of(config: PruneConfig) -> str:
    """What was asked for, in a phrase."""
    if config.groups is not None:
        return f"{config.groups}"
    if config.sparsity is not None:
        return f"sparsity {config.sparsity:.4g}"
    qualities = [quality for _, quality in config.layers if quality is not None]
    if not qualities:
        return f"quality {config.quality:g}"
    return f"q {min(qualities):.3g} to {max(qualities):.3g}"
