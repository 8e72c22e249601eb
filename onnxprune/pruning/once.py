"""Pruning once: thresholds, masks, and the dropout ratios that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ..config import PruneConfig
from ..graph.dropout import DropoutSite, find_dropouts, rewrite_dropouts, rewritten_ratio
from ..graph.layer import LayerScan
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..report.repair import Repair
from .mask import kept_counts
from .plan import LayerPlan, Progress, apply_plan, make_plan
from .statistics import LayerStatistics
from .weights import weights_of

__all__ = ["Prune", "PrunedOnce", "finished", "planned", "prune_once", "recounted", "statistics_of"]


@dataclass(frozen=True)
class PrunedOnce:
    """A pruned model with what led to it.

    Attributes:
        plans: What happened to each layer.
        dropouts: Every Dropout with its new ratio.
        weights: The model with its weights pruned and its dropout ratios as they were.
        model: The same with the new ratios.
        repair: What calibration samples did; None without.
        warnings: What a user should know of it.
    """

    plans: tuple[LayerPlan, ...]
    dropouts: tuple[tuple[DropoutSite, float], ...]
    weights: Model
    model: Model
    repair: Repair | None = None
    warnings: tuple[str, ...] = ()

    @property
    def sparsity(self) -> float:
        """Share of zeros in the layers, 0 to 1."""
        count = sum(plan.weights.size for plan in self.plans)
        return 1 - sum(plan.kept for plan in self.plans) / count if count else 0.0


class Prune(Protocol):
    """`prune_once`, or what stands in for it: prunes a model, and perhaps repairs it."""

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
        """Prune every layer that the configuration asks for; see `prune_once`."""


def prune_once(
    model: Model,
    scan: LayerScan,
    config: PruneConfig,
    *,
    share: float = 1.0,
    before: Mapping[TensorAddress, LayerStatistics] | None = None,
    progress: Progress | None = None,
) -> PrunedOnce:
    """Prune every layer that the configuration asks for; the model stays as it is.

    Args:
        model: The model, with the dropout ratios that it was trained with.
        scan: Its layers.
        config: What to prune, and how hard.
        share: Height of thresholds (or of the target sparsity), as a share of the configuration's.
        before: Statistics of each layer when it was trained: thresholds are counted in their
            standard deviations, and dropout ratios belong to their connections. Those that the
            layers have now by default.
        progress: Told about the work.

    Raises:
        ModelError: NaN or infinity in a layer that would be pruned.
        UsageError: A glob matches no layer.
    """
    plans = planned(model, scan, config, share=share, before=before, progress=progress)
    return finished(model, scan, plans, apply_plan(model, plans), before)


def planned(
    model: Model,
    scan: LayerScan,
    config: PruneConfig,
    *,
    share: float = 1.0,
    before: Mapping[TensorAddress, LayerStatistics] | None = None,
    progress: Progress | None = None,
) -> tuple[LayerPlan, ...]:
    """What `prune_once` would do to each layer; arguments and errors are the same."""
    return make_plan(
        model,
        scan,
        quality=None if config.quality is None else config.quality * share,
        sparsity=None if config.sparsity is None else config.sparsity * share,
        scope=config.scope,
        pattern=config.groups or config.blocks,
        overrides=[(glob, None if q is None else q * share) for glob, q in config.layers],
        exclude=config.exclude,
        allow_nonfinite=config.allow_nonfinite,
        reference=before,
        progress=progress,
    )


def finished(
    model: Model,
    scan: LayerScan,
    plans: tuple[LayerPlan, ...],
    pruned: Model,
    before: Mapping[TensorAddress, LayerStatistics] | None = None,
    *,
    repair: Repair | None = None,
    warnings: tuple[str, ...] = (),
) -> PrunedOnce:
    """A pruned model with the dropout ratios that follow from its connections.

    Args:
        model: The model before, with the ratios that it was trained with.
        scan: Its layers.
        plans: What happened to each layer.
        pruned: The model with its weights pruned.
        before: Statistics of each layer when it was trained; see `prune_once`.
        repair: What calibration samples did.
        warnings: What a user should know of it.
    """
    dropouts = _new_ratios(find_dropouts(model, scan.layers), plans, before or statistics_of(plans))
    changed = {site: after for site, after in dropouts if after != site.ratio}
    new = rewrite_dropouts(pruned, changed)
    return PrunedOnce(plans, dropouts, pruned, new, repair, warnings)


def recounted(plans: Sequence[LayerPlan], model: Model) -> tuple[LayerPlan, ...]:
    """Plans with the number of weights that a model's layers keep."""
    weights = [weights_of(model, plan.layer) for plan in plans]
    counts = kept_counts(weights, [[0.0]] * len(weights))
    return tuple(replace(plan, kept=kept) for plan, (kept,) in zip(plans, counts, strict=True))


def statistics_of(plans: Sequence[LayerPlan]) -> dict[TensorAddress, LayerStatistics]:
    """Statistics of each layer, before its plan is carried out."""
    return {plan.layer.address: plan.statistics for plan in plans}


def _new_ratios(
    sites: tuple[DropoutSite, ...],
    plans: tuple[LayerPlan, ...],
    before: Mapping[TensorAddress, LayerStatistics],
) -> tuple[tuple[DropoutSite, float], ...]:
    """Each Dropout with its new ratio, from the connections of the layers that feed it."""
    kept = {plan.layer.address: plan.kept for plan in plans}

    def after(site: DropoutSite) -> float:
        feeding = [address for address in site.feeding if address in kept]
        if site.reason is not None or not feeding:
            return site.ratio
        original = sum(before[address].alive for address in feeding)
        return rewritten_ratio(site.ratio, original, sum(kept[address] for address in feeding))

    return tuple((site, after(site)) for site in sites)
