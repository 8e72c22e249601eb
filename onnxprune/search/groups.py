"""The most layers in a pattern N:M within a bound: which of them, not how hard, is to be found."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace

from ..config import PruneConfig
from ..report.format import plural
from .searcher import Attempt, Searcher
from .task import Alone, Task, tried_alone
from .ways import FixedWay

__all__ = ["GroupSearch"]


class GroupSearch:
    """Layers get the pattern in the order of what they cost alone for each weight that goes.

    The number of layers is halved in on. Then layers after the first that was too much are tried
    one by one while trials are left.

    Args:
        task: What is searched.
        base: How to prune.
        searcher: Measures.
    """

    def __init__(self, task: Task, base: PruneConfig, searcher: Searcher) -> None:
        self._base, self._searcher, self._task = base, searcher, task
        self.alone: Alone = tried_alone(task, [replace(base, criterion=None)])
        self._order = _cheapest_first(self.alone)

    def prune(self) -> None:
        """Search without retraining."""
        fits = self._halve(self._task.prune, 0, retrained=False)
        chosen = self._order[:fits]
        for name in self._order[fits + 1 :]:
            if self._searcher.left and self._try(self._task.prune, [*chosen, name]):
                chosen = [*chosen, name]

    def retrain(self, attempt: Attempt) -> None:
        """Retrain with more layers than held without."""
        best = self._searcher.best
        held = 0 if best is None else len(self._order) - _left_out(best.config, self._base)
        self._halve(attempt, held, retrained=True)

    def _halve(self, attempt: Attempt, good: int, *, retrained: bool) -> int:
        """The largest number of layers found to be within the bound; all are tried first."""
        bad = len(self._order) + 1
        wanted = bad - 1
        while good < wanted and self._searcher.left:
            if self._try(attempt, self._order[:wanted], retrained=retrained):
                good = wanted
            else:
                bad = wanted
            wanted = (good + bad) // 2
        return good

    def _try(self, attempt: Attempt, names: Sequence[str], *, retrained: bool = False) -> bool:
        others = [name for name in self._order if name not in set(names)]
        config = replace(self._base, exclude=(*self._base.exclude, *map(glob.escape, others)))
        way = FixedWay(config, f"{len(names):,} of {plural(len(self._order), 'layer')}")
        trial = self._searcher.measure(attempt, way, 0.0, retrained=retrained)
        return trial is not None and trial.facts.within


def _cheapest_first(alone: Alone) -> list[str]:
    """Names of the layers that the pattern changes, by cost for each weight that goes."""
    found = []
    for layer, costs in zip(alone.layers, alone.costs, strict=True):
        if layer.tried and layer.tried[0].plan.changes:
            plan = layer.tried[0].plan
            found.append((costs[0] / (plan.statistics.alive - plan.kept), plan.layer.name))
    # Costs that are equal, or no numbers, leave layers in their order.
    return [name for _, name in sorted(found, key=lambda entry: entry[0])]


def _left_out(config: PruneConfig, base: PruneConfig) -> int:
    return len(config.exclude) - len(base.exclude)
