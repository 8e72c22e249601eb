"""How long one run of a model takes, beside other models that take turns with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..runtime import Feeds, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["interleaved_seconds"]

#: A warm-up is at least so many runs and so many seconds of each model.
WARM_RUNS, WARM_SECONDS = 3, 0.2
#: Without a number of runs: as many as fit into this time for each model, within these limits.
SECONDS, LEAST_RUNS, MOST_RUNS = 2.0, 5, 200


def interleaved_seconds(
    sessions: Sequence[onnxruntime.InferenceSession],
    feeds: Sequence[Feeds],
    *,
    runs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Seconds of single runs [models, runs].

    All models take their turn in every round, each round beginning with the next one, so that
    whatever else the machine does falls on all alike. In its turn a model runs twice, and the
    second run counts: the first one finds what another model left in the caches.

    Args:
        sessions: The models.
        feeds: Inputs of each.
        runs: Rounds that are timed; None: `SECONDS` for each model.
        progress: Called with rounds done and rounds in all.

    Raises:
        CannotRun: onnxruntime fails.
    """
    count = len(sessions)
    seconds = _warmed(sessions, feeds)
    if runs is None:
        runs = round(min(max(SECONDS * count / (2 * seconds), LEAST_RUNS), MOST_RUNS))
    taken = np.empty((count, runs))
    for number in range(runs):
        for turn in range(count):
            at = (number + turn) % count
            run(sessions[at], feeds[at])
            start = time.perf_counter()
            run(sessions[at], feeds[at])
            taken[at, number] = time.perf_counter() - start
        if progress:
            progress(number + 1, runs)
    return taken


def _warmed(sessions: Sequence[onnxruntime.InferenceSession], feeds: Sequence[Feeds]) -> float:
    """Seconds of the last of the rounds that warm up memory, caches and clock speeds."""
    started = last = time.perf_counter()
    done, seconds = 0, 0.0
    while done < WARM_RUNS or last - started < WARM_SECONDS * len(sessions):
        for session, values in zip(sessions, feeds, strict=True):
            run(session, values)
        now = time.perf_counter()
        last, seconds = now, now - last
        done += 1
    return max(seconds, 1e-9)
