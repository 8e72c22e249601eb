"""How much worse a pruned model may be, in the numbers of its metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.source import Given
from ..data.specs import InputSpec
from ..errors import OutputError, UsageError
from ..evaluation import Meter
from ..metrics.metric import Measured
from ..metrics.request import MetricRequest
from ..model.model import Model
from ..report.format import metric_text
from ..report.report import CheckResult
from ..runtime import open_session

__all__ = ["Bound", "Held", "bound_of"]

#: Half a point lost is half a point, though its difference of floats may be a little more.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Bound:
    """A drop that is allowed.

    Attributes:
        dense: The unpruned model's metric.
        drop: The drop, in the metric's own numbers.
        unit: What the number that was asked for counts.
    """

    dense: Measured
    drop: float
    unit: str

    def holds(self, measured: Measured) -> bool:
        """Whether a model is within the bound; a metric that is not a number is not."""
        rounding = ROUNDING * max(1.0, abs(self.dense.value))
        return self.dense.drop(measured) <= self.drop + rounding


@dataclass(frozen=True, eq=False)
class Held:
    """A bound that a written file must hold.

    Attributes:
        bound: The bound.
        meter: What measured the unpruned model.
    """

    bound: Bound
    meter: Meter

    def check(self, path: Path, inputs: Sequence[InputSpec]) -> CheckResult:
        """Measure a written file once more.

        Args:
            path: The file.
            inputs: What the model wants.

        Raises:
            OutputError: It is beyond the bound.
        """
        self.meter.measure(open_session(path), inputs)
        measured = self.meter.measured
        assert measured is not None  # it has just been measured
        metric = measured.metric
        value = metric_text(measured.value, metric.share)
        if not self.bound.holds(measured):
            raise OutputError(
                f"the written file is beyond --max-drop ({metric.name} {value}) where the model in"
                " memory is within it; nothing was kept: try --format dense, and please report this"
            )
        return CheckResult(
            "max-drop", "passed", f"{metric.name} {value}, measured again on the written file"
        )


def bound_of(max_drop: float, dense: Measured, source: Model, val: Given) -> Bound:
    """The bound on a metric.

    Args:
        max_drop: What was asked for: points of a share, hundredths of a cosine, else percent of
            the unpruned model's value, or, where that is a distance from itself and so 0, percent
            of the variance of its outputs.
        dense: The unpruned model's metric.
        source: The unpruned model.
        val: The validation data.

    Raises:
        UsageError: The unpruned model's value is 0, of which there is no percentage.
    """
    metric = dense.metric
    if metric.share or metric.name.startswith("cosine"):
        return Bound(dense, max_drop / 100, "points")
    if dense.value != 0:
        return Bound(dense, max_drop / 100 * abs(dense.value), "% of the unpruned model's value")
    if metric.values is None:
        raise UsageError(
            f"metric '{metric.name}' is 0 for the unpruned model, and max-drop is a percentage of"
            " that: give the function an attribute share = True if its value lies from 0 to 1, or"
            " choose another metric"
        )
    spread = Meter(val, reference=source, request=MetricRequest(_variance, "lower"))
    return Bound(
        dense, max_drop / 100 * spread(source), "% of the variance of the unpruned model's outputs"
    )


def _variance(outputs: object, _: object) -> float:
    """Mean over the first output's numbers of their variance over samples."""
    first = outputs[0] if isinstance(outputs, tuple) else outputs
    return float(np.var(np.asarray(first, np.float64), axis=0).mean())
