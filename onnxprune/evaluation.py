"""How good a model is on samples, measured in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from .data.labels import LABELS
from .data.source import BatchSource, Given, open_source
from .data.specs import InputSpec, input_specs, session_specs
from .errors import DataError
from .metrics.automatic import ends_in_sigmoid
from .metrics.metric import Measured, Tally
from .metrics.request import AUTOMATIC, MetricRequest
from .metrics.resolve import check_request, resolve
from .model.model import Model
from .model.save import INLINE_LIMIT, serialised, write_pair
from .runner import Predict, Recalled, Runner, batch_size, predictor
from .runtime import open_session

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "Measured",
    "Meter",
    "agreement",
    "evaluate",
    "evaluate_session",
    "model_session",
]


class Meter:
    """One metric of several versions of a model on the same samples.

    Args:
        given: Samples as `open_source` takes them; opened when the first model is measured.
        reference: The unpruned model, with which models must agree where samples have no labels.
            Without it, samples must have labels.
        targets: Whether labels may be values where they are whole numbers; see `choose_metric`.
        request: The metric.

    Raises:
        DataError: The metric is a function that cannot be imported.
        UsageError: Nothing says which values of it are better.
    """

    def __init__(
        self,
        given: Given,
        *,
        reference: Model | None = None,
        targets: bool = False,
        request: MetricRequest = AUTOMATIC,
    ) -> None:
        check_request(request)
        self._given = given
        self._targets = targets
        self._request = request
        self._reference = reference
        self._recalled = Recalled()
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

    @property
    def source(self) -> BatchSource | None:
        """The samples; None before the first measurement."""
        return self._source

    @property
    def classification(self) -> bool:
        """Whether labels are classes and the first output holds their scores."""
        labels = None if self._source is None else self._source.labels
        if self._measured is None or labels is None or labels.dtype.kind != "i":
            return False
        scores = sum(size > 1 for size in self._measured.shape) == 1
        return scores and all(size == 1 for size in labels.shape)

    @property
    def measured(self) -> Measured | None:
        """The last measurement in full."""
        return self._measured

    def __call__(self, model: Model) -> float:
        """The metric's value; raises DataError or CannotRun."""
        self._sigmoid = ends_in_sigmoid(model.proto)
        with model_session(model) as session:
            return self.measure(session, input_specs(model.proto))

    def measure(
        self, session: onnxruntime.InferenceSession, inputs: Sequence[InputSpec] | None = None
    ) -> float:
        """The metric's value for an open session of a model; raises DataError or CannotRun.

        Args:
            session: The session.
            inputs: What the model wants, where that is known better than the session says it.
        """
        known = session_specs(session)
        inputs = known if inputs is None else inputs
        if self._source is None:
            labelled = True if self._reference is None else None
            self._source = open_source(self._given, inputs, labelled=labelled)
        source = self._source
        used = self._request.against_reference(labelled=source.labels is not None)
        if self._reference is None or not used:
            self._measured = self._evaluated(session, inputs, None)
        elif self._recalled.complete(source, size := batch_size(inputs)):
            self._measured = self._evaluated(session, inputs, self._recalled)
        else:
            with model_session(self._reference) as reference:
                wanted = input_specs(self._reference.proto)
                self._recalled.open(reference, wanted, keep=source.samples is not None, size=size)
                self._measured = self._evaluated(session, inputs, self._recalled)
            self._recalled.close()
        return self._measured.value

    def _evaluated(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Sequence[InputSpec],
        reference: Recalled | None,
    ) -> Measured:
        assert self._source is not None
        return evaluate(
            predictor(session),
            inputs,
            self._source,
            sigmoid=self._sigmoid,
            targets=self._targets,
            reference=reference,
            request=self._request,
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
    other = Recalled()
    other.open(reference, session_specs(reference))
    predict, inputs = predictor(session), session_specs(session)
    request = MetricRequest("agreement")
    return evaluate(
        predict, inputs, source, sigmoid=sigmoid, reference=other, request=request
    ).value


def evaluate(
    predict: Predict,
    inputs: Sequence[InputSpec],
    source: BatchSource,
    *,
    sigmoid: bool = False,
    targets: bool = False,
    reference: Recalled | None = None,
    request: MetricRequest = AUTOMATIC,
) -> Measured:
    """Measure a model on one epoch of samples, in order.

    Args:
        predict: The model.
        inputs: What it wants; where a first axis has a fixed size, batches are cut to it and the
            last is filled up. Floats of another width are converted.
        source: The samples.
        sigmoid: Whether the first output ends in a Sigmoid.
        targets: Whether labels may be values where they are whole numbers; see `choose_metric`.
        reference: The model to compare with; None to measure by the labels.
        request: The metric.

    Raises:
        DataError: Labels or samples do not fit the model, or the metric.
        UsageError: The metric makes no sense for the model.
        CannotRun: onnxruntime fails.
    """
    runner = Runner(predict, inputs, every=request.kind == "function")
    tally: Tally | None = None
    for number, batch in enumerate(source.epoch(0, batch_size(inputs), seed=None)):
        outputs = runner(batch)
        if reference is not None:
            wanted = reference(number, batch, every=runner.every)
        else:
            wanted = [_labels(batch, source.name, request)]
        if tally is None:
            metric = resolve(
                request,
                wanted[0],
                outputs[0],
                reference=reference is not None,
                sigmoid=sigmoid,
                targets=targets,
                place=source.name,
            )
            tally = Tally(metric, source.name)
        tally.add(outputs, wanted)
    if tally is None:
        raise DataError(f"{source.name} holds no samples; give at least one")
    return tally.measured()


def _labels(batch: dict[str, np.ndarray], place: str, request: MetricRequest) -> np.ndarray:
    if LABELS in batch:
        return batch[LABELS]
    needs = f", and {request.given} needs them" if request.kind == "top" else ""
    raise DataError(f"{place} has no labels{needs}; add the right answers as '{LABELS}'")


@contextmanager
def model_session(model: Model, threads: int = 0) -> Iterator[onnxruntime.InferenceSession]:
    """A session over a model in memory; over 2 GB it goes through a temporary folder.

    Args:
        model: The model.
        threads: Threads of a run; 0 for all cores.
    """
    joined = serialised(model.proto, model.payloads)
    if joined.size <= INLINE_LIMIT:
        yield open_session(b"".join(joined.blocks()), threads=threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pair(model, Path(folder) / "model.onnx")
        yield open_session(Path(folder) / "model.onnx", threads=threads)
