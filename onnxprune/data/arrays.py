"""Samples in arrays, in memory or mapped from files, gathered into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .checks import as_wanted, check_array, check_finite, check_lengths
from .labels import LABELS, LabelFacts, as_labels, check_form, check_labels, label_facts
from .specs import InputSpec

__all__ = ["ArraySource", "array_source"]

#: Labels checked at a time, so that mapped ones are never in memory as a whole.
CHUNK = 65_536


def array_source(
    arrays: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    inputs: Sequence[InputSpec],
    *,
    title: str,
    name: str,
) -> ArraySource:
    """A source over checked arrays.

    Arrays in memory are checked as a whole now; mapped ones (``numpy.memmap``) for type and shape
    now, and for NaN batch by batch as they are read.

    Args:
        arrays: By input name [N, ...].
        labels: [N, ...], or None.
        inputs: What the model wants.
        title: What the report calls the data.
        name: What messages call it.

    Raises:
        DataError: An array does not fit the model or the others.
    """
    for spec in inputs:
        check_array(arrays[spec.name], spec, name)
    if labels is not None:
        check_form(labels, name)
    count = check_lengths(arrays, labels, name, inputs)
    mapped = {key for key, array in arrays.items() if isinstance(array, np.memmap)}
    for key, array in arrays.items():
        if key not in mapped:
            check_finite(array, f"input '{key}' in {name}")
    facts = None
    if labels is not None:
        facts = label_facts(labels, whole=True)
        if not isinstance(labels, np.memmap):
            labels = as_labels(labels, name)
    description = f"{title}: {count:,} samples, {'unlabelled' if labels is None else 'labelled'}"
    dtypes = {spec.name: spec.dtype for spec in inputs}
    # As plain arrays, of which parts are plain arrays too.
    plain = {key: np.asarray(array) for key, array in arrays.items()}
    shared = frozenset(spec.name for spec in inputs if spec.shared)
    return ArraySource(
        plain, labels, dtypes, frozenset(mapped), shared, count, facts, description, name
    )


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Batches gathered from arrays; made and checked by `array_source`."""

    arrays: Mapping[str, np.ndarray]
    label_array: np.ndarray | None
    dtypes: Mapping[str, np.dtype]
    mapped: frozenset[str]
    shared: frozenset[str]
    samples: int
    labels: LabelFacts | None
    description: str
    name: str

    def batches(self, batch_size: int, *, drop_last: bool = False) -> int:
        """Number of batches of an epoch."""
        return -(-self._stop(batch_size, drop_last) // batch_size)

    def epoch(
        self,
        number: int,
        batch_size: int,
        *,
        seed: int | None,
        skip: int = 0,
        drop_last: bool = False,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of one epoch; see `BatchSource.epoch`.

        Shuffled, batch k holds the samples ``sort(order[k * size : (k + 1) * size])`` of
        ``order = default_rng([seed, number]).permutation(N)``: sorted, they are read from files
        front to back.
        """
        order = None
        if seed is not None:
            order = np.random.default_rng([seed, number]).permutation(self.samples)
        stop = self._stop(batch_size, drop_last)
        for start in range(skip * batch_size, stop, batch_size):
            part = slice(start, start + batch_size)
            yield self._batch(part if order is None else np.sort(order[part]))

    def require_classes(self, classes: int) -> None:
        """Refuse the data where a label is not one of the model's classes, 0 to `classes` - 1."""
        labels = self.label_array
        for start in range(0, 0 if labels is None else self.samples, CHUNK):
            part = np.asarray(labels)[start : start + CHUNK]
            check_labels(part, classes, place=self.name, first=start)

    def _stop(self, batch_size: int, drop_last: bool) -> int:
        """Samples of an epoch; a set smaller than one batch is never dropped."""
        rest = self.samples % batch_size
        return self.samples - rest if drop_last and self.samples > rest else self.samples

    def _batch(self, rows: slice | np.ndarray) -> dict[str, np.ndarray]:
        batch = {}
        for name, array in self.arrays.items():
            if name in self.shared:
                batch[name] = as_wanted(array, self.dtypes[name])
                continue
            part = array[rows] if isinstance(rows, slice) else array.take(rows, axis=0)
            if name in self.mapped:
                check_finite(part, f"input '{name}' in {self.name}", self._numbers(rows))
            batch[name] = as_wanted(part, self.dtypes[name])
        if self.label_array is not None:
            batch[LABELS] = as_labels(np.asarray(self.label_array)[rows], self.name)
        return batch

    def _numbers(self, rows: slice | np.ndarray) -> Sequence[int]:
        return range(self.samples)[rows] if isinstance(rows, slice) else rows.tolist()
