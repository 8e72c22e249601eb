"""How many times faster one model runs than another, measured side by side in onnxruntime."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from ..errors import OnnxPruneError
from ..runtime import CannotRun, Feeds, open_session, random_feeds, run

__all__ = ["Race", "Speed"]

#: Rounds of one measurement, and seconds after which no further round begins.
LEAST, MOST, SECONDS = 7, 101, 2.0
#: Runs of a round last this long together: shorter ones say little on a busy machine.
ROUND = 0.004


@dataclass(frozen=True)
class Speed:
    """Median seconds of one run of both models, and the median of their ratios round by round."""

    dense: float
    smaller: float
    ratio: float


class Race:
    """Measures models against a dense one, whose session stays open.

    Args:
        dense: The model that others are compared with.
        threads: Threads of a run; 0 for all cores.
        feeds: Inputs of one run; None: random ones.

    Raises:
        CannotRun: onnxruntime does not run the model.
    """

    def __init__(self, dense: ModelProto, threads: int, feeds: Feeds | None = None) -> None:
        self._threads = threads
        self._dense = open_session(dense.SerializeToString(), threads=threads)
        self._feeds = _working_feeds(self._dense) if feeds is None else feeds

    def against(self, smaller: ModelProto) -> Speed:
        """Run both in turn; raises CannotRun where the other model does not run."""
        other = open_session(smaller.SerializeToString(), threads=self._threads)
        sessions = (self._dense, other)
        once = [max(_seconds(session, self._feeds, 2), 1e-6) for session in sessions]
        repeats = [max(1, round(ROUND / seconds)) for seconds in once]
        times: list[list[float]] = [[], []]
        end = time.perf_counter() + SECONDS
        for number in range(MOST):
            if number >= LEAST and time.perf_counter() > end:
                break
            for place in (0, 1) if number % 2 else (1, 0):
                seconds = _seconds(sessions[place], self._feeds, repeats[place])
                times[place].append(seconds)
        ratios = [dense / smaller for dense, smaller in zip(*times, strict=True)]
        medians = [statistics.median(each) for each in times]
        return Speed(medians[0], medians[1], statistics.median(ratios))


def _seconds(session: Any, feeds: Feeds, repeats: int) -> float:
    """Mean seconds of some runs."""
    started = time.perf_counter()
    for _ in range(repeats):
        run(session, feeds)
    return (time.perf_counter() - started) / repeats


def _working_feeds(session: Any) -> Mapping[str, Any]:
    """Random inputs that the model takes: the first of several guesses at open sizes."""
    failure: OnnxPruneError | None = None
    for feeds in random_feeds(session):
        try:
            run(session, feeds)
        except CannotRun as error:
            failure = error
        else:
            return feeds
    raise failure or CannotRun("there are no inputs to run it with")
