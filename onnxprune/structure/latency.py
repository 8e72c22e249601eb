"""How many times faster one model runs than another, measured side by side in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from ..comparison.interleaved import interleaved_seconds
from ..runtime import CannotRun, Claims, Feeds, open_session, open_size, random_feeds, run

__all__ = ["Race", "Speed"]


@dataclass(frozen=True)
class Speed:
    """Median seconds of one run of both models, and the median of their ratios round by round."""

    dense: float
    smaller: float
    ratio: float


class Race:
    """Measures models against a dense one, whose session stays open.

    Attributes:
        guessed: The size that open axes were given, for want of inputs; None where none was.

    Args:
        dense: The model that others are compared with.
        threads: Threads of a run; 0 for all cores.
        feeds: Inputs of one run; None: random ones.

    Raises:
        CannotRun: onnxruntime does not run the model.
    """

    guessed: int | None = None

    def __init__(self, dense: ModelProto, threads: int, feeds: Feeds | None = None) -> None:
        self._threads = threads
        claims: Claims = "all" if feeds is None else "constants"
        self._dense = open_session(dense.SerializeToString(), threads=threads, claims=claims)
        self._feeds = _working_feeds(self._dense) if feeds is None else feeds
        if feeds is None:
            self.guessed = open_size(self._dense, self._feeds)

    def against(self, smaller: ModelProto) -> Speed:
        """Run both in turn; raises CannotRun where the other model does not run."""
        other = open_session(smaller.SerializeToString(), threads=self._threads, claims=None)
        seconds = interleaved_seconds([self._dense, other], [self._feeds, self._feeds])
        dense, other_median = np.median(seconds, axis=1).tolist()
        return Speed(dense, other_median, float(np.median(seconds[0] / seconds[1])))


def _working_feeds(session: Any) -> Mapping[str, Any]:
    """Random inputs that the model takes: the first of several guesses at open sizes."""
    failure = CannotRun("there are no inputs to run it with")
    for feeds in random_feeds(session):
        try:
            run(session, feeds)
        except CannotRun as error:
            failure = error
        else:
            return feeds
    raise failure
