"""Pruning with calibration samples: weights are chosen, and what is left is repaired, by what
layers compute on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .calibration import Calibration
from .config import Criterion, PruneConfig
from .criteria.cuts import CUTS, ONCE, StepwiseCut, choice, steps
from .criteria.wanted import Wanted
from .data.source import Given, open_source
from .data.specs import input_specs
from .errors import ModelError
from .graph.layer import LayerScan
from .model.model import Model
from .model.tensors import TensorAddress
from .pruning.floating import FloatWeights
from .pruning.once import PrunedOnce, finished, planned, recounted
from .pruning.plan import LayerPlan, Progress, apply_plan
from .pruning.statistics import LayerStatistics
from .repair.gradual import in_steps, prune_in_steps
from .repair.repair import LayerRepair, Repaired, Repairer
from .repair.samples import Samples, take_samples
from .repair.working import working_form
from .report.repair import Repair, RepairRow
from .runtime import CannotRun

__all__ = ["Calibrated"]

#: Why a layer is not repaired where no layer loses a weight.
NOTHING_GONE = "no weight went"
NOT_ASKED = "no repair was asked for"


@dataclass(eq=False)
class Calibrated:
    """Prunes models of one graph on calibration samples, and repairs them; a `Prune`.

    Attributes:
        settings: How the samples are used.
        samples: The samples, taken once.
        description: The data, as the user knows it.
    """

    settings: Calibration
    samples: Samples
    description: str
    _last: tuple[Model, frozenset[TensorAddress], Repairer] | None = None

    @classmethod
    def on(cls, source: Model, given: Given, settings: Calibration) -> Calibrated:
        """Open calibration data for a model.

        Args:
            source: The unpruned model.
            given: Samples as `open_source` takes them; labels are not used.
            settings: How they are used.

        Raises:
            DataError: They cannot be read, do not fit the model, hold NaN or infinity, or are none.
        """
        data = open_source(given, input_specs(source.proto), labelled=False)
        inputs = input_specs(working_form(source).proto)
        samples = take_samples(data, inputs, settings.samples)
        return cls(settings, samples, data.description.removesuffix(", unlabelled"))

    def __call__(
        self,
        model: Model,
        scan: LayerScan,
        config: PruneConfig,
        *,
        share: float = 1.0,
        before: Mapping[TensorAddress, LayerStatistics] | None = None,
        progress: Progress | None = None,
    ) -> PrunedOnce:
        """Prune every layer that the configuration asks for, and repair the model.

        Where no weight goes, nothing changes. Arguments are those of `prune_once`.

        Raises:
            ModelError: NaN or infinity in a layer that would be pruned, or onnxruntime does not run
                the model.
            UsageError: A glob matches no layer.
        """
        try:
            return self._prune(model, scan, config, share, before, progress)
        except CannotRun as error:
            raise ModelError(
                f"calibration runs the model, and {error}; leave out --calibrate to prune without"
                " it"
            ) from error

    def _prune(
        self,
        model: Model,
        scan: LayerScan,
        config: PruneConfig,
        share: float,
        before: Mapping[TensorAddress, LayerStatistics] | None,
        progress: Progress | None,
    ) -> PrunedOnce:
        started = time.perf_counter()
        plans = planned(model, scan, config, share=share, before=before, progress=progress)
        if not any(plan.changes for plan in plans):
            repaired = self._untouched(model, plans, NOTHING_GONE)
        else:
            repaired, plans = self._pruned(model, plans, config, share, progress)
        facts = Repair(
            method=self.settings.repair,
            data=self.description,
            samples=repaired.samples,
            choice=repaired.choice or _choice(config, share),
            rows=tuple(_row(row) for row in repaired.rows),
            seconds=time.perf_counter() - started,
        )
        warnings = (*repaired.warnings, *_unrepaired(facts))
        return finished(model, scan, plans, repaired.model, before, repair=facts, warnings=warnings)

    @property
    def fingerprint(self) -> str:
        """What must be the same when an interrupted run goes on."""
        digest = hashlib.blake2b(digest_size=16)
        for batch in self.samples.batches:
            for name in sorted(batch):
                digest.update(name.encode())
                digest.update(np.ascontiguousarray(batch[name]).tobytes())
        settings = f"{self.settings.repair}, {self.samples.count} samples of {self.description}"
        return f"{settings}, digest {digest.hexdigest()}"

    def repairer(self, model: Model, plans: Sequence[LayerPlan]) -> Repairer:
        """What repairs prunings of a model; the last one is kept."""
        layers = frozenset(plan.layer.address for plan in plans if plan.reason is None)
        if self._last is None or self._last[0] is not model or self._last[1] != layers:
            self._last = model, layers, Repairer(model, plans, self.samples)
        return self._last[2]

    def _pruned(
        self,
        model: Model,
        plans: tuple[LayerPlan, ...],
        config: PruneConfig,
        share: float,
        progress: Progress | None,
    ) -> tuple[Repaired, tuple[LayerPlan, ...]]:
        """The pruned model, repaired, and plans that say what is left."""
        criterion = _criterion(config, self.settings)
        if criterion is None and config.sparsity is not None:
            target = config.sparsity * share
            repaired = prune_in_steps(model, plans, self.samples, target, progress=progress)
            plans = _without_thresholds(plans)
        elif criterion is None or _by_plan(config, criterion, self.settings):
            repaired = self._repaired(model, apply_plan(model, plans), plans, progress)
        else:
            target = config.groups.sparsity if config.groups else (config.sparsity or 0.0) * share
            wanted = Wanted(target, config.scope, config.groups or config.blocks)
            repaired = self._cut(model, plans, criterion, wanted, progress)
            plans = _without_thresholds(plans)
        return repaired, recounted(plans, repaired.model)

    def _repaired(
        self,
        model: Model,
        pruned: Model,
        plans: Sequence[LayerPlan],
        progress: Progress | None,
    ) -> Repaired:
        """A pruned model, repaired as was asked for."""
        if self.settings.repair == "none":
            return self._untouched(pruned, plans, NOT_ASKED)
        repairer = self.repairer(model, plans)
        return repairer.repair(pruned, method=self.settings.repair, progress=progress)

    def _cut(
        self,
        model: Model,
        plans: Sequence[LayerPlan],
        criterion: Criterion,
        wanted: Wanted,
        progress: Progress | None,
    ) -> Repaired:
        """A model pruned by a criterion and repaired: in steps where a refit can follow each."""
        pool = [plan for plan in plans if plan.reason is None and _is_free(plan)]
        own = {plan.layer.address for plan in pool}
        begun = apply_plan(model, [plan for plan in plans if plan.layer.address not in own])
        layers = [plan.layer for plan in pool]
        repairer = self.repairer(model, plans)
        if self.settings.repair == "refit" and criterion not in ONCE:
            shares = steps(wanted)
            way = StepwiseCut(CUTS[criterion](repairer, layers, wanted, None), layers)
            start = repairer.started(begun)
            repaired = in_steps(repairer, begun, start, way, shares, progress=progress)
            return replace(repaired, choice=choice(criterion, wanted, len(shares)))
        cut = CUTS[criterion](repairer, layers, wanted, progress)
        worked = cut(repairer.working(begun), wanted.share)
        pruned = repairer.finished(begun, worked, {}).model
        repaired = self._repaired(model, pruned, plans, progress)
        return replace(repaired, choice=choice(criterion, wanted))

    def _untouched(self, model: Model, plans: Sequence[LayerPlan], reason: str) -> Repaired:
        """A model that is not repaired."""
        rows = tuple(LayerRepair(plan.layer.name, None, plan.reason or reason) for plan in plans)
        return Repaired(model, rows, self.samples.count, self.samples.warnings)


def _criterion(config: PruneConfig, settings: Calibration) -> Criterion | None:
    """What the least weights are; None where the samples decide on that as well.

    Without a wish: what held the most accuracy on samples that were not calibrated with. Without a
    refit that are magnitudes, as without samples.
    """
    if config.criterion is not None:
        return config.criterion
    if settings.repair != "refit" or config.quality is not None:
        return "magnitude"
    if config.groups is not None:
        return "sparsegpt"
    if config.blocks is not None:
        return "wanda"
    return "magnitude" if config.scope == "layer" else None


def _by_plan(config: PruneConfig, criterion: Criterion, settings: Calibration) -> bool:
    """Whether the plan, which is made without samples, says all that goes."""
    at_once = settings.repair != "refit"
    return config.quality is not None or (criterion == "magnitude" and at_once)


def _is_free(plan: LayerPlan) -> bool:
    """Whether the samples decide on a layer, and no threshold of its own."""
    is_float = isinstance(plan.weights, FloatWeights) and plan.layer.quantization is None
    return plan.quality is None and is_float


def _without_thresholds(plans: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
    """Plans in which no threshold decides on the weights that the samples decide on."""
    return tuple(
        replace(plan, threshold=None, keep=None) if _is_free(plan) else plan for plan in plans
    )


def _choice(config: PruneConfig, share: float) -> str:
    """How magnitudes alone chose."""
    if config.quality is not None:
        what = f"root mean square of blocks {config.blocks}" if config.blocks else "magnitude"
        return f"{what} under {config.quality * share:g} x standard deviation"
    return choice("magnitude", Wanted(0.0, config.scope, config.groups or config.blocks))


def _unrepaired(facts: Repair) -> Iterator[str]:
    """A warning where a repair was asked for, and no layer that lost weights could have it."""
    reasons = [row.reason for row in facts.rows]
    if facts.method != "none" and None not in reasons and NOTHING_GONE not in reasons:
        yield f"no layer could be repaired ({'; '.join(dict.fromkeys(map(str, reasons)))})"


def _row(row: LayerRepair) -> RepairRow:
    return RepairRow(row.layer, row.method, row.reason, row.before, row.after)
