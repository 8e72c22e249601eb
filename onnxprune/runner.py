"""Batches of samples through a model: cut to the size it insists on, and put together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .data.source import BatchSource
from .data.specs import InputSpec
from .errors import DataError
from .runtime import MOST_BYTES, CannotRun, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["BATCH", "Outputs", "Predict", "Recalled", "Runner", "batch_size", "predictor"]

#: Samples that are run at a time.
BATCH = 64
#: Times the samples at hand that a model may insist on, where they fill much memory.
MOST_REPEATS = 1000
#: Bytes of a reference model's outputs that are kept from one measurement to the next.
KEPT_BYTES = 2**28

Outputs: TypeAlias = list[np.ndarray]
#: From a batch by input name to the outputs, the first of which is [N, ...].
Predict = Callable[[dict[str, np.ndarray]], Sequence[Any]]
Batch = Mapping[str, np.ndarray]


def predictor(session: onnxruntime.InferenceSession) -> Predict:
    """A session as a function."""
    return lambda feeds: run(session, feeds)


def batch_size(inputs: Sequence[InputSpec], wanted: int = BATCH) -> int:
    """Samples to ask for at a time: whole parts of the size that the model insists on."""
    fixed = fixed_size(inputs)
    return wanted if fixed is None else fixed * max(1, wanted // fixed)


def fixed_size(inputs: Sequence[InputSpec]) -> int | None:
    """The batch size that a model insists on; None where any does."""
    return min((size for spec in inputs if (size := spec.fixed_batch)), default=None)


class Runner:
    """Runs a model on batches of any size.

    Args:
        predict: The model.
        inputs: What it wants.
        every: Whether all outputs are wanted, not only the first.
    """

    def __init__(
        self, predict: Predict, inputs: Sequence[InputSpec], *, every: bool = False
    ) -> None:
        self.every = every
        self._predict = predict
        self._inputs = inputs
        self._fixed = fixed_size(inputs)

    def __call__(self, batch: Batch) -> Outputs:
        """Outputs [N, ...] for a batch of N samples.

        Raises:
            DataError: An output has not one row for each sample.
            CannotRun: onnxruntime fails, or far more samples are needed than there are.
        """
        feeds = {spec.name: _cast(batch[spec.name], spec.dtype) for spec in self._inputs}
        count = _count(batch, self._inputs)
        if self._fixed is None or self._fixed == count:
            return self._checked(feeds, count)
        parts = [
            self._checked(self._part(feeds, start, count), self._fixed)
            for start in range(0, count, self._fixed)
        ]
        return [
            _joined(each, number)[:count] for number, each in enumerate(zip(*parts, strict=True))
        ]

    def _part(self, feeds: dict[str, np.ndarray], start: int, count: int) -> dict[str, np.ndarray]:
        """Samples from `start` on, as many as the model insists on; the last is repeated."""
        assert self._fixed is not None
        short = max(start + self._fixed - count, 0)
        part: dict[str, np.ndarray] = {}
        for spec in self._inputs:
            array = feeds[spec.name]
            if not spec.shared:
                array = array[start : start + self._fixed]
                if short:
                    self._check_filling(spec.name, array, short)
                    array = np.concatenate([array, array[:1].repeat(short, 0)])
            part[spec.name] = array
        return part

    def _check_filling(self, name: str, array: np.ndarray, short: int) -> None:
        """Refuse to fill memory with repeated samples for a batch that nobody can have meant."""
        nbytes = short * array[:1].nbytes
        if nbytes > MOST_BYTES and short > MOST_REPEATS * len(array):
            raise CannotRun(
                f"input '{name}' takes {short + len(array):,} samples at once, {nbytes:,} bytes; "
                "export the model with an open batch axis"
            )

    def _checked(self, feeds: dict[str, np.ndarray], count: int) -> Outputs:
        """The outputs, if they have an entry for each sample."""
        found = self._predict(feeds)
        outputs = [np.asarray(value) for value in (found if self.every else found[:1])]
        for number, output in enumerate(outputs):
            length = len(output) if output.ndim else 0
            if length != count:
                raise DataError(
                    f"the model's {_which(number)} has {length} rows for {count} samples; it must "
                    "have one for each sample to be measured"
                )
        return outputs


def _joined(parts: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Rows of several runs under each other; DataError where those of one have another size."""
    for part in parts:
        if part.shape[1:] != parts[0].shape[1:]:
            raise DataError(
                f"rows of the model's {_which(number)} have the shape {parts[0].shape[1:]} for some"
                f" samples and {part.shape[1:]} for others; they must be the same to be measured"
            )
    return np.concatenate(parts)


def _which(number: int) -> str:
    return "first output" if number == 0 else f"output number {number + 1}"


class Recalled:
    """The outputs of a reference model, batch by batch, kept while they stay the same.

    It is open while its model can run; what was kept is there afterwards too.
    """

    def __init__(self) -> None:
        self._runners: tuple[Runner, Runner] | None = None
        self._keep, self._bytes, self._samples, self._size = False, 0, 0, 0
        self._kept: dict[int, Outputs] = {}

    def open(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Sequence[InputSpec],
        *,
        keep: bool = False,
        size: int = 0,
    ) -> None:
        """Run this session from now on.

        Args:
            session: The reference model's.
            inputs: What it wants.
            keep: Keep what it gives: batches of one number will be the same.
            size: Samples of a batch.
        """
        predict = predictor(session)
        self._runners = Runner(predict, inputs), Runner(predict, inputs, every=True)
        self._keep, self._bytes, self._samples, self._size = keep, 0, 0, size
        self._kept.clear()

    def close(self) -> None:
        """Run nothing any more."""
        self._runners = None

    def complete(self, source: BatchSource, size: int) -> bool:
        """Whether everything for a source in batches of this size is kept."""
        return self._size == size and 0 < self._samples == source.samples

    def __call__(self, number: int, batch: Batch, *, every: bool = False) -> Outputs:
        """Outputs [N, ...] for the batch of this number."""
        if number in self._kept:
            return self._kept[number]
        assert self._runners is not None  # it is open, or complete
        outputs = self._runners[every](batch)
        self._bytes += sum(output.nbytes for output in outputs)
        if self._keep and self._bytes <= KEPT_BYTES:
            self._kept[number] = outputs
            self._samples += len(outputs[0])
        return outputs


def _count(batch: Batch, inputs: Sequence[InputSpec]) -> int:
    """Number of samples of a batch; one where no input goes by samples."""
    return next((len(batch[spec.name]) for spec in inputs if not spec.shared), 1)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats in the width that the session takes: data of a float16 model may feed its copy."""
    return array.astype(dtype, copy=False) if dtype.kind == "f" else array
