"""Metrics that are functions of the user's.

Such a function is called once, with the outputs for all samples and what they should be::

    def f1(outputs, labels):
        guesses = outputs.argmax(axis=1) == 1
        return 2 * (guesses & (labels == 1)).sum() / (guesses.sum() + (labels == 1).sum())

    f1.better = "higher"   # or "lower"
    f1.share = True        # it lies from 0 to 1: shown as a percentage, counted in points

`outputs` is an array [N, ...] where the model has one output, else a tuple of them in the model's
order. `labels` is int64 [N, ...] (classes) or float32 [N, ...] (values); where the data has no
labels, it is what the unpruned model gives, in the form of `outputs`. The function returns one
finite number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.functions import find_function
from ..data.stream import failed
from ..errors import DataError, UsageError
from .metric import Metric
from .request import Better, GivenMetric

__all__ = ["function_metric"]

WANTED = "of outputs and labels that returns a number"


def function_metric(given: GivenMetric, better: Better | None) -> Metric:
    """The metric that a function is.

    Args:
        given: The function, or ``module:function``: this RUNS that code.
        better: Which way is up; None: its attribute ``better`` says so.

    Raises:
        DataError: It cannot be imported.
        UsageError: Nothing says which way is up.
    """
    call = _Call(given)
    way = better or getattr(call.function, "better", None)
    if way not in ("higher", "lower"):
        attribute = f"{call.name.rpartition(':')[2]}.better = 'higher'"
        said = "does not say which way is up" if way is None else f"has better = {way!r}"
        raise UsageError(
            f"metric '{call.name}' {said}: add --metric-better higher (or lower; in Python"
            f" metric_better), or write {attribute} after the function"
        )
    return Metric(call.name, way, bool(getattr(call.function, "share", False)), whole=call)


@dataclass
class _Call:
    """Calls the function; travels to other processes by its name where it came by name."""

    given: GivenMetric
    folder: Path = field(default_factory=Path.cwd)
    _found: Callable[[Any, Any], float] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"given": self.given, "folder": self.folder, "_found": None}

    @property
    def name(self) -> str:
        """What reports call it."""
        if isinstance(self.given, str):
            return self.given
        return str(getattr(self.given, "__name__", type(self.given).__name__))

    @property
    def function(self) -> Callable[[Any, Any], float]:
        """The function, imported when it is first needed."""
        if not isinstance(self.given, str):
            return self.given
        if self._found is None:
            self._found = find_function(self.given, WANTED, self.folder)
        return self._found

    def __call__(self, outputs: Any, targets: Any) -> float:
        """The number; raises DataError where it is none."""
        what = f"the metric '{self.name}'"
        try:
            value = self.function(outputs, targets)
        except (Exception, SystemExit) as error:  # the function is the user's code
            raise failed(what, error) from error
        try:
            number = math.nan if isinstance(value, (str, bytes)) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            shown = repr(value)[:60]
            raise DataError(f"{what} returned {shown}; it must return one finite number")
        return number
