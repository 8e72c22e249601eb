"""How good a model is on samples, measured in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .data.labels import LABELS, check_labels
from .data.source import BatchSource, Given, open_source
from .data.specs import InputSpec, session_specs
from .errors import DataError
from .metrics import Metric, agreement_metric, choose_metric, ends_in_sigmoid
from .model.model import Model
from .model.save import INLINE_LIMIT, serialised, write_pair
from .runtime import open_session, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "Measured",
    "Meter",
    "Predict",
    "agreement",
    "evaluate",
    "evaluate_session",
]

BATCH = 64

#: From a batch by input name to the first output [N, ...].
Predict = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """A metric, its value, and the number of samples it was measured on."""

    metric: Metric
    value: float
    samples: int


class Meter:
    """One metric of several versions of a model on the same samples.

    Args:
        given: Samples as `open_source` takes them; opened when the first model is measured.
        reference: The unpruned model, with which models must agree where samples have no labels.
            Without it, samples must have labels.
        targets: Whether labels may be values where they are whole numbers; see `choose_metric`.
    """

    def __init__(
        self, given: Given, *, reference: Model | None = None, targets: bool = False
    ) -> None:
        self._given = given
        self._targets = targets
        self._reference = reference
        self._source: BatchSource | None = None
        self._sigmoid = reference is not None and ends_in_sigmoid(reference.proto)
        self._measured: Measured | None = None

    @property
    def metric(self) -> str:
        """Name of the metric; before the first measurement only "accuracy"."""
        return "accuracy" if self._measured is None else self._measured.metric.name

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Which values are better."""
        return "higher" if self._measured is None else self._measured.metric.better

    @property
    def share(self) -> bool:
        """Whether values lie from 0 to 1 and are shown as percentages."""
        return self._measured is None or self._measured.metric.share

    @property
    def samples(self) -> int:
        """Number of samples measured on; 0 before the first measurement."""
        return 0 if self._measured is None else self._measured.samples

    @property
    def description(self) -> str:
        """What the samples are; empty before the first measurement."""
        return "" if self._source is None else self._source.description

    def __call__(self, model: Model) -> float:
        """The metric's value; raises DataError or CannotRun."""
        self._sigmoid = ends_in_sigmoid(model.proto)
        with _session(model) as session:
            return self.measure(session)

    def measure(self, session: onnxruntime.InferenceSession) -> float:
        """The metric's value for an open session of a model; raises DataError or CannotRun."""
        if self._source is None:
            labelled = True if self._reference is None else None
            self._source = open_source(self._given, session_specs(session), labelled=labelled)
        if self._reference is None or self._source.labels is not None:
            self._measured = self._evaluated(session, None)
        else:
            with _session(self._reference) as reference:
                self._measured = self._evaluated(session, predictor(reference))
        return self._measured.value

    def _evaluated(
        self, session: onnxruntime.InferenceSession, reference: Predict | None
    ) -> Measured:
        assert self._source is not None
        return evaluate(
            predictor(session),
            session_specs(session),
            self._source,
            sigmoid=self._sigmoid,
            targets=self._targets,
            reference=reference,
        )


def evaluate_session(
    session: onnxruntime.InferenceSession, source: BatchSource, *, sigmoid: bool = False
) -> float:
    """The metric of an open session on labelled samples; arguments and errors of `evaluate`."""
    return evaluate(predictor(session), session_specs(session), source, sigmoid=sigmoid).value


def agreement(
    reference: onnxruntime.InferenceSession,
    session: onnxruntime.InferenceSession,
    source: BatchSource,
    *,
    sigmoid: bool = False,
) -> float:
    """How near a session is to a reference on the same samples; see `agreement_metric`."""
    predict, inputs = predictor(session), session_specs(session)
    other = predictor(reference)
    return evaluate(predict, inputs, source, sigmoid=sigmoid, reference=other).value


def predictor(session: onnxruntime.InferenceSession) -> Predict:
    """A session as a function."""
    return lambda feeds: np.asarray(run(session, feeds)[0])


def evaluate(
    predict: Predict,
    inputs: Sequence[InputSpec],
    source: BatchSource,
    *,
    sigmoid: bool = False,
    targets: bool = False,
    reference: Predict | None = None,
) -> Measured:
    """Measure a model on one epoch of samples, in order.

    Args:
        predict: The model.
        inputs: What it wants; where a first axis has a fixed size, batches are cut to it and the
            last is filled up. Floats of another width are converted.
        source: The samples.
        sigmoid: Whether the first output ends in a Sigmoid.
        targets: Whether labels may be values where they are whole numbers; see `choose_metric`.
        reference: The model to agree with; None to measure by the labels.

    Raises:
        DataError: Labels or samples do not fit the model.
        CannotRun: onnxruntime fails.
    """
    fixed = min((size for spec in inputs if (size := spec.fixed_batch)), default=None)
    metric: Metric | None = None
    total, entries, samples = 0.0, 0, 0
    for batch in source.epoch(0, _batch_size(fixed), seed=None):
        feeds = {spec.name: _cast(batch[spec.name], spec.dtype) for spec in inputs}
        output = _output(predict, feeds, fixed)
        if reference is not None:
            target = _output(reference, feeds, fixed)
            metric = metric or agreement_metric(target, sigmoid=sigmoid)
        elif LABELS in batch:
            target = batch[LABELS]
            metric = metric or choose_metric(
                target, output, sigmoid=sigmoid, targets=targets, place=source.name
            )
        else:
            raise DataError(f"{source.name} has no labels; add the right answers")
        if metric.classes is not None:
            check_labels(target, metric.classes, place=source.name, first=samples)
        values = metric.values(output, target)
        total += float(values.sum())
        entries += values.size
        samples += len(output)
    if metric is None:
        raise DataError(f"{source.name} holds no samples; give at least one")
    return Measured(metric, total / entries, samples)


def _batch_size(fixed: int | None) -> int:
    """Samples to ask for at a time: whole parts of the size that the model insists on."""
    return BATCH if fixed is None else fixed * max(1, BATCH // fixed)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats in the width that the session takes: data of a float16 model may feed its copy."""
    return array.astype(dtype, copy=False) if dtype.kind == "f" else array


def _output(predict: Predict, feeds: dict[str, np.ndarray], fixed: int | None) -> np.ndarray:
    """What a model gives for a batch, fed in parts of the size that it insists on."""
    count = len(next(iter(feeds.values())))
    if fixed is None or fixed == count:
        return _checked(predict(feeds), count)
    parts = []
    for start in range(0, count, fixed):
        part = {name: array[start : start + fixed] for name, array in feeds.items()}
        if (short := start + fixed - count) > 0:
            part = {name: np.concatenate([x, x[:1].repeat(short, 0)]) for name, x in part.items()}
        parts.append(_checked(predict(part), fixed))
    return np.concatenate(parts)[:count]


def _checked(output: np.ndarray, count: int) -> np.ndarray:
    """The output, if it has an entry for each sample."""
    length = len(output) if output.ndim else 0
    if length != count:
        raise DataError(
            f"the model's first output has {length} rows for {count} samples; it must have one "
            "for each sample to be measured"
        )
    return output


@contextmanager
def _session(model: Model) -> Iterator[onnxruntime.InferenceSession]:
    """A session over a model in memory; over 2 GB it goes through a temporary folder."""
    joined = serialised(model.proto, model.payloads)
    if joined.size <= INLINE_LIMIT:
        yield open_session(b"".join(joined.blocks()))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pair(model, Path(folder) / "model.onnx")
        yield open_session(Path(folder) / "model.onnx")
