"""How long a run of a model takes before and after, measured side by side."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .comparison.interleaved import interleaved_seconds
from .model.model import Model
from .model.save import INLINE_LIMIT, serialised
from .report.report import Latency
from .runtime import CannotRun, Feeds, first_run, open_session, open_size, run, runtime_name

__all__ = ["latency_of"]

#: Threads of a timed run: times vary least on one.
THREADS = 1
#: As many runs of each model as fit into this time, within these limits: the summary waits for it.
SECONDS, LEAST, MOST = 0.5, 11, 201


def latency_of(before: Model, after: Model) -> Latency:
    """Run two models in turn on random inputs; the median of single runs counts.

    Args:
        before: A model.
        after: Another one with the same inputs.

    Raises:
        CannotRun: onnxruntime is absent, or one of the models does not run, or is too large.
    """
    sessions = [
        open_session(_bytes(model), threads=THREADS, claims="all") for model in (before, after)
    ]
    feeds, _ = first_run(sessions[0])
    seconds = interleaved_seconds(sessions, [feeds, feeds], runs=_runs(sessions[0], feeds))
    first, second = (float(np.median(row)) for row in seconds)
    return Latency(
        1000 * first,
        1000 * second,
        runtime_name(),
        THREADS,
        first / second,
        open_size(sessions[0], feeds),
    )


def _runs(session: Any, feeds: Feeds) -> int:
    started = time.perf_counter()
    run(session, feeds)
    taken = max(time.perf_counter() - started, 1e-9)
    return int(min(max(SECONDS / taken, LEAST), MOST))


def _bytes(model: Model) -> bytes:
    joined = serialised(model.proto, model.payloads)
    if joined.size > INLINE_LIMIT:
        raise CannotRun("the model is over 2 GB")
    return b"".join(joined.blocks())
