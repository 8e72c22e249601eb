"""The goal of a search: validated once, shared by the command line and Python."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError
from ..options import documented, number, option, whole
from ..pattern import GroupPattern, parse_pattern

__all__ = ["TRIALS", "DropGoal", "drop_goal"]

#: Prunings that are measured by default.
TRIALS = 24


@documented
@dataclass(frozen=True)
class DropGoal:
    """How much may be lost; raises UsageError for a value that makes no sense."""

    max_drop: float = option(
        0.5,
        "Instead of a quality or sparsity: find the most pruning whose metric on --val is at most"
        " this much worse than the unpruned model's. Counted in points where the metric is a share"
        " (0.5 is half a point of accuracy) or a cosine (in hundredths), else in percent of the"
        " unpruned model's value.",
    )
    trials: int = option(
        TRIALS,
        "Measure at most this many prunings on the way to --max-drop. The default is"
        f" {TRIALS}; with --train, at most a third of them are retrained.",
    )

    def __post_init__(self) -> None:
        """Validate every field, and give it its plain type."""
        wanted = "a finite number of at least 0, such as 0.5"
        settle = object.__setattr__  # the dataclass is frozen for everybody else
        fits = lambda value: 0 <= value < math.inf  # noqa: E731 - a check is an argument here
        settle(self, "max_drop", number(self.max_drop, "max-drop", wanted, fits))
        settle(self, "trials", whole(self.trials, "trials", 3))

    def check_use(self, *, val: object, hard: object, checkpoint: object) -> None:
        """Refuse what a search cannot do without, or what it decides by itself.

        Args:
            val: Validation data; None where there is none.
            hard: A quality or sparsity that was given; None where none was.
            checkpoint: The folder of a training's checkpoint; None where there is none.

        Raises:
            UsageError: With what to change.
        """
        if val is None:
            raise UsageError("max-drop bounds what is lost on validation data: give val too")
        if hard is not None:
            raise UsageError(
                "max-drop finds out how hard to prune: leave out quality and sparsity, or max-drop"
            )
        if checkpoint is not None:
            raise UsageError(
                "max-drop retrains several prunings, and a checkpoint holds one: leave out"
                " checkpoint, or max-drop"
            )

    def start(self, pattern: str | None) -> float | None:
        """The sparsity that a configuration begins a search with; a pattern N:M needs none."""
        groups = pattern is not None and isinstance(parse_pattern(pattern), GroupPattern)
        return None if groups else 0.0


def drop_goal(max_drop: float | None, trials: int | None) -> DropGoal | None:
    """How much may be lost, and how many prunings may be measured; None where nothing is searched.

    Raises:
        UsageError: A value makes no sense, or trials are counted of no search.
    """
    if max_drop is None:
        if trials is not None:
            raise UsageError("trials counts the prunings that max-drop tries: give max-drop too")
        return None
    return DropGoal(max_drop) if trials is None else DropGoal(max_drop, trials)
