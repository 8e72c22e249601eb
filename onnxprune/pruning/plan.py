"""The plan: for every layer its statistics, its threshold, and what is left; then applying it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config import Scope
from ..errors import ModelError, UsageError
from ..graph.layer import Layer, LayerScan
from ..model.model import Model
from ..model.payload import Payload
from ..model.tensors import TensorAddress
from ..pattern import GroupPattern, Pattern
from .axes import misfit
from .keep import Keep
from .mask import MaskedPayload, PrunedPayload, kept_counts
from .patterned import Patterned, keeps
from .selection import Choice, select
from .statistics import LayerStatistics, all_statistics, prunability
from .threshold import quality_threshold, sparsity_thresholds
from .weights import Weights, weights_of

__all__ = ["LayerPlan", "Progress", "apply_plan", "make_plan"]

#: Called with the stage (of statistics, thresholds, counts), megabytes done, megabytes in all.
Progress = Callable[[str, int, int], None]
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class LayerPlan:
    """What happens to one layer.

    Attributes:
        layer: The layer.
        weights: Its weights before pruning.
        statistics: Their statistics.
        quality: The quality that set the threshold; None where a target share did, or where the
            layer stays as it is.
        threshold: Weights of smaller magnitude go; 0.0 for none. None where no threshold decides.
        kept: Weights that are not zero afterwards.
        reason: Why the layer stays as it is; None where it is pruned.
        keep: Which weights stay, where no threshold says so.
    """

    layer: Layer
    weights: Weights
    statistics: LayerStatistics
    quality: float | None
    threshold: float | None
    kept: int
    reason: str | None = None
    keep: Keep | None = None

    @property
    def changes(self) -> bool:
        """Whether any weight goes."""
        return self.kept < self.statistics.alive


def make_plan(
    model: Model,
    scan: LayerScan,
    *,
    quality: float | None = None,
    sparsity: float | None = None,
    scope: Scope = "global",
    pattern: Pattern | None = None,
    overrides: Sequence[tuple[str, float | None]] = (),
    exclude: Sequence[str] = (),
    allow_nonfinite: bool = False,
    reference: Mapping[TensorAddress, LayerStatistics] | None = None,
    progress: Progress | None = None,
) -> tuple[LayerPlan, ...]:
    """Decide for every layer which weights go.

    Args:
        model: The model; only read.
        scan: Its layers.
        quality: Threshold in standard deviations for layers without one of their own.
        sparsity: Instead of `quality`, the share of zeros to reach over all layers that are
            pruned and have no quality of their own.
        scope: Whether all of them reach `sparsity` together (global), or each does (layer).
        pattern: What zeros follow; a pattern N:M stands in for both quality and sparsity.
        overrides: Glob and quality of layers set apart; None leaves them as they are. The last
            match counts.
        exclude: Globs of layers to leave as they are, whatever else is said.
        allow_nonfinite: Leave layers with NaN or infinity as they are instead of raising.
        reference: Statistics whose standard deviations thresholds are counted in, by layer; those
            of the weights as they are by default.
        progress: Told about the work.

    Returns:
        One plan per layer, in the order of the scan.

    Raises:
        UsageError: A glob matches no layer, or not one of quality, sparsity and a pattern N:M is
            given.
        ModelError: NaN or infinity in a layer that would be pruned.
    """
    given = (quality, sparsity, pattern if isinstance(pattern, GroupPattern) else None)
    if sum(entry is not None for entry in given) != 1:
        raise UsageError(
            "give either a quality (-q), a target share (--sparsity) or a pattern such as 2:4"
        )
    choices = select(scan.layers, overrides=overrides, exclude=exclude, unprunable=scan.unprunable)
    layers = [weights_of(model, layer) for layer in scan.layers]
    progress = progress or _silent
    size = sum(weights.payload.nbytes for weights in layers)
    statistics = all_statistics(layers, advance=_counter(progress, "statistics", size))
    plans = [
        _drafted(*facts, quality, pattern, allow_nonfinite, reference or {})
        for facts in zip(scan.layers, layers, statistics, choices, strict=True)
    ]
    if pattern is not None:
        return _patterned(plans, pattern, sparsity, scope, progress)
    if sparsity is not None:
        plans = _aimed(plans, sparsity, scope, progress)
    return _counted(plans, progress)


def apply_plan(model: Model, plans: Sequence[LayerPlan]) -> Model:
    """The model with every plan carried out; layers that lose nothing keep their bytes.

    Pruned bytes are made while they are read: nothing is computed here.
    """
    pruned: dict[TensorAddress, Payload] = {}
    for plan in plans:
        if plan.changes and plan.keep is not None:
            pruned[plan.layer.address] = MaskedPayload(plan.weights, plan.keep)
        elif plan.changes and plan.threshold is not None:
            pruned[plan.layer.address] = PrunedPayload(plan.weights, plan.threshold)
    return model.with_payloads(pruned)


def _drafted(
    layer: Layer,
    weights: Weights,
    statistics: LayerStatistics,
    choice: Choice,
    quality: float | None,
    pattern: Pattern | None,
    allow_nonfinite: bool,
    reference: Mapping[TensorAddress, LayerStatistics],
) -> LayerPlan:
    """Plan with the quality's threshold, not counted yet."""
    reason = choice.off or _nonfinite(layer, statistics, allow_nonfinite) or prunability(statistics)
    if reason is None and pattern is not None:
        reason = misfit(layer, pattern)
    own = None if reason else quality if choice.quality is None else choice.quality
    counted = reference.get(layer.address, statistics)
    threshold = 0.0 if own is None else quality_threshold(own, counted)
    return LayerPlan(layer, weights, statistics, own, threshold, statistics.alive, reason)


def _nonfinite(layer: Layer, statistics: LayerStatistics, allowed: bool) -> str | None:
    """Reason to leave a layer with NaN or infinity; raises ModelError where not allowed."""
    if not statistics.nonfinite:
        return None
    count = f"{statistics.nonfinite:,} weight{'s' if statistics.nonfinite > 1 else ''}"
    if not allowed:
        raise ModelError(
            f"tensor '{layer.name}' has NaN or infinity in {count}; repair the model, or leave "
            "such layers as they are with --allow-nonfinite"
        )
    return f"NaN or infinity in {count}"


def _aimed(
    plans: Sequence[LayerPlan], sparsity: float, scope: Scope, progress: Progress
) -> list[LayerPlan]:
    """Plans with the thresholds that reach the target share in layers without a quality."""
    pool = [plan for plan in plans if plan.reason is None and plan.quality is None]
    layers = [plan.weights for plan in pool]
    # One pass for every 16 bits of the widest magnitudes that are compared.
    wide = (
        [any(w.wide for w in layers)] * len(layers)
        if scope == "global"
        else [w.wide for w in layers]
    )
    size = sum(
        weights.payload.nbytes * (4 if is_wide else 2)
        for weights, is_wide in zip(layers, wide, strict=True)
    )
    thresholds = iter(
        sparsity_thresholds(
            layers, sparsity, scope=scope, advance=_counter(progress, "thresholds", size)
        )
    )
    return [
        replace(plan, threshold=next(thresholds))
        if plan.reason is None and plan.quality is None
        else plan
        for plan in plans
    ]


def _patterned(
    plans: Sequence[LayerPlan],
    pattern: Pattern,
    sparsity: float | None,
    scope: Scope,
    progress: Progress,
) -> tuple[LayerPlan, ...]:
    """Plans that say which weights stay where zeros follow a pattern."""
    pool = [plan for plan in plans if plan.reason is None]
    found = keeps(
        [Patterned(p.layer, p.weights, None if p.quality is None else p.threshold) for p in pool],
        pattern,
        share=sparsity,
        scope=scope,
        advance=_counter(progress, "pattern", sum(p.weights.payload.nbytes for p in pool)),
    )
    kept = {plan.layer.address: entry for plan, entry in zip(pool, found, strict=True)}

    def decided(plan: LayerPlan) -> LayerPlan:
        if plan.layer.address not in kept:
            return plan
        keep, count = kept[plan.layer.address]
        threshold = None if plan.quality is None else plan.threshold
        return replace(plan, keep=keep, kept=count, threshold=threshold)

    return tuple(map(decided, plans))


def _counted(plans: Sequence[LayerPlan], progress: Progress) -> tuple[LayerPlan, ...]:
    """Plans with the number of weights that their thresholds leave."""
    size = sum(plan.weights.payload.nbytes for plan in plans if plan.threshold)
    counts = kept_counts(
        [plan.weights for plan in plans],
        [[plan.threshold] if plan.threshold else [] for plan in plans],
        advance=_counter(progress, "counts", size),
    )
    return tuple(
        replace(plan, kept=kept[0]) if kept else plan
        for plan, kept in zip(plans, counts, strict=True)
    )


def _counter(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Sums the bytes done of a stage, and tells the progress hook every full megabyte."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        before, done = done, done + more
        if done // MEGABYTE > before // MEGABYTE:
            progress(f"{stage} (MB)", done // MEGABYTE, total // MEGABYTE)

    return advance


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
