"""Weights read in short slices, so that a few elements already make several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.model.payload import ArrayPayload
from onnxprune.pruning.weights import Weights


@dataclass(frozen=True, eq=False)
class CutPayload(ArrayPayload):
    """An array that is handed out `length` elements at a time."""

    length: int = 7

    def chunks(self) -> Iterator[np.ndarray]:
        for start in range(0, self.size, self.length):
            yield self.flat[start : start + self.length]


def pruned_in_slices(weights: Weights, threshold: float) -> np.ndarray:
    """All storage elements, pruned slice by slice on this thread."""
    start, parts = 0, []
    for chunk in weights.payload.chunks():
        parts.append(weights.prune(chunk, start, threshold))
        start += chunk.size
    return np.concatenate(parts)
