"""The whole chain: channels that are chosen go, layers are found, a plan is made and applied,
dropout ratios follow, accuracy is won back, and what is dead goes. Both doors, the command and the
Python API, go through here; `writing` stores, checks and reports the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from .calibration import Calibration
from .config import PruneConfig
from .data.source import Given
from .errors import UsageError
from .evaluation import Meter
from .finetune import FineTune
from .graph.dropout import DropoutSite, find_dropouts
from .graph.layer import LayerScan
from .graph.layers import find_layers
from .grouping import coupled_channels
from .means import Means, pruning
from .metrics.request import AUTOMATIC, MetricRequest
from .model.model import Model
from .model.tensors import TensorAddress
from .outcome import Outcome
from .pruning.mask import kept_curve
from .pruning.plan import make_plan
from .pruning.threshold import quality_threshold
from .report.progress import TrainingProgress
from .report.repair import Repair
from .report.report import Accuracy, CheckResult, InspectReport
from .report.search import Search
from .report.structure import Structure
from .report.training import Training
from .reporting import inspection
from .search.bound import Held
from .search.goal import DropGoal
from .stages import LayerOutcome, ended_at, started_from
from .structure.config import StructureConfig

__all__ = ["AUTOMATIC_STRUCTURE", "Progress", "Pruned", "inspect_model", "prune_model"]

#: Qualities that `inspect` counts.
QUALITIES = (0.25, 0.5, 1.0, 1.5, 2.0)

#: Only what pruning leaves dead goes from the graph itself.
AUTOMATIC_STRUCTURE = StructureConfig()

#: Called with what is being done, how many steps are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pruned:
    """A pruned model in memory, dense, with everything that led to it.

    Attributes:
        source: The model as it came.
        model: The pruned one.
        config: What was asked for of the weights.
        structure: What was asked for of the graph.
        scan: Layers, and what is no layer, where weights were pruned.
        outcomes: What became of each layer.
        shape: What became of the graph.
    """

    source: Model
    model: Model
    config: PruneConfig
    structure: StructureConfig
    scan: LayerScan
    outcomes: tuple[LayerOutcome, ...]
    dropouts: tuple[tuple[DropoutSite, float], ...]
    accuracy: Accuracy | None
    seconds: float
    training: Training | None = None
    repair: Repair | None = None
    shape: Structure | None = None
    checks: tuple[CheckResult, ...] = ()
    warnings: tuple[str, ...] = ()
    search: Search | None = None
    held: Held | None = None

    @property
    def addresses(self) -> list[TensorAddress]:
        """The layers' tensors in the pruned model."""
        return [outcome.address for outcome in self.outcomes]


def prune_model(
    source: Model,
    config: PruneConfig,
    *,
    structure: StructureConfig = AUTOMATIC_STRUCTURE,
    val: Given | None = None,
    metric: MetricRequest = AUTOMATIC,
    calibrate: Given | None = None,
    calibration: Calibration | None = None,
    train: Given | None = None,
    finetune: FineTune | None = None,
    goal: DropGoal | None = None,
    progress: Progress | None = None,
    training_progress: TrainingProgress | None = None,
) -> Pruned:
    """Prune a model; `source` stays as it is.

    Channels go first, then weights; what is left is repaired and retrained, and what is dead then
    goes too.

    Args:
        source: The trained model.
        config: Which weights to prune and how.
        structure: What is removed from the graph itself.
        val: Samples on which the metric is measured, as `onnxprune.data.source.open_source` takes
            them. Without labels, agreement with the unpruned model is measured.
        metric: What is measured on them.
        calibrate: Samples, without labels, by which the pruned model is repaired.
        calibration: How it is repaired; the defaults where left out.
        train: Samples to retrain on.
        finetune: How to retrain; the defaults where left out.
        goal: Instead of a quality or sparsity: how much of the metric may be lost. The
            configuration's own sparsity is not used then. Needs validation data.
        progress: Told how far the work is.
        training_progress: Told how far the training is.

    Raises:
        ModelError: Nothing is prunable, a weight is not finite, or the model cannot be trained.
        UsageError: A glob matches no layer, or a setting of the training makes no sense here.
        DataError: The samples do not fit the model.
        Interrupted: The training was interrupted.
    """
    started = time.perf_counter()
    config.check_calibration(calibrate)
    _check_structure(structure, config, finetune)
    prune, described = pruning(source, calibrate, calibration)
    targets = finetune is not None and finetune.loss in ("mse", "l1")
    meter = None
    if val is not None:
        meter = Meter(val, reference=source, targets=targets, request=metric)
    before = meter(source) if meter is not None else None
    start = started_from(source, config, structure, prune, progress)
    means = Means(start, prune, described, meter, train, finetune, progress, training_progress)
    found = None
    if goal is None:
        done = means.run(config)
    else:
        assert val is not None  # both doors see to it
        found = means.search(config, goal, metric, val)
        config, done = found.config, found.outcome
    end = ended_at(start, done, config, structure, progress)
    return Pruned(
        source,
        end.model,
        config,
        structure,
        start.scan,
        end.outcomes,
        done.dropouts,
        _accuracy(meter, before, done),
        time.perf_counter() - started,
        done.training,
        done.repair if start.facts is None or done.changes else None,
        end.facts,
        end.checks,
        (*start.warnings, *done.warnings, *end.warnings),
        None if found is None else found.facts,
        None if found is None else found.held,
    )


def _check_structure(
    structure: StructureConfig, config: PruneConfig, finetune: FineTune | None
) -> None:
    """Refuse what does not go together."""
    channels = structure.channels
    resumable = finetune is not None and finetune.checkpoint is not None
    if channels is not None and channels.speedup is not None and resumable:
        raise UsageError(
            "a speedup is measured anew in every run, so that a checkpoint would not fit the model"
            " when the training goes on: give channels or macs with checkpoint"
        )
    if structure.shrink and config.pattern is not None:
        raise UsageError(
            f"shrink moves weights together, out of the pattern {config.pattern}: leave out one of"
            " the two"
        )


def _accuracy(meter: Meter | None, before: float | None, done: Outcome) -> Accuracy | None:
    """The metric before and after; None without validation data."""
    if meter is None or before is None:
        return None
    assert done.metric is not None  # it was measured on the same samples
    return Accuracy(
        meter.metric,
        before,
        done.metric,
        meter.samples,
        share=meter.share,
        better=meter.better,
        pruned=done.pruned,
    )


def inspect_model(
    model: Model,
    *,
    embeddings: bool = False,
    groups: bool = False,
    progress: Progress | None = None,
) -> InspectReport:
    """What is prunable in a model, what it holds, and what a few qualities would leave.

    Args:
        model: The model.
        embeddings: Count embedding tables as layers.
        groups: Find out which channels go together, too.
        progress: Told about the work.
    """
    started = time.perf_counter()
    scan = find_layers(model, embeddings=embeddings)
    plans = make_plan(model, scan, quality=0.0, allow_nonfinite=True, progress=progress)
    kept = [
        tuple(kept_curve(plan.weights, [quality_threshold(q, plan.statistics) for q in QUALITIES]))
        for plan in plans
    ]
    dropouts = find_dropouts(model, scan.layers)
    coupled = coupled_channels(model) if groups else None
    seconds = time.perf_counter() - started
    report = inspection(model, scan, plans, kept, dropouts, QUALITIES, seconds)
    return replace(report, coupled=coupled)
