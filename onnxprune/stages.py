"""The stages around the pruning of weights: what it starts from, and what it ends at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .calibrated import Calibrated
from .config import PruneConfig
from .errors import ModelError
from .graph.layer import LayerScan
from .graph.layers import find_layers
from .model.model import Model
from .model.tensors import TensorAddress
from .outcome import Outcome
from .pruning.mask import kept_counts
from .pruning.once import Prune
from .pruning.plan import LayerPlan, Progress, make_plan
from .pruning.selection import select
from .pruning.statistics import LayerStatistics
from .pruning.weights import weights_of
from .report.report import CheckResult
from .report.structure import Structure
from .restructuring import (
    joined,
    left_in_pattern,
    with_operations,
    without_channels,
    without_dead,
)
from .structure.config import StructureConfig

__all__ = ["End", "LayerOutcome", "Start", "ended_at", "nothing_prunable", "started_from"]


@dataclass(frozen=True)
class LayerOutcome:
    """What became of one layer.

    Attributes:
        original: The layer in the model as it came, and its statistics there.
        plan: What happened to its weights.
        address: Its tensor in the result.
        shape: The tensor's shape there.
        kept: Weights that are not zero there.
    """

    original: LayerPlan
    plan: LayerPlan
    address: TensorAddress
    shape: tuple[int, ...]
    kept: int

    @property
    def is_whole(self) -> bool:
        """Whether the layer has the shape that it came with."""
        return self.shape == self.original.layer.shape


@dataclass(frozen=True)
class Start:
    """What weights are pruned in.

    Attributes:
        source: The model as it came.
        model: The same, or the model without the channels that were chosen.
        scan: Layers of `model`.
        facts: Which channels went; None where none were asked for.
        originals: Plans of the source's layers that change nothing, by their places in `model`;
            None where that is the source.
        warnings: What a user should know.
    """

    source: Model
    model: Model
    scan: LayerScan
    facts: Structure | None = None
    originals: Mapping[TensorAddress, LayerPlan] | None = None
    before: Mapping[TensorAddress, LayerStatistics] | None = None
    """Statistics that thresholds and dropout ratios refer to, where not those of `model`: the
    standard deviations there are, and the connections that the source had."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """The result of a pruning.

    Attributes:
        model: The pruned model, without what is dead in it.
        outcomes: What became of each layer.
        facts: What went of the graph; None where nothing was looked for.
        checks: What was compared.
        warnings: What a user should know.
    """

    model: Model
    outcomes: tuple[LayerOutcome, ...]
    facts: Structure | None
    checks: tuple[CheckResult, ...] = ()
    warnings: tuple[str, ...] = ()


def started_from(
    source: Model,
    config: PruneConfig,
    structure: StructureConfig,
    prune: Prune,
    progress: Progress | None,
) -> Start:
    """Find layers, and remove channels where that was asked for.

    Raises:
        ModelError: There is nothing to prune, or channels cannot be removed.
        UsageError: A target for channels cannot be reached.
    """
    scan = find_layers(source, embeddings=config.embeddings)
    if not scan.layers and config.quality != 0:
        raise nothing_prunable(scan)
    if structure.channels is None:
        return Start(source, source, scan)
    originals = make_plan(source, scan, quality=0.0, allow_nonfinite=True, progress=progress)
    calibrated = prune if isinstance(prune, Calibrated) else None
    addresses = [plan.layer.address for plan in originals]
    choices = select(
        scan.layers, overrides=config.layers, exclude=config.exclude, unprunable=scan.unprunable
    )
    keep = [layer.address for layer, choice in zip(scan.layers, choices, strict=True) if choice.off]
    shape = without_channels(source, structure.channels, addresses, calibrated, progress, keep=keep)
    found = find_layers(shape.model, embeddings=config.embeddings)
    moved = {shape.places[plan.layer.address]: plan for plan in originals}
    now = make_plan(shape.model, found, quality=0.0, allow_nonfinite=True, progress=progress)
    before = {
        plan.layer.address: replace(
            plan.statistics, alive=moved[plan.layer.address].statistics.alive
        )
        for plan in now
        if plan.layer.address in moved
    }
    return Start(source, shape.model, found, shape.facts, moved, before, shape.warnings)


def ended_at(
    start: Start,
    done: Outcome,
    config: PruneConfig,
    structure: StructureConfig,
    progress: Progress | None,
) -> End:
    """Remove what is dead in a pruned model, and say what became of each layer.

    Args:
        start: What was pruned.
        done: The pruned model, and what happened to its layers.
        config: What was asked for of the weights.
        structure: What was asked for of the graph.
        progress: Told about the work.
    """
    plans = done.plans
    addresses = [plan.layer.address for plan in plans]
    facts, end = start.facts, End(done.model, (), start.facts)
    places: Mapping[TensorAddress, TensorAddress] = {a: a for a in addresses}
    if structure.shrink or (done.changes and structure.shrink is None):
        shape = (
            without_dead(done.model, addresses, structure, check=config.check, progress=progress)
            if config.pattern is None
            else left_in_pattern(done.model, addresses, config.pattern)
        )
        facts, places = joined(start.facts, shape.facts), shape.places
        end = End(shape.model, (), facts, shape.checks, shape.warnings)
    if facts is None or not facts.changed:
        outcomes = tuple(_unchanged(plan) for plan in plans)
        return replace(end, outcomes=outcomes)
    return replace(
        end,
        outcomes=_outcomes(start, end.model, plans, places, config.embeddings),
        facts=with_operations(facts, start.source, end.model),
    )


def _unchanged(plan: LayerPlan) -> LayerOutcome:
    return LayerOutcome(plan, plan, plan.layer.address, plan.layer.shape, plan.kept)


def _outcomes(
    start: Start,
    model: Model,
    plans: Sequence[LayerPlan],
    places: Mapping[TensorAddress, TensorAddress],
    embeddings: bool,
) -> tuple[LayerOutcome, ...]:
    """What became of layers in a model with another graph: counted there."""
    layers = {layer.address: layer for layer in find_layers(model, embeddings=embeddings).layers}
    found = [layers.get(places[plan.layer.address]) for plan in plans]
    weights = [weights_of(model, layer) for layer in found if layer is not None]
    counts = iter(kept_counts(weights, [[0.0]] * len(weights)))
    originals = start.originals or {}
    return tuple(
        LayerOutcome(
            originals.get(plan.layer.address, plan),
            plan,
            places[plan.layer.address],
            plan.layer.shape if layer is None else layer.shape,
            plan.kept if layer is None else next(counts)[0],
        )
        for plan, layer in zip(plans, found, strict=True)
    )


def nothing_prunable(scan: LayerScan) -> ModelError:
    """The error for a model without layers, with the reasons of the first few candidates."""
    if not scan.unprunable:
        return ModelError(
            "nothing to prune: no Conv, Gemm, MatMul or recurrent node of the model has weights"
        )
    reasons = "; ".join(f"'{item.name}': {item.reason}" for item in scan.unprunable[:3])
    more = len(scan.unprunable) - 3
    rest = f"; and {more} more (see onnxprune inspect)" if more > 0 else ""
    return ModelError(f"nothing to prune: {reasons}{rest}")
