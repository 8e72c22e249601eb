"""The metric of every model, and its agreement with the first, in one epoch of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..data.checks import quoted
from ..data.labels import LABELS
from ..data.source import BatchSource
from ..errors import DataError, UsageError
from ..metrics.automatic import ends_in_sigmoid
from ..metrics.metric import Measured, Tally
from ..metrics.request import MetricRequest
from ..metrics.resolve import resolve
from ..report.evaluation import MetricFacts
from ..runner import Runner, batch_size, predictor
from ..runtime import CannotRun
from .models import Compared

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Compare", "metrics_of"]

FIRST = "the first model"
AGREEMENT = MetricRequest("agreement")


@dataclass(frozen=True)
class Compare:
    """What was measured.

    Attributes:
        metric: The metric; None where there is nothing to measure one model by.
        agreement: Agreement with the first model; None where that is the metric, or where there is
            one model only.
        samples: Number of samples.
        first: The first batch; None where nothing was run.
        notes: What a reader should know.
    """

    metric: MetricFacts | None
    agreement: MetricFacts | None
    samples: int = 0
    first: dict[str, np.ndarray] | None = None
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _One:
    """One model's part in the epoch; `apart` says why it has no agreement."""

    model: Compared
    runner: Runner
    sigmoid: bool
    metric: Tally | None = None
    agreement: Tally | None = None
    apart: str | None = None
    outputs: list[np.ndarray] = field(default_factory=list)


def metrics_of(
    models: Sequence[Compared],
    sessions: Sequence[onnxruntime.InferenceSession],
    source: BatchSource,
    request: MetricRequest,
    progress: Callable[[str, int, int], None] | None = None,
) -> Compare:
    """Measure all models on the same batches.

    Args:
        models: The models; the first is what others are to agree with.
        sessions: A session of each.
        source: Samples.
        request: The metric.
        progress: Told of the samples done.

    Raises:
        DataError: Labels, samples or outputs do not fit.
        UsageError: The metric makes no sense for the models.
        CannotRun: onnxruntime fails.
    """
    used = request.against_reference(labelled=source.labels is not None)
    if used and len(models) == 1:
        return _alone(request, source)
    every = request.kind == "function"
    ones = [
        _One(model, Runner(predictor(session), model.inputs, every=every), _sigmoid(model))
        for model, session in zip(models, sessions, strict=True)
    ]
    # Agreement is a column of its own beside a metric that is something else.
    beside = len(models) > 1 and not (used and request.kind in ("auto", "agreement"))
    done, head = 0, None
    for batch in source.epoch(0, _size(models), seed=None):
        head = head or batch
        for one in ones:
            one.outputs = _outputs(one, batch)
        first = ones[0].outputs
        for one in ones:
            wanted = first if used else [_labels(batch, source, request)]
            _count(one, request, wanted, used, source.name)
            if beside:
                _compare(one, ones[0])
        done += len(first[0])
        if progress:
            progress("measuring (samples)", done, source.samples or 0)
    if not done:
        raise DataError(f"{source.name} holds no samples; give at least one")
    return replace(_facts(ones, beside), first=head)


def _alone(request: MetricRequest, source: BatchSource) -> Compare:
    """A single model that only another one could be compared with."""
    if request.kind != "auto":
        raise UsageError(
            f"metric {request.given} compares with the first model"
            f"{'' if request.kind in ('cosine', 'agreement') else ' where data has no labels'}:"
            " name a second model, or another metric"
        )
    note = (
        f"{source.name} has no labels, and without them models are compared with the first: name a"
        " second one"
    )
    return Compare(None, None, notes=(note,))


def _size(models: Sequence[Compared]) -> int:
    """Samples of a batch, of which every model's fixed size is a part where that can be."""
    return max(batch_size(model.inputs) for model in models)


def _sigmoid(model: Compared) -> bool:
    return ends_in_sigmoid(model.model.proto)


def _outputs(one: _One, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return one.runner(batch)
    except (CannotRun, DataError) as error:
        raise type(error)(f"'{one.model.name}': {error}") from error


def _labels(
    batch: dict[str, np.ndarray], source: BatchSource, request: MetricRequest
) -> np.ndarray:
    if LABELS in batch:
        return batch[LABELS]
    raise DataError(
        f"{source.name} has no labels, and {request.given} needs them; add the right answers as"
        f" '{LABELS}'"
    )


def _count(
    one: _One, request: MetricRequest, wanted: Sequence[np.ndarray], used: bool, place: str
) -> None:
    """Add a batch to the model's metric."""
    if one.metric is None:
        try:
            metric = resolve(
                request, wanted[0], one.outputs[0],
                reference=used, sigmoid=one.sigmoid, place=place, other=FIRST,
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"'{one.model.name}': {error}") from error
        one.metric = Tally(metric, place)
    one.metric.add(one.outputs, wanted)


def _compare(one: _One, first: _One) -> None:
    """Add a batch to the model's agreement with the first, where they can be compared."""
    if one.apart is not None:
        return
    if one.agreement is None:
        try:
            metric = resolve(
                AGREEMENT, first.outputs[0], one.outputs[0],
                reference=True, sigmoid=one.sigmoid, other=FIRST,
            )  # fmt: skip
        except DataError as error:
            one.apart = str(error)
            return
        if first.agreement is not None and first.agreement.metric.share != metric.share:
            one.apart = "its outputs are of another kind than those of the first model"
            return
        one.agreement = Tally(metric, "the data")
    one.agreement.add(one.outputs, first.outputs)


def _facts(ones: Sequence[_One], beside: bool) -> Compare:
    metrics = [one.metric.measured() if one.metric else None for one in ones]
    found = [one.agreement.measured() if one.agreement else None for one in ones]
    notes = tuple(
        f"agreement of '{one.model.name}' was not measured: {one.apart}"
        for one in ones
        if one.apart is not None
    )
    measured = next(entry for entry in metrics if entry is not None)
    agreement = _metric_facts(found) if beside and any(found) else None
    return Compare(_metric_facts(metrics), agreement, measured.samples, notes=notes)


def _metric_facts(measured: Sequence[Measured | None]) -> MetricFacts:
    metrics = [entry.metric for entry in measured if entry is not None]
    metric, names = metrics[0], tuple(dict.fromkeys(one.name for one in metrics))
    if len({(one.better, one.share) for one in metrics}) > 1:
        raise UsageError(
            f"the models are of different kinds: their metrics would be {quoted(names)}; name one"
            " metric that fits all"
        )
    return MetricFacts(
        name=" or ".join(names),
        better=metric.better,
        share=metric.share,
        values=tuple(None if entry is None else entry.value for entry in measured),
        errors=tuple(None if entry is None else entry.error for entry in measured),
    )
