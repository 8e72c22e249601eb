"""Labels: their form, and the checks that they must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .checks import check_finite

__all__ = [
    "LABELS",
    "LabelFacts",
    "as_labels",
    "check_form",
    "check_labels",
    "label_facts",
    "samples_of",
]

#: Name of the array that holds the right answers.
LABELS = "labels"

#: Elements of integer labels in files up to which their range is looked up beforehand.
CHEAP = 2**23


@dataclass(frozen=True)
class LabelFacts:
    """What is known of labels before any is read.

    Args:
        dtype: int64 for classes, float32 for targets: the two types that batches have.
        shape: Per sample, without the batch axis.
        minimum: Smallest class, where that is known.
        maximum: Largest class, where that is known.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    minimum: int | None = None
    maximum: int | None = None


def samples_of(batch: Mapping[str, np.ndarray]) -> int:
    """Number of samples of a batch: of its labels, else of its first input that is no scalar."""
    if LABELS in batch:
        return len(batch[LABELS])
    return next((len(array) for array in batch.values() if array.ndim), 1)


def label_facts(labels: np.ndarray, *, whole: bool) -> LabelFacts:
    """Facts of labels [N, ...]; their range only where they are `whole` and integers."""
    dtype = np.dtype(np.float32 if labels.dtype.kind == "f" else np.int64)
    shape = labels.shape[1:]
    if not whole or dtype.kind == "f" or not 0 < labels.size <= CHEAP:
        return LabelFacts(dtype, shape)
    return LabelFacts(dtype, shape, int(labels.min()), int(labels.max()))


def check_form(labels: np.ndarray, place: str) -> None:
    """Refuse labels that are no numbers, or not one entry for each sample."""
    if labels.ndim == 0 or labels.dtype.kind not in "iufb":
        raise DataError(
            f"'{LABELS}' in {place} is {labels.dtype} of shape {labels.shape}; it must be an array "
            "of whole-number classes or of float targets, with one entry for each sample"
        )


def as_labels(labels: np.ndarray, place: str) -> np.ndarray:
    """Labels as int64 (whole numbers, bool) or float32 (floats), which must be finite."""
    if labels.dtype.kind != "f":
        return np.ascontiguousarray(labels, np.int64)
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
        targets = np.ascontiguousarray(labels, np.float32)
    check_finite(targets, f"'{LABELS}' in {place}")
    return targets


def check_labels(labels: np.ndarray, classes: int, *, place: str, first: int = 0) -> None:
    """Refuse class labels that the model has no class for.

    Args:
        labels: Integer labels [N, ...].
        classes: Number of the model's classes.
        place: Where the labels are from, for the message.
        first: Number of the first of these samples.

    Raises:
        DataError: A label is below 0 or not below `classes`.
    """
    if not labels.size or (labels.min() >= 0 and labels.max() < classes):
        return
    at = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
    sample = first + at // (labels.size // len(labels))
    raise DataError(
        f"'{LABELS}' in {place} is {labels.reshape(-1)[at]} for sample {sample} (counted from 0); "
        f"the model has {classes} classes, 0 to {classes - 1}"
    )
