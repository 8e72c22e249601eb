"""Pruned bytes, made while they are read, and counts of what a threshold leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .keep import Keep
from .stream import Slice, ordered_map, slices
from .weights import Weights

__all__ = ["MaskedPayload", "PrunedPayload", "kept_counts", "kept_curve"]


class _Payload(ABC):
    """The payload of weights of which some are at zero.

    Nothing is kept: each reading prunes again, a few slices ahead on threads.
    """

    weights: Weights
    workers: int | None

    @property
    def dtype(self) -> np.dtype:
        """Storage type."""
        return self.weights.payload.dtype

    @property
    def size(self) -> int:
        """Number of storage elements."""
        return self.weights.payload.size

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return self.weights.payload.nbytes

    def array(self) -> np.ndarray:
        """All storage elements, flat, in new memory."""
        array = np.empty(self.size, self.dtype)
        start = 0
        for chunk in self.chunks():
            array[start : start + chunk.size] = chunk
            start += chunk.size
        return array

    def chunks(self) -> Iterator[np.ndarray]:
        """Pruned slices in order."""
        return ordered_map(self._pruned, slices(self.weights.payload), workers=self.workers)

    @abstractmethod
    def _pruned(self, item: Slice) -> np.ndarray:
        """One slice with its zeros."""


@dataclass(frozen=True, eq=False)
class PrunedPayload(_Payload):
    """The payload of `weights` with every weight of magnitude below `threshold` at zero."""

    weights: Weights
    threshold: float
    workers: int | None = None

    def _pruned(self, item: Slice) -> np.ndarray:
        return self.weights.prune(*item, self.threshold)


@dataclass(frozen=True, eq=False)
class MaskedPayload(_Payload):
    """The payload of `weights` with every weight at zero that `keep` does not name."""

    weights: Weights
    keep: Keep
    workers: int | None = None

    def _pruned(self, item: Slice) -> np.ndarray:
        return self.weights.masked(*item, self.keep)


def kept_counts(
    layers: Sequence[Weights],
    thresholds: Sequence[Sequence[float]],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """For every layer, how many weights each of its thresholds leaves alive, in one pass.

    Args:
        layers: The layers; those without thresholds are not read.
        thresholds: For every layer, any number of thresholds. Threshold 0 counts the weights that
            are not zero.
        workers: Number of threads; None for the default.
        advance: Called with the number of stored bytes that were read, slice by slice.
    """
    items = (
        (number, chunk, start)
        for number, weights in enumerate(layers)
        if thresholds[number]
        for chunk, start in slices(weights.payload)
    )

    def count(item: tuple[int, np.ndarray, int]) -> tuple[int, int, list[int]]:
        number, chunk, start = item
        return number, chunk.nbytes, layers[number].kept(chunk, start, thresholds[number])

    totals = [[0] * len(some) for some in thresholds]
    for number, read, kept in ordered_map(count, items, workers=workers):
        totals[number] = [total + more for total, more in zip(totals[number], kept, strict=True)]
        if advance:
            advance(read)
    return totals


def kept_curve(weights: Weights, thresholds: Sequence[float]) -> list[int]:
    """How many weights each threshold leaves alive, in one pass over the layer."""
    return kept_counts([weights], [thresholds])[0]
