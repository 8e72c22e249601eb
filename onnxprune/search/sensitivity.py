"""The door to sensitivity scans: a model in, a report out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..api import check_report
from ..data.source import Given, open_source
from ..data.specs import input_specs
from ..errors import ModelError
from ..graph.layer import LayerScan
from ..graph.layers import find_layers
from ..metrics.metric import Measured
from ..metrics.request import AUTOMATIC, Better, GivenMetric, MetricRequest
from ..model.model import Model
from ..model.sources import read
from ..pruning.plan import make_plan
from ..repair.repair import Repairer
from ..report.report import tool_version
from ..report.sensitivity import SensitivityPoint, SensitivityReport, SensitivityRow
from ..reporting import layer_operators, model_name
from ..runtime import CannotRun
from ..soundness import blaming
from ..stages import nothing_prunable
from .config import ScanConfig
from .dense import Dense, measured_dense
from .parallel import chosen_jobs
from .refitted import Refitted
from .scan import Progress, ScannedLayer, plans_of, prune_alone, scan_layers

__all__ = ["scan_file", "sensitivity"]

UNREACHED = "does not change what is measured"


def sensitivity(
    model: object,
    *,
    val: Given,
    metric: GivenMetric | None = None,
    metric_better: Better | None = None,
    sparsities: Sequence[float] = (),
    qualities: Sequence[float] = (),
    calibrate: Given | None = None,
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    allow_nonfinite: bool = False,
    samples: int = 512,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Prune each layer alone, to several degrees, and measure what that costs.

    Args:
        model: As for `onnxprune.prune`.
        val: Samples, as for `onnxprune.prune`. Without labels, what counts is agreement with the
            unpruned model.
        metric: As for `onnxprune.prune`.
        metric_better: As for `onnxprune.prune`.
        sparsities: Shares of zeros that each layer is pruned to; 0.5, 0.7, 0.8, 0.9 and 0.95 where
            nothing is given.
        qualities: Instead, multiples of each layer's standard deviation.
        calibrate: Samples, without labels, that each pruned layer is refitted on before it is
            measured.
        exclude: Globs of layers to leave alone.
        embeddings: Try embedding tables too.
        allow_nonfinite: Leave layers with NaN or infinity alone instead of refusing the model.
        samples: Most samples that are measured on.
        jobs: Prunings that are measured at once, each on one thread; None: one for each core, or
            what a ``joblib.parallel_config`` around the call says. Any backend of joblib serves,
            such as Dask's or Ray's.
        progress: Called with what is being done, steps done and steps in all.

    Returns:
        The report; ``print(report)`` shows it, ``report.picture()`` is an SVG.

    Raises:
        OnnxPruneError: With one sentence that says what is wrong, where, and what to do.
    """
    request = MetricRequest(metric, metric_better)
    config = ScanConfig(
        sparsities=tuple(sparsities),
        qualities=tuple(qualities),
        exclude=tuple(exclude),
        embeddings=embeddings,
        allow_nonfinite=allow_nonfinite,
        samples=samples,
        jobs=jobs,
    )
    return _scanned(read(model), config, val, request, calibrate, progress)


def scan_file(
    source: Path,
    config: ScanConfig,
    *,
    val: str,
    metric: MetricRequest = AUTOMATIC,
    calibrate: str | None = None,
    progress: Progress | None = None,
    outputs: Sequence[Path] = (),
) -> SensitivityReport:
    """Scan one file, as the command line does.

    Args:
        source: The model file.
        config: What is tried.
        val: Samples.
        metric: What is measured on them.
        calibrate: Samples that each pruned layer is refitted on.
        progress: Told how far the work is.
        outputs: Where the caller will write; refused where that would replace a file of the model.
    """
    model = read(source)
    for path in outputs:
        check_report(path, model.origin.files, None)
    with blaming(model):
        return _scanned(model, config, val, metric, calibrate, progress)


def _scanned(
    source: Model,
    config: ScanConfig,
    val: Given,
    request: MetricRequest,
    calibrate: Given | None,
    progress: Progress | None,
) -> SensitivityReport:
    started = time.perf_counter()
    scan = find_layers(source, embeddings=config.embeddings)
    if not scan.layers:
        raise nothing_prunable(scan)
    try:
        dense = measured_dense(source, val, config.samples, request)
        refit = None if calibrate is None else _refit(source, scan, config, calibrate)
        prune = prune_alone if refit is None else refit.prune
        plans = plans_of(source, scan, config)
        layers = scan_layers(plans, dense, jobs=config.jobs, prune=prune, progress=progress)
    except CannotRun as error:
        raise ModelError(f"sensitivity runs the model, and {error}") from error
    return SensitivityReport(
        version=tool_version(),
        model=model_name(source),
        data=dense.taken.description,
        samples=dense.taken.count,
        metric=dense.measured.metric.name,
        better=dense.measured.metric.better,
        share=dense.measured.metric.share,
        dense=dense.measured.value,
        dense_error=dense.measured.error,
        by="quality" if config.qualities else "sparsity",
        settings=config.qualities or config.sparsities,
        layers=tuple(_row(layer, config, dense, refit) for layer in layers),
        jobs=chosen_jobs(config.jobs),
        seconds=time.perf_counter() - started,
        calibration=None if refit is None else refit.description,
        warnings=() if refit is None else refit.warnings,
        notes=_notes(dense),
    )


@dataclass(frozen=True, eq=False)
class _Refit:
    """What refits layers, and what is said of it."""

    prune: Refitted
    description: str
    warnings: tuple[str, ...]


def _refit(source: Model, scan: LayerScan, config: ScanConfig, calibrate: Given) -> _Refit:
    data = open_source(calibrate, input_specs(source.proto), labelled=False)
    plans = make_plan(
        source,
        scan,
        quality=0.0,
        exclude=config.exclude,
        allow_nonfinite=config.allow_nonfinite,
    )
    repairer = Repairer(source, plans, data)
    used = f"{repairer.samples.count:,} samples of {data.description.partition(':')[0]}"
    return _Refit(Refitted(repairer), used, repairer.samples.warnings)


def _row(
    layer: ScannedLayer, config: ScanConfig, dense: Dense, refit: _Refit | None
) -> SensitivityRow:
    plan = layer.plan
    notes = [plan.reason, UNREACHED if layer.unreached else None]
    if refit is not None and plan.reason is None:
        reason = refit.prune.reasons.get(plan.layer.name)
        notes.append(f"not refitted: {reason}" if reason else None)
    settings = config.qualities or config.sparsities
    points = tuple(
        _point(setting, tried.plan.kept / tried.plan.weights.size, tried.measured, dense)
        for setting, tried in zip(settings, layer.tried, strict=False)
    )
    return SensitivityRow(
        layer=plan.layer.name,
        operators=layer_operators(plan.layer),
        nodes=tuple(use.node for use in plan.layer.uses),
        shape=plan.layer.shape,
        weights=plan.statistics.size,
        alive=plan.statistics.alive,
        points=points,
        note="; ".join(note for note in notes if note),
    )


def _point(setting: float, kept: float, measured: Measured, dense: Dense) -> SensitivityPoint:
    return SensitivityPoint(
        setting=setting,
        zeros=1 - kept,
        metric=measured.value,
        drop=dense.measured.drop(measured),
        drop_error=dense.measured.drop_error(measured),
    )


def _notes(dense: Dense) -> tuple[str, ...]:
    if dense.measured.metric.values is None:
        return ("a function gives one number for all samples: no standard errors are known",)
    return ()
