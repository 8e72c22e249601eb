"""Batches from a Python iterable or function, checked as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, OnnxPruneError
from .checks import (
    as_wanted,
    check_array,
    check_finite,
    check_lengths,
    match_names,
    match_positions,
)
from .convert import as_array, is_array
from .labels import LABELS, LabelFacts, as_labels, check_form, check_labels, label_facts
from .specs import InputSpec

__all__ = ["StreamSource", "failed", "is_once"]

Batch = dict[str, np.ndarray]

#: What code of the user's may raise: a Ctrl-C is none of its errors, the end of the program is.
USER_ERRORS = (Exception, SystemExit, GeneratorExit)


def is_once(given: Iterable[Any]) -> bool:
    """Whether an iterable is an iterator (a generator, a file): spent after one epoch."""
    return isinstance(given, Iterator)


class StreamSource:
    """Batches of an iterable, in its own size and order.

    The first batch is taken when the source is made, to know the labels; the first epoch starts
    with it.

    Args:
        again: Gives the iterable of an epoch; None where `first` is all there is.
        first: The iterable of the first epoch; None to take it from `again`.
        inputs: What the model wants.
        labelled: Whether batches must have labels; None: the first batch decides. Labels that
            are not wanted (False) are dropped.
        title: What the report calls the data.
        name: What messages call it.

    Raises:
        DataError: There are no batches, or the first does not fit the model.
    """

    samples = None

    def __init__(
        self,
        again: Callable[[], Iterable[Any]] | None,
        inputs: Sequence[InputSpec],
        *,
        labelled: bool | None,
        title: str,
        name: str,
        first: Iterable[Any] | None = None,
    ) -> None:
        self._again = again
        self._inputs = inputs
        self._labelled = labelled
        self.name = name
        self._title = title
        self._classes: int | None = None
        self._length: int | None = None
        self.labels: LabelFacts | None = None
        self._pending: Iterator[Any] | None = self._start(first)
        head = _next(self._pending, name)
        if head is None:
            raise DataError(f"{name} gave no batches; give at least one sample")
        self._head = [head[0]]
        batch = self._batch(head[0], 0)
        self._labelled = LABELS in batch
        if self._labelled:
            self.labels = label_facts(batch[LABELS], whole=False)

    @property
    def description(self) -> str:
        """What the report says of the data."""
        order = "batches in their own size and order"
        return f"{self._title}: {order}, {'labelled' if self._labelled else 'unlabelled'}"

    def batches(self, batch_size: int, *, drop_last: bool = False) -> int | None:
        """Number of batches of an epoch, where the iterable has a length."""
        return self._length

    def require_classes(self, classes: int) -> None:
        """Refuse every batch with a label that is not one of the model's classes."""
        self._classes = classes

    def epoch(
        self,
        number: int,
        batch_size: int,
        *,
        seed: int | None,
        skip: int = 0,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Batches of one epoch; all arguments but `skip` are without effect.

        Raises:
            DataError: The data was an iterator, and is spent.
        """
        if self._pending is None and self._again is None:
            raise DataError(
                f"{self.name} gives its batches only once and another epoch is needed; give "
                "something that can be iterated again (a list, a DataLoader) or a function that "
                "returns a new iterator"
            )
        head, self._head = self._head, []
        # An iterator may have a length, so that its truth is anything.
        iterator = self._start(None) if self._pending is None else self._pending
        self._pending = None
        return self._epoch(head, iterator, skip)

    def _epoch(self, head: list[Any], iterator: Iterator[Any], skip: int) -> Iterator[Batch]:
        """Converted batches; those that are skipped are only taken."""
        index = 0
        while True:
            found = (head.pop(),) if head else _next(iterator, self.name)
            if found is None:
                break
            if index >= skip:
                yield self._batch(found[0], index)
            index += 1
        if index == 0:
            raise DataError(
                f"{self.name} gave no batches in a later epoch; give something that can be "
                "iterated again or a function that returns a new iterator"
            )

    def _start(self, given: Iterable[Any] | None) -> Iterator[Any]:
        """An iterator over the batches of an epoch."""
        if given is None and self._again is not None:
            try:
                given = self._again()
            except OnnxPruneError:
                raise
            except USER_ERRORS as error:
                raise failed(self.name, error) from error
        if not isinstance(given, Iterable):
            raise DataError(
                f"{self.name} gave a value of type {type(given).__name__}; it must give an "
                "iterable of batches"
            )
        try:
            self._length = len(given)  # type: ignore[arg-type]
        except USER_ERRORS:  # what has no length, or fails to say it, is iterated all the same
            self._length = None
        try:
            return iter(given)
        except USER_ERRORS as error:
            raise failed(self.name, error) from error

    def _batch(self, element: Any, index: int) -> Batch:
        """One batch by name, checked."""
        place = f"batch {index} of {self.name}"
        values, labels = self._matched(element, place)
        batch: Batch = {}
        for spec in self._inputs:
            array = as_array(values[spec.name], f"input '{spec.name}' in {place}")
            check_array(array, spec, place)
            check_finite(array, f"input '{spec.name}' in {place}")
            batch[spec.name] = as_wanted(array, spec.dtype)
        targets = None if labels is None else as_array(labels, f"'{LABELS}' in {place}")
        if targets is not None:
            check_form(targets, place)
        check_lengths(batch, targets, place, self._inputs)
        if targets is not None:
            batch[LABELS] = as_labels(targets, place)
            self._check_kind(batch[LABELS], place)
            if self._classes is not None:
                check_labels(batch[LABELS], self._classes, place=place)
        return batch

    def _check_kind(self, labels: np.ndarray, place: str) -> None:
        """Refuse labels of another type or number of axes than the first batch has."""
        first = self.labels
        if first is None or (labels.dtype, labels.ndim) == (first.dtype, len(first.shape) + 1):
            return
        axes = "".join(f", {size}" for size in first.shape)
        raise DataError(
            f"'{LABELS}' in {place} are {labels.dtype} of shape {labels.shape} and those of the "
            f"first batch {first.dtype} of shape (N{axes}); give labels of one kind"
        )

    def _matched(self, element: Any, place: str) -> tuple[dict[str, Any], Any]:
        """Unconverted values by input name, and the labels where they are wanted."""
        if isinstance(element, Mapping):
            values, labels = match_names(element, self._inputs, LABELS, place)
        elif isinstance(element, (tuple, list)):
            values, labels = match_positions(element, self._inputs, place)
        elif is_array(element):
            values, labels = match_positions([element], self._inputs, place)
        else:
            raise DataError(
                f"{place} is of type {type(element).__name__}; batches are dicts of arrays by "
                "input name, or tuples of arrays"
            )
        if labels is None and self._labelled:
            raise DataError(f"{place} has no '{LABELS}'; give the right answers with each batch")
        return values, labels if self._labelled is not False else None


def _next(iterator: Iterator[Any], name: str) -> tuple[Any] | None:
    """The next element, boxed; None at the end."""
    try:
        return (next(iterator),)
    except StopIteration:
        return None
    except OnnxPruneError:
        raise
    except USER_ERRORS as error:
        raise failed(name, error) from error


def failed(name: str, error: BaseException) -> DataError:
    """The error for code of the user's that raised another."""
    lines = str(error).strip().splitlines() or [""]
    # A worker process puts a whole traceback in between.
    text = " ".join(" ".join(lines if len(lines) < 3 else [lines[0], lines[-1]]).split())
    return DataError(f"{name} failed with {type(error).__name__} ({text}); correct it and retry")
