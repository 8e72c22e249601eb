"""Samples for many measurements: taken once, in batches that stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.labels import LABELS
from ..data.source import BatchSource
from ..data.specs import InputSpec
from ..errors import DataError
from ..runner import batch_size, fixed_size

__all__ = ["Taken", "take"]

#: Seed of the order in which samples are taken: files are often sorted by class.
SEED = 0

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Taken:
    """Samples of a model in batches of the size that it takes.

    Attributes:
        feeds: Inputs by name, batch by batch; a model that insists on a size gets the last batch
            filled up.
        counts: Number of samples of each batch that count.
        labels: Labels of each batch; empty without labels.
        place: What messages call the data.
        description: What reports call the data.
    """

    feeds: tuple[Arrays, ...]
    counts: tuple[int, ...]
    labels: tuple[np.ndarray, ...]
    place: str
    description: str

    @property
    def count(self) -> int:
        """Number of samples."""
        return sum(self.counts)


def take(source: BatchSource, inputs: Sequence[InputSpec], wanted: int) -> Taken:
    """The first `wanted` samples in a shuffled order that is always the same, or all of them.

    A stream is taken in its own order.

    Args:
        source: The data.
        inputs: What the model wants.
        wanted: Most samples.

    Raises:
        DataError: There are none.
    """
    size, fixed = batch_size(inputs), fixed_size(inputs)
    whole = source.samples is not None and source.samples <= wanted
    feeds: list[Arrays] = []
    labels: list[np.ndarray] = []
    left = wanted
    counts: list[int] = []
    for batch in source.epoch(0, size, seed=None if whole else SEED):
        count = next((len(batch[s.name]) for s in inputs if not s.shared), 1)
        for start in range(0, min(count, left), size if fixed is None else fixed):
            stop = min(start + (fixed or size), count, start + left)
            feeds.append({s.name: _rows(batch[s.name], s, start, stop, fixed) for s in inputs})
            counts.append(stop - start)
            if LABELS in batch:
                labels.append(batch[LABELS][start:stop])
            left -= stop - start
        if left <= 0:
            break
    if not counts:
        raise DataError(f"{source.name} holds no samples; give at least one")
    return Taken(tuple(feeds), tuple(counts), tuple(labels), source.name, source.description)


def _rows(
    array: np.ndarray, spec: InputSpec, start: int, stop: int, fixed: int | None
) -> np.ndarray:
    """Samples of one input, the first repeated where the model wants more of them."""
    if spec.shared:
        return array
    rows = array[start:stop]
    short = 0 if fixed is None else fixed - len(rows)
    return np.concatenate([rows, rows[:1].repeat(short, 0)]) if short > 0 else rows
