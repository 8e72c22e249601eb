"""The door to comparisons: models in, a report out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from ..api import check_report
from ..data.source import Given, open_source
from ..metrics.request import AUTOMATIC, Better, GivenMetric, MetricRequest, check_use
from ..metrics.resolve import check_request
from ..model.sources import read
from ..report.evaluation import EvaluationReport
from ..report.report import tool_version
from ..soundness import blaming
from ..timing import TimingConfig
from .metrics import Compare, metrics_of
from .models import Compared, compared, described, opened
from .timings import check_batch, timings_of

__all__ = ["evaluate", "evaluate_files"]

Progress = Callable[[str, int, int], None]


def evaluate(
    models: object,
    *,
    val: Given | None = None,
    metric: GivenMetric | None = None,
    metric_better: Better | None = None,
    runs: int | None = None,
    threads: int = 1,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Compare models: metric, agreement with the first, bytes, weights and latency.

    All models see the same batches. Their timed runs take turns, so that whatever else the machine
    does falls on all alike.

    Args:
        models: A sequence of models, each as `onnxprune.prune` takes them, or a single one. They
            must take the same inputs.
        val: Samples, as for `onnxprune.prune`. Without labels, what counts is agreement with the
            first model.
        metric: As for `onnxprune.prune`; the first model stands for the unpruned one.
        metric_better: As for `onnxprune.prune`.
        runs: Timed runs of each model; 0 for none; None: as many as take two seconds.
        threads: Threads of a timed run; 0 for all cores.
        batch_size: Samples of a timed run; None: 1, or what the models insist on.
        progress: Called with what is being done, steps done and steps in all.

    Returns:
        The report; ``print(report)`` shows it.

    Raises:
        OnnxPruneError: With one sentence that says what is wrong, where, and what to do.
    """
    request = MetricRequest(metric, metric_better)
    check_use(request, val)
    config = TimingConfig(runs, threads, batch_size)
    given = list(models) if _several(models) else [models]  # type: ignore[call-overload]
    return _evaluated(compared([read(model) for model in given]), val, request, config, progress)


def _several(models: object) -> bool:
    """Whether these are models and not one."""
    one = isinstance(models, (str, os.PathLike, ModelProto)) or hasattr(models, "graph")
    return isinstance(models, Sequence) and not one


def evaluate_files(
    paths: Sequence[Path],
    *,
    val: str | None = None,
    metric: MetricRequest = AUTOMATIC,
    timing: TimingConfig,
    progress: Progress | None = None,
    report: Path | None = None,
) -> EvaluationReport:
    """Compare model files, as the command line does.

    Args:
        paths: The files.
        val: Samples.
        metric: What is measured on them.
        timing: How runs are timed.
        progress: Told how far the work is.
        report: Where the caller will write the report; refused where that would replace a file
            of a model.
    """
    models = [read(path) for path in paths]
    if report is not None:
        for model in models:
            check_report(report, model.origin.files, None)
    with blaming(*models):
        return _evaluated(compared(models), val, metric, timing, progress)


def _evaluated(
    models: tuple[Compared, ...],
    val: Given | None,
    request: MetricRequest,
    config: TimingConfig,
    progress: Progress | None,
) -> EvaluationReport:
    started = time.perf_counter()
    check_request(request)
    timed = config.runs != 0
    batch = check_batch(models, config.batch_size) if timed else 1
    source = None if val is None else open_source(val, models[0].inputs)
    found = Compare(None, None)
    if source is not None:
        with opened(models) as sessions:
            found = metrics_of(models, sessions, source, request, progress)
    rows = [described(one) for one in models]
    conditions = None
    if timed:
        samples = found.first
        if source is not None and samples is None:
            samples = next(iter(source.epoch(0, batch, seed=None)))
        with opened(models, threads=config.threads) as sessions:
            conditions, timings = timings_of(models, sessions, source, config, samples, progress)
        rows = [replace(row, latency=each) for row, each in zip(rows, timings, strict=True)]
    return EvaluationReport(
        version=tool_version(),
        models=tuple(rows),
        data=None if source is None else source.description,
        samples=found.samples,
        metric=found.metric,
        agreement=found.agreement,
        conditions=conditions,
        seconds=time.perf_counter() - started,
        notes=found.notes,
    )
