"""``onnxprune evaluate``: models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..config import OutputConfig
from ..errors import UsageError
from ..flags import CHECKING, OUTPUT, flag, whole_flag, worded_flag
from ..metrics.request import Better, MetricRequest, check_use
from ..report.progress import progress_line
from ..timing import TimingConfig
from .delivery import check_places, deliver

__all__ = ["EVALUATE_EXAMPLES", "evaluate_command"]

EVALUATE_EXAMPLES = """\
Examples
  onnxprune evaluate model.onnx model.pruned.onnx --val val.npz
  onnxprune evaluate a.onnx b.onnx            bytes, weights and latency
  onnxprune evaluate a.onnx b.onnx --val val.npz --runs 0 --json -"""


def evaluate_command(
    *models: Annotated[
        Path, Parameter(name="MODEL", help="ONNX models that take the same inputs.")
    ],
    val: Annotated[
        str | None,
        worded_flag(
            "Measure on these samples and labels: a .npz file, a folder of .npy files, or"
            " module:function. Without labels, it is agreement with the first model.",
            "--val",
            CHECKING,
            metavar="DATA",
        ),
    ] = None,
    metric: Annotated[
        str | None, flag(MetricRequest, "given", "--metric", CHECKING, metavar="M")
    ] = None,
    metric_better: Annotated[
        Better | None, flag(MetricRequest, "better", "--metric-better", CHECKING, metavar="WAY")
    ] = None,
    runs: Annotated[int | None, whole_flag(TimingConfig, "runs", "--runs", CHECKING)] = None,
    threads: Annotated[int, whole_flag(TimingConfig, "threads", "--threads", CHECKING)] = 1,
    batch_size: Annotated[
        int | None, whole_flag(TimingConfig, "batch_size", "--batch-size", CHECKING)
    ] = None,
    json: Annotated[
        Path | None, flag(OutputConfig, "json", "--json", OUTPUT, metavar="FILE")
    ] = None,
    overwrite: Annotated[bool, flag(OutputConfig, "overwrite", "--overwrite", OUTPUT)] = False,
) -> int:
    """Compare models: metric, agreement with the first, bytes, weights kept, and latency."""
    if not models:
        raise UsageError(
            "no model given: name one or more, as in 'onnxprune evaluate a.onnx b.onnx --val"
            " val.npz'"
        )
    request = MetricRequest(metric, metric_better)
    check_use(request, val)
    timing = TimingConfig(runs, threads, batch_size)
    places = OutputConfig(json=json, overwrite=overwrite, val=val)
    check_places(places, models)
    from ..comparison.evaluate import evaluate_files

    with progress_line() as progress:
        report = evaluate_files(
            models,
            val=val,
            metric=request,
            timing=timing,
            progress=progress,
            report=places.json_file,
        )
    deliver(report, places)
    return 0
