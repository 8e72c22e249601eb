"""The Python door: prune and inspect models wherever they are held."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from .calibration import Calibration, RepairName
from .config import Criterion, Format, PruneConfig, Scope, unasked_quality, weights_scope
from .data.source import Given
from .errors import OutputError, UsageError
from .finetune import FineTune
from .metrics.request import AUTOMATIC, Better, GivenMetric, MetricRequest, check_use
from .model.carriers import store
from .model.save import to_proto
from .model.sources import read, to_graphsurgeon, to_ir, to_program
from .model.staging import check_target
from .pipeline import (
    AUTOMATIC_STRUCTURE,
    Progress,
    Pruned,
    inspect_model,
    prune_model,
)
from .report.progress import TrainingProgress
from .report.report import InspectReport, Report
from .search.goal import DropGoal, drop_goal
from .soundness import blaming
from .structure.config import Importance, StructureConfig
from .writing import report_unwritten, write_pruned

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Result", "default_output", "inspect", "prune", "prune_file"]


class Result:
    """A pruned model: saves itself, converts to what pipelines hold, and knows what was done.

    Attributes:
        report: Every fact of the summary; ``print(result.report)`` shows it.
    """

    def __init__(self, pruned: Pruned, source: object) -> None:
        self._pruned, self._source = pruned, source
        self._report: Report | None = None

    @property
    def report(self) -> Report:
        """What was done; bytes are those of the last file saved, or what a file would take."""
        if self._report is None:
            self._report = report_unwritten(self._pruned)
        return self._report

    @cached_property
    def model(self) -> ir.Model:
        """The pruned model as onnx_ir.Model, dense."""
        return to_ir(self._pruned.model)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Report:
        """Write the model in the form that was asked for, check the file, and report.

        Args:
            path: The file to write; weights of models that came with external data go to
                ``<path>.data`` beside it.
            overwrite: Replace an existing file.

        Raises:
            OutputError: The file can't be written, exists, is the input, or failed its check.
        """
        self._report = write_pruned(self._pruned, Path(path), overwrite=overwrite)
        return self._report

    def to_proto(self, format: Format = "dense") -> ModelProto:
        """The pruned model as one message, dense or in a sparse form (`PruneConfig.format`)."""
        model = self._pruned.model
        if format != "dense":
            model = store(model, self._pruned.addresses, format).model
        return to_proto(model)

    def to_graphsurgeon(self) -> Any:
        """The pruned model as an onnx_graphsurgeon.Graph, dense."""
        return to_graphsurgeon(self._pruned.model)

    def to_onnx_program(self) -> Any:
        """The pruned model as a torch ONNXProgram; it must have come from one.

        Raises:
            UsageError: The model came from something else.
        """
        return to_program(self._pruned.model, self._source)


def prune(
    model: object,
    *,
    quality: float | None = None,
    sparsity: float | None = None,
    scope: Scope = "global",
    criterion: Criterion | None = None,
    pattern: str | None = None,
    layers: Mapping[str, float | None] | None = None,
    exclude: Sequence[str] = (),
    embeddings: bool = False,
    format: Format = "sparse",
    check: bool = True,
    allow_nonfinite: bool = False,
    channels: float | None = None,
    macs: float | None = None,
    speedup: float | None = None,
    importance: Importance | None = None,
    align: int | None = None,
    shrink: bool | None = None,
    latency: bool | None = None,
    val: Given | None = None,
    metric: GivenMetric | None = None,
    metric_better: Better | None = None,
    calibrate: Given | None = None,
    repair: RepairName | None = None,
    samples: int | None = None,
    train: Given | None = None,
    finetune: FineTune | None = None,
    max_drop: float | None = None,
    trials: int | None = None,
    progress: Progress | None = None,
    training_progress: TrainingProgress | None = None,
) -> Result:
    """Prune a trained model; what was given is never changed.

    Args:
        model: A path, ``onnx.ModelProto``, ``onnx_ir.Model``, ``torch.onnx.ONNXProgram`` or
            ``onnx_graphsurgeon.Graph``.
        quality: Weights under quality x std of their layer go (Han et al. 2015). The default is
            1.0, and 0 where channels are removed and no sparsity is given.
        sparsity: Instead of a quality: the share of zeros to reach, 0 to 1.
        scope: Whether all layers together meet the sparsity, and lose channels (global), or each
            does (layer).
        criterion: What the least weights are: ``magnitude``, ``wanda`` or ``sparsegpt``; the last
            two need `calibrate`. By default magnitude, or what calibration samples say.
        pattern: Zeros follow a pattern: ``N:M`` along the input axis, or blocks such as ``4x1``
            (outputs x inputs).
        layers: Qualities of single layers by glob on weight or node name; None leaves them alone.
        exclude: Globs of layers to leave alone.
        embeddings: Prune embedding tables too.
        format: How `Result.save` stores weights: ``sparse``, ``constant``, ``gaps``, ``dense``.
        check: Whether `Result.save` reads back, checks and runs what it wrote.
        allow_nonfinite: Leave layers with NaN or infinity alone instead of refusing the model.
        channels: Remove this share of the channels, neurons and attention heads from the graph
            itself, before weights are pruned; see `onnxprune.structure.config.ChannelConfig`.
        macs: Instead: remove channels until this share of the operations is left.
        speedup: Instead: remove channels until onnxruntime is this many times faster here.
        importance: Which channels stay: ``l2``, or ``activation`` (with calibration samples).
        align: Keep a multiple of this many channels (default 8, and 16 of convolutions with dead
            ones).
        shrink: Remove neurons and channels that are dead, with the same outputs; by default after
            weights were pruned, in models of up to 512 MB.
        latency: Time runs before and after, when the report is made; by default where channels
            went.
        val: Samples to measure accuracy on, before and after: an .npz or a folder of .npy files
            (arrays named after the model's inputs, and ``labels``), ``"module:function"``, a
            mapping or tuple of arrays, an iterable of batches such as a torch DataLoader, or a
            function that returns one. Without labels, agreement with the unpruned model counts.
        metric: What is measured on them: ``top1``, ``top5`` and so on, ``mse``, ``cosine``,
            ``agreement``, ``"module:function"`` or a function of outputs and labels (see
            `onnxprune.metrics.function`); by default what suits labels and outputs.
        metric_better: ``higher`` or ``lower``, for a function that does not say so itself.
        calibrate: Samples, in the same forms, by what layers compute on which the pruned model is
            repaired; with a sparsity they also decide which weights go. Labels are not used.
        repair: What makes up for the weights that went: ``refit`` (the default), ``match``, ``bn``
            or ``none``; see `onnxprune.calibration.Calibration`.
        samples: Most calibration samples that are taken (default 512).
        train: Samples to retrain on, in the same forms. Without labels, what is left is trained
            towards the outputs of the unpruned model.
        finetune: How to retrain; the defaults of `FineTune` where left out.
        max_drop: Instead of a quality or sparsity: the most pruning whose metric on `val` is at
            most this much worse; in points of a share, hundredths of a cosine, else percent.
        trials: Most prunings that are measured on the way (default 24).
        progress: Called with what is being done, steps done and steps in all.
        training_progress: Called with a `TrainingState` after every step.

    Returns:
        The pruned model with its report.

    Raises:
        OnnxPruneError: With one sentence that says what is wrong, where, and what to do.
    """
    goal = drop_goal(max_drop, trials)
    if goal is not None:
        checkpoint = getattr(finetune, "checkpoint", None)
        hard = sparsity if quality is None else quality
        goal.check_use(val=val, hard=hard, checkpoint=checkpoint)
        sparsity = goal.start(pattern)
    structure = StructureConfig.of(
        channels=channels,
        macs=macs,
        speedup=speedup,
        align=align,
        importance=importance,
        scope=scope,
        shrink=shrink,
        latency=latency,
    )
    removes = structure.channels is not None
    config = PruneConfig(
        quality=unasked_quality(removes, quality, sparsity, pattern),
        sparsity=sparsity,
        scope=weights_scope(removes, scope, sparsity),
        criterion=criterion,
        pattern=pattern,
        layers=tuple((layers or {}).items()),
        exclude=tuple(exclude),
        embeddings=embeddings,
        format=format,
        check=check,
        allow_nonfinite=allow_nonfinite,
    )
    calibration = _calibration(calibrate, repair=repair, samples=samples)
    _check_finetune(finetune, train)
    request = MetricRequest(metric, metric_better)
    check_use(request, val)
    source = read(model)
    with blaming(source):
        pruned = prune_model(
            source,
            config,
            structure=structure,
            val=val,
            metric=request,
            calibrate=calibrate,
            calibration=calibration,
            train=train,
            finetune=finetune,
            goal=goal,
            progress=progress,
            training_progress=training_progress,
        )
    return Result(pruned, model)


def inspect(
    model: object,
    *,
    embeddings: bool = False,
    groups: bool = False,
    progress: Progress | None = None,
) -> InspectReport:
    """What is prunable in a model and what is not, and what a few qualities would remove.

    Args:
        model: As for `prune`.
        embeddings: Count embedding tables as layers.
        groups: Tell which channels go together, and what keeps the others (`report.coupled`).
        progress: Called with what is being done, steps done and steps in all.
    """
    source = read(model)
    with blaming(source):
        return inspect_model(source, embeddings=embeddings, groups=groups, progress=progress)


def _calibration(calibrate: object, **settings: Any) -> Calibration | None:
    """How to repair; None without calibration samples. Raises UsageError."""
    given = {name: value for name, value in settings.items() if value is not None}
    if calibrate is not None:
        return Calibration(**given)
    if given:
        raise UsageError(
            f"{next(iter(given))} says how to repair: give the samples to repair by as calibrate"
        )
    return None


def _check_finetune(finetune: object, train: object) -> None:
    if finetune is not None and not isinstance(finetune, FineTune):
        raise UsageError(f"finetune is {finetune!r}: give an onnxprune.FineTune")
    if finetune is not None and train is None:
        raise UsageError("finetune says how to retrain: give the samples to retrain on as train")


def prune_file(
    source: Path,
    output: Path | None,
    config: PruneConfig,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
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
    report: Path | None = None,
) -> Report:
    """Prune one file into another, as the command line does.

    Args:
        source: The model file.
        output: The file to write; None for `default_output`.
        config: What to prune and how to store it.
        overwrite: Replace an existing output.
        dry_run: Write nothing; the report says what would be written.
        structure: What to remove from the graph itself.
        val: Samples to measure accuracy on, as for `prune`.
        metric: What is measured on them.
        calibrate: Samples to repair by, as for `prune`.
        calibration: How to repair.
        train: Samples to retrain on, as for `prune`.
        finetune: How to retrain.
        goal: How much may be lost, where the most pruning is to be found.
        progress: Told how far the work is.
        training_progress: Told how far the training is.
        report: Where the caller will write the report; refused where that would replace a file
            of the model that is read or written.
    """
    target = default_output(source) if output is None else output
    model = read(source)
    if report is not None:
        check_report(report, model.origin.files, target)
    if not dry_run:
        check_target(target, overwrite=overwrite, inputs=model.origin.files)
    with blaming(model):
        pruned = prune_model(
            model,
            config,
            structure=structure,
            val=val,
            metric=metric,
            calibrate=calibrate,
            calibration=calibration,
            train=train,
            finetune=finetune,
            goal=goal,
            progress=progress,
            training_progress=training_progress,
        )
        if dry_run:
            return report_unwritten(pruned, target.name)
        return write_pruned(pruned, target, overwrite=overwrite, progress=progress)


def inspect_file(
    source: Path,
    *,
    embeddings: bool = False,
    groups: bool = False,
    progress: Progress | None = None,
    report: Path | None = None,
) -> InspectReport:
    """Inspect one file, as the command line does; arguments as for `inspect` and `prune_file`."""
    model = read(source)
    if report is not None:
        check_report(report, model.origin.files, None)
    with blaming(model):
        return inspect_model(model, embeddings=embeddings, groups=groups, progress=progress)


def check_report(report: Path, inputs: Sequence[Path], target: Path | None) -> None:
    """Refuse a place for the report that belongs to a model; raises OutputError."""
    for path in inputs:
        if report.exists() and report.samefile(path):
            raise OutputError(
                f"the JSON report would replace the input file '{report}'; give it another name"
            )
    if target is not None and report.resolve() in (
        target.resolve(),
        *(path.resolve() for path in target.parent.glob(f"{glob.escape(target.name)}*.data")),
        target.with_name(f"{target.name}.data").resolve(),
    ):
        raise OutputError(
            f"the JSON report and the model would both be '{report}'; give the report another name"
        )


def default_output(source: Path) -> Path:
    """Where a pruned model goes when no output is named: ``model.pruned.onnx`` beside it."""
    suffix = source.suffix or ".onnx"
    return source.with_name(f"{source.stem}.pruned{suffix}")
