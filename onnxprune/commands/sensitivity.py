"""``onnxprune sensitivity``: what each layer can spare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..config import OutputConfig
from ..errors import UsageError
from ..flags import CHECKING, OUTPUT, SELECTION, flag, whole_flag, worded_flag
from ..metrics.request import Better, MetricRequest
from ..report.files import check_target, write_text
from ..report.progress import progress_line
from ..search.config import SAMPLES, ScanConfig, parse_numbers
from .delivery import check_places, deliver

__all__ = ["SENSITIVITY_EXAMPLES", "sensitivity_command"]

SENSITIVITY_EXAMPLES = """\
Examples
  onnxprune sensitivity model.onnx --val val.npz
  onnxprune sensitivity model.onnx --val val.npz --sparsities 0.5,0.9 --plot layers.svg
  onnxprune sensitivity model.onnx --val inputs.npz --calibrate inputs.npz   without labels"""

MODEL_HELP = "The ONNX model; its external data is found beside it."

PICTURE = "the picture"


def sensitivity_command(
    model: Annotated[Path, Parameter(name="MODEL", help=MODEL_HELP)],
    /,
    *,
    val: Annotated[
        str | None,
        worded_flag(
            "Measure on these samples and labels: a .npz file, a folder of .npy files, or"
            " module:function. Without labels, it is agreement with the unpruned model.",
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
    samples: Annotated[int, whole_flag(ScanConfig, "samples", "--samples", CHECKING)] = SAMPLES,
    jobs: Annotated[int | None, whole_flag(ScanConfig, "jobs", "--jobs", CHECKING)] = None,
    sparsities: Annotated[
        str | None, flag(ScanConfig, "sparsities", "--sparsities", SELECTION, metavar="S,S")
    ] = None,
    qualities: Annotated[
        str | None, flag(ScanConfig, "qualities", "--qualities", SELECTION, metavar="Q,Q")
    ] = None,
    calibrate: Annotated[
        str | None,
        worded_flag(
            "Refit each pruned layer on these samples, without labels, before it is measured.",
            "--calibrate",
            SELECTION,
            metavar="DATA",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, flag(ScanConfig, "exclude", "--exclude", SELECTION, metavar="GLOB")
    ] = None,
    embeddings: Annotated[bool, flag(ScanConfig, "embeddings", "--embeddings", SELECTION)] = False,
    allow_nonfinite: Annotated[
        bool, flag(ScanConfig, "allow_nonfinite", "--allow-nonfinite", SELECTION)
    ] = False,
    plot: Annotated[
        Path | None,
        worded_flag("Draw a picture of it in this .svg file.", "--plot", OUTPUT, metavar="FILE"),
    ] = None,
    json: Annotated[
        Path | None, flag(OutputConfig, "json", "--json", OUTPUT, metavar="FILE")
    ] = None,
    overwrite: Annotated[bool, flag(OutputConfig, "overwrite", "--overwrite", OUTPUT)] = False,
) -> int:
    """Prune each layer alone, to several degrees, and measure what that costs."""
    if val is None:
        raise UsageError("sensitivity is measured on samples: name them with --val")
    config = ScanConfig(
        sparsities=parse_numbers(sparsities, "sparsities"),
        qualities=parse_numbers(qualities, "qualities"),
        exclude=tuple(exclude or ()),
        embeddings=embeddings,
        allow_nonfinite=allow_nonfinite,
        samples=samples,
        jobs=jobs,
    )
    request = MetricRequest(metric, metric_better)
    places = OutputConfig(json=json, overwrite=overwrite, val=val)
    check_places(places, (model,))
    _check_plot(plot, places, model)
    from ..search.sensitivity import scan_file

    with progress_line() as progress:
        report = scan_file(
            model,
            config,
            val=val,
            metric=request,
            calibrate=calibrate,
            progress=progress,
            outputs=[path for path in (plot, places.json_file) if path is not None],
        )
    if plot is not None:
        write_text(report.picture(), plot, PICTURE)
    deliver(report, places)
    return 0


def _check_plot(plot: Path | None, places: OutputConfig, model: Path) -> None:
    """Refuse a picture that cannot be made, or not there."""
    if plot is None:
        return
    if plot.suffix.lower() != ".svg":
        raise UsageError(
            f"plot is {str(plot)!r}: pictures are drawn as SVG, so give a name that ends in .svg"
            " (browsers show it, and Inkscape or rsvg-convert make a PNG of it)"
        )
    if places.json_file is not None and places.json_file.resolve() == plot.resolve():
        raise UsageError(
            f"the JSON report and the picture are both {str(plot)!r}: give one another name"
        )
    check_target(plot, PICTURE, overwrite=places.overwrite, inputs=(model,))
