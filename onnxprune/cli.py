"""The command line: arguments in, one call of `onnxprune.api`, a summary and an exit code out.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once. Exit codes: 0
done, 1 a model, file or check that failed, 2 wrong usage, 70 a bug, 130 interrupted (a training
leaves its checkpoint), 141 the reader of the output went away.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from .calibration import Calibration
from .commands.delivery import check_places, deliver
from .commands.evaluate import EVALUATE_EXAMPLES, evaluate_command
from .commands.sensitivity import SENSITIVITY_EXAMPLES, sensitivity_command
from .config import Format, OutputConfig, PruneConfig
from .finetune import FineTune
from .flags import (
    CHECKING,
    OTHER,
    OUTPUT,
    CalibrationFlags,
    SearchFlags,
    SelectionFlags,
    StructureFlags,
    TrainingFlags,
    flag,
)
from .metrics.request import Better, MetricRequest, check_use
from .report.failure import EXIT_BROKEN_PIPE, EXIT_FAILED, explain
from .report.format import safe
from .report.helppage import print_panel
from .report.progress import progress_line, training_progress
from .report.report import InspectReport, Report, tool_version
from .search.goal import DropGoal
from .stopping import stoppable
from .structure.config import StructureConfig

__all__ = ["build_app", "main"]

DESCRIPTION = """\
Prune a trained ONNX model: remove its smallest weights, store what is left in fewer bytes, and
say what became of it. The input is never changed."""

EXAMPLES = """\
Examples
  onnxprune model.onnx                        quality 1.0, model.pruned.onnx
  onnxprune model.onnx -q 0.5 -o small.onnx   prune less, name the output
  onnxprune model.onnx --layer 'conv*=0.4' --layer 'output*=off'
  onnxprune model.onnx --sparsity 0.9 --format gaps
  onnxprune model.onnx --dry-run --json -     the facts as JSON, no model
  onnxprune model.onnx --val val.npz          accuracy before and after
  onnxprune model.onnx --sparsity 0.9 --calibrate inputs.npz
  onnxprune model.onnx --max-drop 0.5 --val val.npz    as much as holds that
  onnxprune model.onnx --channels 0.5 --calibrate inputs.npz
  onnxprune model.onnx --train train.npz --val val.npz --epochs 10
  onnxprune model.onnx --train inputs/        retrain without labels
  onnxprune inspect model.onnx                what can be pruned, what not
  onnxprune evaluate model.onnx model.pruned.onnx --val val.npz
  onnxprune sensitivity model.onnx --val val.npz
  onnxprune ./inspect                         a file named like a command

Exit codes: 0 done, 1 failed, 2 wrong usage."""

INSPECT_EXAMPLES = """\
Examples
  onnxprune inspect model.onnx
  onnxprune inspect model.onnx --groups       which channels go together
  onnxprune inspect model.onnx --json -       the facts as JSON"""

EVERYTHING, NO_STRUCTURE, NO_SEARCH = SelectionFlags(), StructureFlags(), SearchFlags()
NO_CALIBRATION, NO_TRAINING = CalibrationFlags(), TrainingFlags()

MODEL_HELP = "The ONNX model; its external data is found beside it."

Model = Annotated[Path, Parameter(name="MODEL", help=MODEL_HELP)]
Json = Annotated[Path | None, flag(OutputConfig, "json", "--json", OUTPUT, metavar="FILE")]
Overwrite = Annotated[bool, flag(OutputConfig, "overwrite", "--overwrite", OUTPUT)]


@dataclass(frozen=True)
class Ways:
    """How to do what is asked for, besides which weights go."""

    structure: StructureConfig
    metric: MetricRequest
    calibration: Calibration | None
    finetune: FineTune | None
    goal: DropGoal | None


def prune_command(
    model: Model,
    /,
    *,
    selection: Annotated[SelectionFlags, Parameter(name="*")] = EVERYTHING,
    output: Annotated[
        Path | None,
        flag(OutputConfig, "output", "--output", OUTPUT, alias="-o", metavar="FILE"),
    ] = None,
    storage: Annotated[
        Format, flag(PruneConfig, "format", "--format", OUTPUT, metavar="FORM")
    ] = "sparse",
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, flag(OutputConfig, "dry_run", "--dry-run", OUTPUT)] = False,
    json: Json = None,
    quiet: Annotated[bool, flag(OutputConfig, "quiet", "--quiet", OUTPUT)] = False,
    val: Annotated[str | None, flag(OutputConfig, "val", "--val", CHECKING, metavar="DATA")] = None,
    metric: Annotated[
        str | None, flag(MetricRequest, "given", "--metric", CHECKING, metavar="M")
    ] = None,
    metric_better: Annotated[
        Better | None, flag(MetricRequest, "better", "--metric-better", CHECKING, metavar="WAY")
    ] = None,
    check: Annotated[
        bool, flag(PruneConfig, "check", "--check", CHECKING, negative="--no-check")
    ] = True,
    searching: Annotated[SearchFlags, Parameter(name="*")] = NO_SEARCH,
    removing: Annotated[StructureFlags, Parameter(name="*")] = NO_STRUCTURE,
    repairing: Annotated[CalibrationFlags, Parameter(name="*")] = NO_CALIBRATION,
    training: Annotated[TrainingFlags, Parameter(name="*")] = NO_TRAINING,
) -> int:
    """Prune a model, repair and retrain it where asked to, write it, and say what became of it."""
    goal, finetune = searching.goal(), training.finetune(val)
    if goal is not None:
        hard = selection.sparsity if selection.quality is None else selection.quality
        goal.check_use(val=val, hard=hard, checkpoint=training.checkpoint)
        selection = replace(selection, sparsity=goal.start(selection.pattern))
    config = selection.config(storage, check=check, channels=removing.chooses)
    request = MetricRequest(metric, metric_better)
    check_use(request, val)
    config.check_calibration(repairing.calibrate)
    places = OutputConfig(
        output, overwrite, dry_run, json, quiet, val, repairing.calibrate, training.train
    )
    structure = removing.structure(selection.scope)
    how = Ways(structure, request, repairing.calibration(), finetune, goal)
    return _prune(model, config, places, how)


def inspect_command(
    model: Model,
    /,
    *,
    embeddings: Annotated[
        bool,
        Parameter(
            name="--embeddings",
            help="List embedding tables (2-D tables read by Gather) as layers too.",
            negative="",
        ),
    ] = False,
    groups: Annotated[
        bool,
        Parameter(
            name="--groups",
            help="List which channels go together, and what keeps the others, too.",
            negative="",
        ),
    ] = False,
    json: Json = None,
    overwrite: Overwrite = False,
) -> int:
    """List layers with their statistics, what a few qualities would remove, and what stays."""
    from . import api

    places = OutputConfig(json=json, overwrite=overwrite)
    check_places(places, (model,))
    with progress_line() as progress:
        report: InspectReport = api.inspect_file(
            model,
            embeddings=embeddings,
            groups=groups,
            progress=progress,
            report=places.json_file,
        )
    deliver(report, places)
    return 0


def _prune(
    model: Path,
    config: PruneConfig,
    places: OutputConfig,
    how: Ways,
) -> int:
    from . import api

    check_places(places, (model,))
    with training_progress(quiet=places.quiet) as progress:
        report: Report = api.prune_file(
            model,
            places.output,
            config,
            overwrite=places.overwrite,
            dry_run=places.dry_run,
            val=places.val,
            structure=how.structure,
            metric=how.metric,
            calibrate=places.calibrate,
            calibration=how.calibration,
            train=places.train,
            finetune=how.finetune,
            goal=how.goal,
            progress=progress.stage,
            training_progress=progress.training,
            report=places.json_file,
        )
    deliver(report, places)
    return EXIT_FAILED if report.failed else 0


def build_app() -> App:
    """Return the command line as a cyclopts application."""
    app = App(
        name="onnxprune",
        help=DESCRIPTION,
        help_epilogue=EXAMPLES,
        help_format="plaintext",
        help_formatter=print_panel,
        usage="Usage: onnxprune MODEL [OPTIONS]\n       onnxprune inspect MODEL [OPTIONS]"
        "\n       onnxprune evaluate MODEL [MODEL ...] [OPTIONS]"
        "\n       onnxprune sensitivity MODEL --val DATA [OPTIONS]",
        version=tool_version,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.default(prune_command)
    app.command(
        inspect_command,
        name="inspect",
        usage="Usage: onnxprune inspect MODEL [OPTIONS]",
        help_epilogue=INSPECT_EXAMPLES,
    )
    app.command(
        evaluate_command,
        name="evaluate",
        usage="Usage: onnxprune evaluate MODEL [MODEL ...] [OPTIONS]",
        help_epilogue=EVALUATE_EXAMPLES,
    )
    app.command(
        sensitivity_command,
        name="sensitivity",
        usage="Usage: onnxprune sensitivity MODEL --val DATA [OPTIONS]",
        help_epilogue=SENSITIVITY_EXAMPLES,
    )
    app.register_install_completion_command(
        group=OTHER,
        help="Install completion for bash, zsh, fish or PowerShell, and load it at shell start.",
    )
    for name in ("--help", "--version"):
        app[name].group = OTHER
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (`sys.argv` by default) and return the exit code."""
    _prepare_streams()
    try:
        with stoppable():
            code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except SystemExit as done:  # rich and cyclopts end the program at times
        return done.code if isinstance(done.code, int) else EXIT_FAILED
    except (Exception, KeyboardInterrupt) as error:
        _discard_output()
        if isinstance(error, BrokenPipeError):
            return EXIT_BROKEN_PIPE
        if os.environ.get("ONNXPRUNE_DEBUG", "0") not in ("", "0"):
            import traceback

            traceback.print_exc()
        message, code = explain(error)
        print(f"onnxprune: {safe(message)}", file=sys.stderr)
        return code


def _run(tokens: Sequence[str]) -> int:
    app = build_app()
    with warnings.catch_warnings():
        # Numbers that overflow or are none are looked for, not warned of.
        for module in ("onnxprune", "numpy", r"onnx\."):
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=module)
        result = app(_joined(tokens), exit_on_error=False, print_error=False, verbose=False)
    return result if isinstance(result, int) else 0


def _joined(tokens: Sequence[str]) -> list[str]:
    """Write ``--json -`` as ``--json=-``: a lone dash would be taken for an option."""
    joined: list[str] = []
    for token in tokens:
        if token == "-" and joined[-1:] == ["--json"]:
            joined[-1] = "--json=-"
        else:
            joined.append(token)
    return joined


def _prepare_streams() -> None:
    """Let names that the terminal's encoding lacks be printed as escapes, and closed streams be."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Flush standard output; where nobody takes it, keep Python from trying again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
