"""Latency of the models of a comparison, on the same inputs and in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.source import BatchSource
from ..errors import UsageError
from ..report.evaluation import Conditions, Timing
from ..runtime import CannotRun, Feeds, random_feeds, run, runtime_name
from ..timing import TimingConfig
from .interleaved import interleaved_seconds
from .models import Compared

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["check_batch", "timings_of"]

PERCENTILE = 90


def check_batch(models: Sequence[Compared], wanted: int | None) -> int:
    """Samples of a timed run.

    Args:
        models: The models.
        wanted: What was asked for.

    Raises:
        UsageError: A model insists on another number.
    """
    chosen, source = wanted, "batch-size"
    for one in models:
        fixed = one.fixed_batch
        if fixed is None or fixed == chosen:
            continue
        if chosen is not None:
            instead = "leave batch-size out" if source == "batch-size" else "--runs 0 times none"
            raise UsageError(
                f"'{one.name}' takes batches of {fixed} only, not of {chosen} as {source} says:"
                f" {instead}, or export the model with an open batch axis"
            )
        chosen, source = fixed, f"'{one.name}'"
    return 1 if chosen is None else chosen


def timings_of(
    models: Sequence[Compared],
    sessions: Sequence[onnxruntime.InferenceSession],
    source: BatchSource | None,
    config: TimingConfig,
    first: dict[str, np.ndarray] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Conditions, tuple[Timing, ...]]:
    """Time all models in turn.

    Args:
        models: The models.
        sessions: A session of each, with the threads that the configuration says.
        source: Where `first` is from.
        config: How to time.
        first: Samples to feed; None: random numbers.
        progress: Told of the runs done.

    Raises:
        CannotRun: onnxruntime fails, or no random inputs suit all models.
        UsageError: The batch size suits not all models.
    """
    batch = check_batch(models, config.batch_size)
    if first is None or source is None:
        feeds, inputs = _random(models, sessions, batch), "random inputs"
    else:
        feeds, inputs = [_taken(one, first, batch) for one in models], _title(source)

    def advance(done: int, total: int) -> None:
        if progress:
            progress("timing (runs)", done, total)

    seconds = interleaved_seconds(sessions, feeds, runs=config.runs, progress=advance)
    conditions = Conditions(
        runtime_name(), config.threads, batch, runs=seconds.shape[1], inputs=inputs
    )
    return conditions, tuple(_timing(row, seconds[0]) for row in seconds)


def _title(source: BatchSource) -> str:
    """What reports call the data, less what is in it."""
    return source.description.partition(":")[0]


def _timing(seconds: np.ndarray, first: np.ndarray) -> Timing:
    return Timing(
        median_ms=1000 * float(np.median(seconds)),
        p90_ms=1000 * float(np.percentile(seconds, PERCENTILE)),
        speed=float(np.median(first / seconds)),
    )


def _taken(one: Compared, samples: dict[str, np.ndarray], batch: int) -> Feeds:
    """The first samples, over again where there are too few."""
    feeds: dict[str, np.ndarray] = {}
    for spec in one.inputs:
        array = samples[spec.name]
        if not spec.shared:
            array = np.resize(array, (batch, *array.shape[1:])) if len(array) < batch else array
            array = array[:batch]
        feeds[spec.name] = array.astype(spec.dtype) if spec.dtype.kind == "f" else array
    return feeds


def _random(
    models: Sequence[Compared], sessions: Sequence[onnxruntime.InferenceSession], batch: int
) -> list[Feeds]:
    """Random inputs that all models run on: of the first model, in the widths of the others."""
    failure = CannotRun("there are no inputs to try")
    for guess in random_feeds(sessions[0], batch=batch):
        feeds = [
            {
                spec.name: guess[spec.name].astype(spec.dtype)
                if spec.dtype.kind == "f"
                else guess[spec.name]
                for spec in one.inputs
            }
            for one in models
        ]
        try:
            for one, session, values in zip(models, sessions, feeds, strict=True):
                named = one.name
                run(session, values)
        except CannotRun as error:
            failure = CannotRun(f"'{named}': {error}; give samples with val")
        else:
            return list(feeds)
    raise failure
