"""One measurement of a pruned model as a task that any process can do alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..metrics.metric import Measured, Metric, Tally
from ..runtime import open_session, run

__all__ = ["Trial", "measure"]


@dataclass(frozen=True, eq=False)
class Trial:
    """A model, what it is fed, and what its outputs are measured by.

    Attributes:
        model: Bytes of an ONNX model, as an array, which other processes map rather than copy.
        feeds: Values by name, batch by batch: its inputs, and perhaps outputs of the whole model
            that nothing changes.
        names: The whole model's outputs that are wanted.
        counts: Samples of each batch that count.
        targets: For each batch, what outputs are compared with.
        metric: The metric.
        place: What messages call the data.
        threads: Threads of a run; 0 for all cores.
    """

    model: np.ndarray
    feeds: tuple[dict[str, np.ndarray], ...]
    names: tuple[str, ...]
    counts: tuple[int, ...]
    targets: tuple[tuple[np.ndarray, ...], ...]
    metric: Metric
    place: str
    threads: int


def measure(trial: Trial) -> Measured:
    """Run the model and measure it.

    Raises:
        DataError: The outputs do not fit the metric.
        CannotRun: onnxruntime fails.
    """
    session = open_session(trial.model.tobytes(), threads=trial.threads, claims=None)
    made = [value.name for value in session.get_outputs()]
    taken = [value.name for value in session.get_inputs()]
    tally = Tally(trial.metric, trial.place)
    for feeds, count, targets in zip(trial.feeds, trial.counts, trial.targets, strict=True):
        values = run(session, {name: feeds[name] for name in taken})
        known = {**feeds, **dict(zip(made, values, strict=True))}
        outputs = [np.asarray(known[name])[:count] for name in trial.names]
        tally.add(outputs, targets)
    return tally.measured()
