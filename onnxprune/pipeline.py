"""The whole chain: layers are found, a plan is made and applied, dropout ratios follow, accuracy is
won back, the result is stored, checked and reported. Both doors, the command and the Python API, go
through here."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import verify
from .calibration import Calibration
from .config import PruneConfig
from .data.source import Given
from .data.specs import input_specs
from .errors import ModelError
from .evaluation import Meter
from .finetune import FineTune
from .graph.dropout import DropoutSite, find_dropouts
from .graph.layer import LayerScan
from .graph.layers import find_layers
from .means import Means, pruning
from .metrics.request import AUTOMATIC, MetricRequest
from .model.budget import store_within_limit
from .model.carriers import Stored
from .model.compressed import CompressedSize, compressed_size, file_blocks
from .model.external_data import map_file
from .model.model import Model
from .model.output import stage_model, unwritten
from .model.save import serialised
from .model.staging import check_target, staging
from .outcome import Outcome
from .pruning.mask import kept_curve
from .pruning.plan import LayerPlan, make_plan
from .pruning.threshold import quality_threshold
from .report.progress import TrainingProgress
from .report.repair import Repair
from .report.report import Accuracy, CheckResult, InspectReport, Report
from .report.search import Search
from .report.training import Training
from .reporting import Writing, inspection, summary
from .search.bound import Held
from .search.goal import DropGoal

__all__ = [
    "Progress",
    "Pruned",
    "input_gzip",
    "inspect_model",
    "nothing_prunable",
    "prune_model",
    "report_unwritten",
    "write_pruned",
]

#: Qualities that `inspect` counts.
QUALITIES = (0.25, 0.5, 1.0, 1.5, 2.0)

#: Called with what is being done, how many steps are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pruned:
    """A pruned model in memory, dense, with everything that led to it."""

    source: Model
    model: Model
    config: PruneConfig
    scan: LayerScan
    plans: tuple[LayerPlan, ...]
    dropouts: tuple[tuple[DropoutSite, float], ...]
    accuracy: Accuracy | None
    seconds: float
    training: Training | None = None
    repair: Repair | None = None
    warnings: tuple[str, ...] = ()
    search: Search | None = None
    held: Held | None = None


def prune_model(
    source: Model,
    config: PruneConfig,
    *,
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
    """Prune every layer that the configuration asks for; `source` stays as it is.

    Args:
        source: The trained model.
        config: What to prune and how.
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
    prune, described = pruning(source, calibrate, calibration)
    targets = finetune is not None and finetune.loss in ("mse", "l1")
    meter = None
    if val is not None:
        meter = Meter(val, reference=source, targets=targets, request=metric)
    before = meter(source) if meter is not None else None
    scan = find_layers(source, embeddings=config.embeddings)
    if not scan.layers and config.quality != 0:
        raise nothing_prunable(scan)
    means = Means(
        source, scan, prune, described, meter, train, finetune, progress, training_progress
    )
    found = None
    if goal is None:
        done = means.run(config)
    else:
        assert val is not None  # both doors see to it
        found = means.search(config, goal, metric, val)
        config, done = found.config, found.outcome
    return Pruned(
        source,
        done.model,
        config,
        scan,
        done.plans,
        done.dropouts,
        _accuracy(meter, before, done),
        time.perf_counter() - started,
        done.training,
        done.repair,
        done.warnings,
        None if found is None else found.facts,
        None if found is None else found.held,
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


def inspect_model(
    model: Model, *, embeddings: bool = False, progress: Progress | None = None
) -> InspectReport:
    """What is prunable in a model, what it holds, and what a few qualities would leave."""
    started = time.perf_counter()
    scan = find_layers(model, embeddings=embeddings)
    plans = make_plan(model, scan, quality=0.0, allow_nonfinite=True, progress=progress)
    kept = [
        tuple(kept_curve(plan.weights, [quality_threshold(q, plan.statistics) for q in QUALITIES]))
        for plan in plans
    ]
    dropouts = find_dropouts(model, scan.layers)
    seconds = time.perf_counter() - started
    return inspection(model, scan, plans, kept, dropouts, QUALITIES, seconds)


def write_pruned(
    pruned: Pruned, output: Path, *, overwrite: bool, progress: Progress | None = None
) -> Report:
    """Store a pruned model in the form that its configuration asks for, check it, report.

    Raises:
        OutputError: The target can't be written or must not be, or the written file fails a
            check; the old file, if any, is then still there.
    """
    started = time.perf_counter()
    inputs = pruned.source.origin.files
    target = check_target(output, overwrite=overwrite, inputs=inputs)
    stored, external = _stored(pruned)
    with staging(target) as stage:
        _tell(progress, "writing")
        staged = stage_model(stored.model, stage, target, external=external, inputs=inputs)
        checks = _checks(staged.path, staged.bytes, pruned, progress)
        _tell(progress, "measuring")
        gzip = _gzip_sizes(pruned.source, staged.files, staged.bytes)
        staged.commit()
    seconds = time.perf_counter() - started
    return summary(pruned, Writing(stored, staged.bytes, *gzip, seconds, output, checks))


def report_unwritten(pruned: Pruned, name: str = "model.onnx") -> Report:
    """The report of a pruned model that is written nowhere.

    Its bytes are what a file of this name, and its data file if it needs one, would take.
    """
    started = time.perf_counter()
    stored, external = _stored(pruned)
    size, blocks = unwritten(stored.model, name, external=external)
    gzip = input_gzip(pruned.source), compressed_size(blocks, size)
    seconds = time.perf_counter() - started
    return summary(pruned, Writing(stored, size, *gzip, seconds))


def _stored(pruned: Pruned) -> tuple[Stored, bool]:
    """The model in its sparse forms, and whether it needs a data file."""
    addresses = [plan.layer.address for plan in pruned.plans]
    return store_within_limit(pruned.model, addresses, pruned.config.format)


def _checks(
    path: Path, size: int, pruned: Pruned, progress: Progress | None
) -> tuple[CheckResult, ...]:
    """The written file is read back and checked always, and run unless that was declined."""
    _tell(progress, "checking")
    weights = verify.check_weights(path, pruned.model)
    form = verify.check_format(path, size, pruned.source)
    held = pruned.held
    bound = () if held is None else (held.check(path, input_specs(pruned.model.proto)),)
    if not pruned.config.check:
        return weights, form, CheckResult("onnxruntime", "skipped", "--no-check"), *bound
    return weights, form, verify.check_runtime(path, size, pruned.model), *bound


def _gzip_sizes(
    source: Model, written: tuple[Path, ...], size: int
) -> tuple[CompressedSize, CompressedSize]:
    """Compressed bytes of the input and of the written files, side by side in two threads."""
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(input_gzip, source)
        after = pool.submit(compressed_size, file_blocks(map(map_file, written)), size)
        return before.result(), after.result()


def input_gzip(source: Model) -> CompressedSize:
    """Compressed bytes of a model's files, or of the file that it would be."""
    if files := source.origin.files:
        buffers = [map_file(file) for file in files]
        return compressed_size(file_blocks(buffers), sum(map(len, buffers)))
    joined = serialised(source.proto, source.payloads)
    return compressed_size(joined.blocks(), joined.size)


def _tell(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(what, 0, 0)
