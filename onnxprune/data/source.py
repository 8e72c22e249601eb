"""Where batches come from: one interface over files, arrays, iterables and functions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, Union, runtime_checkable

import numpy as np

from ..errors import DataError
from .arrays import array_source
from .checks import match_names, match_positions, quoted
from .convert import as_array, is_array
from .files import read_arrays
from .functions import find_function, names_function
from .labels import LABELS, LabelFacts
from .specs import InputSpec
from .stream import StreamSource, failed, is_once

__all__ = ["BatchSource", "Given", "open_source"]


@runtime_checkable
class BatchSource(Protocol):
    """Samples in batches, epoch by epoch."""

    @property
    def samples(self) -> int | None:
        """Number of samples; None for a stream of unknown length."""

    @property
    def labels(self) -> LabelFacts | None:
        """What is known of the labels; None where there are none."""

    @property
    def name(self) -> str:
        """What messages call the data."""

    @property
    def description(self) -> str:
        """What the report says of the data: ``train.npz: 60,000 samples, labelled``."""

    def batches(self, batch_size: int, *, drop_last: bool = False) -> int | None:
        """Number of batches of an epoch; None where that is unknown."""

    def require_classes(self, classes: int) -> None:
        """Refuse labels that are not one of the model's classes, 0 to `classes` - 1.

        Arrays are checked now, streams batch by batch from now on.

        Raises:
            DataError: A label is none of them.
        """

    def epoch(
        self,
        number: int,
        batch_size: int,
        *,
        seed: int | None,
        skip: int = 0,
        drop_last: bool = False,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of one epoch: arrays by input name, and ``labels`` (int64 or float32).

        Args:
            number: Which epoch, from 0.
            batch_size: Samples of a batch; the last may have fewer.
            seed: The order is a pure function of this and `number`; None: in order.
            skip: Batches at the start that are not wanted; arrays do not read them.
            drop_last: Leave out a last batch that is smaller, unless it is the only one.

        Raises:
            DataError: A batch does not fit the model, or there are no more epochs.
        """


#: What users may give as data; see `open_source`.
Given: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    Mapping[str, Any],
    tuple[Any, ...],
    np.ndarray,
    Iterable[Any],
    Callable[[], Iterable[Any]],
    BatchSource,
]


def open_source(
    given: Given, inputs: Sequence[InputSpec], *, labelled: bool | None = None
) -> BatchSource:
    """A source of batches for a model.

    Args:
        given: One of

            - a path of an .npz: arrays named after the model's inputs and ``labels``; with one
              input, one other array of any name does;
            - a path of a folder of such .npy files, or of a single .npy: they stay on disk;
            - ``module:function``: imported, from the current directory too, and called without
              arguments: this RUNS that code. It returns anything of this list but a path;
              if that is an iterator, the function is called again for every further epoch;
            - a dict of arrays by name, a tuple of arrays (the inputs and then the labels), or one
              array;
            - an iterable of batches, which are such dicts, tuples (or lists) or arrays: a torch
              DataLoader, a list; an iterator lasts for one epoch. Size and order of the batches
              are the iterable's own;
            - a function without arguments that returns such an iterable, called for every epoch;
            - a `BatchSource`, which is returned as it is.

            Arrays may be torch tensors. All first axes count samples.
        inputs: What the model wants.
        labelled: Whether labels are needed; None: taken where they are; False: ignored.

    Raises:
        DataError: The data cannot be read or does not fit the model.
    """
    _check_inputs(inputs)
    if isinstance(given, BatchSource):
        if labelled and given.labels is None:
            raise _unlabelled(given.description, ())
        return given
    if isinstance(given, (str, os.PathLike)):
        text = os.fspath(given)
        if not text:
            raise DataError("the name of the data is empty; give a file, a folder or a function")
        if names_function(text):
            return _from_function(find_function(text), inputs, labelled, text)
        path = Path(text)
        return _from_arrays(read_arrays(path, inputs), inputs, labelled, path.name, f"'{path}'")
    if _holds_arrays(given):
        return _from_arrays(given, inputs, labelled, "arrays", "the data")
    title = type(given).__name__
    return _from_iterable(given, inputs, labelled, title, f"the given {title}")


def _check_inputs(inputs: Sequence[InputSpec]) -> None:
    names = [spec.name for spec in inputs]
    if not names:
        raise DataError("the model has no inputs that samples could feed")
    if LABELS in names:
        raise DataError(
            f"the model has an input named '{LABELS}', which is what the right answers are called; "
            "rename it in the model"
        )


def _holds_arrays(given: object) -> bool:
    """Whether the data is arrays of all samples, and not batches."""
    if isinstance(given, Mapping):
        return True
    return is_array(given) or (isinstance(given, tuple) and all(map(is_array, given)))


def _from_arrays(
    given: Any, inputs: Sequence[InputSpec], labelled: bool | None, title: str, name: str
) -> BatchSource:
    if isinstance(given, Mapping):
        values, labels = match_names(given, inputs, LABELS, name)
        names = list(map(str, given))
    else:
        row = given if isinstance(given, tuple) else (given,)
        values, labels = match_positions(row, inputs, name)
        names = list(values)
    if labelled and labels is None:
        raise _unlabelled(name, names)
    arrays = {key: as_array(value, f"'{key}' in {name}") for key, value in values.items()}
    wanted = labels is not None and labelled is not False
    targets = as_array(labels, f"'{LABELS}' in {name}") if wanted else None
    return array_source(arrays, targets, inputs, title=title, name=name)


def _unlabelled(place: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"{place} has no array '{LABELS}' (it has: {quoted(names)}); add the right answers"
    )


def _from_iterable(
    given: Any, inputs: Sequence[InputSpec], labelled: bool | None, title: str, name: str
) -> BatchSource:
    if isinstance(given, Iterable):
        once = is_once(given)
        return StreamSource(
            None if once else lambda: given,
            inputs,
            labelled=labelled,
            title=title,
            name=name,
            first=given if once else None,
        )
    if callable(given):
        return StreamSource(given, inputs, labelled=labelled, title=title, name=name)
    raise DataError(
        f"{name} cannot be iterated; give a file, arrays, or an iterable of batches (a Dataset of "
        "torch goes into a DataLoader)"
    )


def _from_function(
    function: Callable[[], Any], inputs: Sequence[InputSpec], labelled: bool | None, title: str
) -> BatchSource:
    name = f"'{title}'"
    try:
        given = function()
    except (Exception, SystemExit) as error:  # the function is the user's code
        raise failed(name, error) from error
    if _holds_arrays(given):
        return _from_arrays(given, inputs, labelled, title, name)
    if isinstance(given, Iterable) and is_once(given):
        return StreamSource(
            function, inputs, labelled=labelled, title=title, name=name, first=given
        )
    return _from_iterable(given, inputs, labelled, title, name)
