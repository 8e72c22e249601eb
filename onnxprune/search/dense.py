"""The unpruned model on the samples of a search: what it gives, and what it is measured by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.labels import LABELS
from ..data.source import Given, open_source
from ..data.specs import input_specs
from ..errors import DataError
from ..evaluation import model_session
from ..metrics.automatic import ends_in_sigmoid
from ..metrics.metric import Measured, Tally
from ..metrics.request import MetricRequest
from ..metrics.resolve import check_request, resolve
from ..model.model import Model
from ..repair.working import working_form
from ..runner import Runner, predictor
from .samples import Taken, take

__all__ = ["Dense", "Targets", "measured_dense"]

#: For each batch, what outputs are compared with.
Targets = tuple[tuple[np.ndarray, ...], ...]


@dataclass(frozen=True, eq=False)
class Dense:
    """The unpruned model, ready for its prunings to be measured like it.

    Attributes:
        model: In the form in which it is run.
        taken: The samples.
        names: The outputs that are wanted.
        targets: Labels, or its own outputs.
        measured: Its metric.
    """

    model: Model
    taken: Taken
    names: tuple[str, ...]
    targets: Targets
    measured: Measured


def measured_dense(
    source: Model,
    given: Given,
    wanted: int,
    request: MetricRequest,
    *,
    targets: bool = False,
    unlabelled: bool = False,
) -> Dense:
    """Take samples and measure a model on them.

    Args:
        source: The model.
        given: Samples, as `open_source` takes them.
        wanted: Most samples that are taken.
        request: The metric; the model itself is what others are compared with.
        targets: Whether whole-number labels may be values.
        unlabelled: Whether labels do not count.

    Raises:
        DataError: Samples, labels or outputs do not fit.
        UsageError: The metric makes no sense for the model.
        CannotRun: onnxruntime fails.
    """
    check_request(request)
    model = working_form(source)
    inputs = input_specs(model.proto)
    taken = take(open_source(given, inputs), inputs, wanted)
    reference = unlabelled or request.against_reference(labelled=bool(taken.labels))
    if not reference and not taken.labels:
        raise DataError(
            f"{taken.place} has no labels, and {request.given} needs them; add the right answers"
            f" as '{LABELS}'"
        )
    every = request.kind == "function"
    with model_session(model) as session:
        runner = Runner(predictor(session), inputs, every=every)
        outputs = [
            tuple(output[:count] for output in runner(feeds))
            for feeds, count in zip(taken.feeds, taken.counts, strict=True)
        ]
    answers: Targets = tuple(outputs) if reference else tuple((batch,) for batch in taken.labels)
    metric = resolve(
        request,
        answers[0][0],
        outputs[0][0],
        reference=reference,
        sigmoid=ends_in_sigmoid(source.proto),
        targets=targets,
        place=taken.place,
    )
    tally = Tally(metric, taken.place)
    for values, wanted_values in zip(outputs, answers, strict=True):
        tally.add(values, wanted_values)
    names = [info.name for info in model.proto.graph.output]
    return Dense(model, taken, tuple(names if every else names[:1]), answers, tally.measured())
