"""A metric, and the value that batches of outputs add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.labels import check_labels
from ..errors import DataError
from .request import Better

__all__ = ["TOP_1", "Measured", "Metric", "Tally", "Values", "Whole", "standard_error"]

#: Name of the metric of classifiers.
TOP_1 = "top-1 accuracy"

#: A value for each entry, from output and target.
Values = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: One number from all outputs and all targets; see `onnxprune.metrics.function`.
Whole = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Metric:
    """A mean over values, of which a batch gives sum and number; or a number for all samples.

    Args:
        name: What reports call it.
        better: Which way is up.
        share: Whether it lies from 0 to 1 and is shown as a percentage.
        values: A value for each entry, from output [N, ...] and target [N, ...]; None where the
            metric is no mean.
        classes: Number of classes that labels may be; None where labels are no classes or any
            class may be.
        whole: The metric of all samples at once, where it is no mean.
    """

    name: str
    better: Better
    share: bool
    values: Values | None = None
    classes: int | None = None
    whole: Whole | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric, its value, and what it was measured on.

    Attributes:
        metric: The metric.
        value: Its value.
        samples: Number of samples.
        shape: Shape of the first output per sample.
        by_sample: The metric of each sample [samples]; None where it is none of single samples.
    """

    metric: Metric
    value: float
    samples: int
    shape: tuple[int, ...] = ()
    by_sample: np.ndarray | None = None

    @property
    def error(self) -> float | None:
        """Standard error of the value as an estimate for other samples; None where unknown."""
        return None if self.by_sample is None else standard_error(self.by_sample)

    def drop(self, other: Measured) -> float:
        """How much worse another model is by the same metric; negative where it is better."""
        lost = self.value - other.value
        return lost if self.metric.better == "higher" else 0.0 - lost

    def drop_error(self, other: Measured) -> float | None:
        """Standard error of the drop, from the differences on each sample; None where unknown."""
        if self.by_sample is None or other.by_sample is None:
            return None
        return standard_error(self.by_sample - other.by_sample)


def standard_error(values: np.ndarray) -> float | None:
    """Standard error of the mean of values [N], of which two at least are needed."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


class Tally:
    """Adds up a metric over batches.

    Args:
        metric: The metric.
        place: What messages call the data.
    """

    def __init__(self, metric: Metric, place: str) -> None:
        self.metric = metric
        self._place = place
        self._samples, self._entries, self._total = 0, 0, 0.0
        self._shape: tuple[int, ...] = ()
        self._by_sample: list[np.ndarray] = []
        self._outputs: list[tuple[np.ndarray, ...]] = []
        self._targets: list[tuple[np.ndarray, ...]] = []

    def add(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        """Count a batch in.

        Args:
            outputs: The model's outputs [N, ...]; a mean is taken over the first.
            targets: Labels, or the outputs of another model [N, ...].

        Raises:
            DataError: A label is none of the classes.
        """
        classes, count = self.metric.classes, len(outputs[0])
        if classes is not None:
            check_labels(targets[0], classes, place=self._place, first=self._samples)
        if self.metric.values is None:
            self._outputs.append(tuple(outputs))
            self._targets.append(tuple(targets))
        else:
            values = self.metric.values(outputs[0], targets[0]).astype(np.float64, copy=False)
            self._total += float(values.sum())
            self._entries += values.size
            self._by_sample.append(values.reshape(count, -1).mean(axis=1))
        self._samples += count
        self._shape = outputs[0].shape[1:]

    def measured(self) -> Measured:
        """The value over all batches; there must have been one."""
        if self.metric.values is not None:
            value = self._total / self._entries
            by_sample = np.concatenate(self._by_sample)
            return Measured(self.metric, value, self._samples, self._shape, by_sample)
        assert self.metric.whole is not None  # a metric is a mean or it is not
        value = self.metric.whole(_joined(self._outputs), _joined(self._targets))
        return Measured(self.metric, value, self._samples, self._shape)


def _joined(batches: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray | tuple[np.ndarray, ...]:
    """Arrays of all samples; one is not boxed."""
    try:
        arrays = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    except ValueError as error:
        raise DataError(
            f"outputs or labels of different batches do not fit together ({error}); a function "
            "that measures wants them as one array"
        ) from None
    return arrays[0] if len(arrays) == 1 else arrays
