"""Calibration samples: taken once, checked, and fed as often as a repair needs them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.source import BatchSource
from ..data.specs import InputSpec
from ..errors import DataError

__all__ = ["Samples", "check_values", "take_samples"]

#: Most samples of one run, and most numbers that they may hold together.
BATCH, NUMBERS = 256, 2**19
#: Seed of the order in which samples are taken: files are often sorted by class.
SEED = 0
#: Fewer samples than this hardly tell how a layer is used.
FEW = 64


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a model, in batches.

    Attributes:
        batches: Arrays by name: inputs, or values made of them.
        sizes: Number of samples of each batch.
        count: Number of samples in them.
        warnings: What a user should know of them.
    """

    batches: tuple[dict[str, np.ndarray], ...]
    sizes: tuple[int, ...]
    count: int
    warnings: tuple[str, ...]


def take_samples(source: BatchSource, inputs: Sequence[InputSpec], wanted: int) -> Samples:
    """The first `wanted` samples in a shuffled order that is always the same.

    They are kept, since a stream can be read only once; what a model makes of them is not.

    Args:
        source: The data; labels are not used.
        inputs: What the model wants. Where an axis of samples has a fixed size, samples that do
            not fill it at the end are left out.
        wanted: Number of samples.

    Raises:
        DataError: There are none, or they hold NaN or infinity.
    """
    fixed = min((size for spec in inputs if (size := spec.fixed_batch)), default=None)
    batches: list[dict[str, np.ndarray]] = []
    sizes: list[int] = []
    count = 0
    for batch in source.epoch(0, _batch_size(inputs, fixed, wanted), seed=SEED):
        feeds = {spec.name: batch[spec.name] for spec in inputs}
        size = _length(feeds, inputs)
        keep = min(size, wanted - count)
        keep -= keep % fixed if fixed else 0
        if keep < size:
            feeds = {s.name: feeds[s.name] if s.shared else feeds[s.name][:keep] for s in inputs}
        if keep:
            _check_finite(feeds, source.name)
            batches.append(feeds)
            sizes.append(keep)
            count += keep
        if count >= wanted or keep < size:
            break
    if not count:
        least = f"at least {fixed}" if fixed else "at least one"
        raise DataError(f"{source.name} holds too few samples to calibrate with; give {least}")
    return Samples(tuple(batches), tuple(sizes), count, _warnings(source.name, count, wanted))


def check_values(values: np.ndarray, place: str) -> None:
    """Refuse NaN and infinity in what a model makes of its samples; raises DataError."""
    # A sum is quicker than a look at every number, and not finite where one of them is not.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = values.dtype.kind == "f" and not np.isfinite(values.sum())
    if suspicious and not np.isfinite(values).all():
        raise DataError(
            f"{place} gives NaN or infinity on the calibration samples; give samples like those "
            "that the model is made for"
        )


def _warnings(name: str, count: int, wanted: int) -> tuple[str, ...]:
    if count >= min(wanted, FEW):
        return ()
    return (f"{name} holds only {count} samples: a repair wants {wanted}, and at least {FEW}",)


def _batch_size(inputs: Sequence[InputSpec], fixed: int | None, wanted: int) -> int:
    """Samples to ask for at a time: fewer of large ones, whole parts of a fixed size."""
    numbers = sum(math.prod(size or 1 for size in (spec.shape or ())[1:]) for spec in inputs)
    size = max(1, min(BATCH, NUMBERS // max(numbers, 1), wanted))
    return size if fixed is None else fixed * max(1, size // fixed)


def _length(feeds: dict[str, np.ndarray], inputs: Sequence[InputSpec]) -> int:
    return next((len(feeds[spec.name]) for spec in inputs if not spec.shared), 1)


def _check_finite(feeds: dict[str, np.ndarray], place: str) -> None:
    for name, array in feeds.items():
        # Types of ml_dtypes are no "floating" to numpy.
        if array.dtype.kind in "fV" and not np.isfinite(array.astype(np.float32, copy=False)).all():
            raise DataError(
                f"input '{name}' in {place} holds NaN or infinity, with which nothing can be "
                "calibrated; take those samples out"
            )
