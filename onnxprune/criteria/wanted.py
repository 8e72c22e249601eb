"""What shall be left of a model: how much, compared where, in which pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Scope
from ..graph.layer import Layer
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..pattern import GroupPattern, Pattern
from ..pruning.axes import Axes, axes_of
from ..pruning.patterns import block_scores, in_blocks, keep_groups
from ..pruning.ranking import keep_best
from ..repair.writing import rewritten

__all__ = ["Wanted", "axes", "best", "least_by_magnitude", "magnitudes", "without"]


@dataclass(frozen=True)
class Wanted:
    """How much of the layers goes.

    Attributes:
        share: Share of zeros, 0 to 1; with a pattern N:M what a group of M loses, rounded.
        scope: Whether all layers together have it, or each does.
        pattern: What zeros follow.
    """

    share: float
    scope: Scope = "global"
    pattern: Pattern | None = None

    @property
    def groups(self) -> GroupPattern | None:
        """The pattern N:M at this share; None for others."""
        if not isinstance(self.pattern, GroupPattern):
            return None
        return GroupPattern(self.pattern.of - round(self.share * self.pattern.of), self.pattern.of)


def axes(layer: Layer) -> Axes:
    """The axes of a layer whose zeros can follow a pattern."""
    found = axes_of(layer)
    assert isinstance(found, Axes)  # the plan has left out all others
    return found


def best(layers: Sequence[Layer], scores: Sequence[np.ndarray], wanted: Wanted) -> list[np.ndarray]:
    """Which weights stay: those of highest score, as far as the pattern lets them.

    Args:
        layers: The layers.
        scores: A number of at least 0 for each of their weights, in the stored shapes.
        wanted: How much goes.

    Returns:
        Booleans in the stored shapes.
    """
    groups, pattern = wanted.groups, wanted.pattern
    if groups is not None:
        return [
            keep_groups(score, axes(layer), groups.keep, groups.of)
            for layer, score in zip(layers, scores, strict=True)
        ]
    if pattern is None or isinstance(pattern, GroupPattern):
        return keep_best(scores, [None] * len(scores), wanted.share, wanted.scope)
    blocks = [
        block_scores(s, axes(layer), pattern) for layer, s in zip(layers, scores, strict=True)
    ]
    kept = keep_best([s for s, _ in blocks], [n for _, n in blocks], wanted.share, wanted.scope)
    return [
        in_blocks(stays, layer.shape, axes(layer), pattern)
        for layer, stays in zip(layers, kept, strict=True)
    ]


def magnitudes(model: Model, layer: Layer) -> np.ndarray:
    """Magnitudes of a float layer's weights in the stored shape, as float32."""
    values = model.array(model.tensors[layer.address]).astype(np.float32)
    return np.abs(values, out=values)


def without(model: Model, kept: Mapping[TensorAddress, np.ndarray]) -> Model:
    """The model with every weight at zero that does not stay, by the address of its layer."""
    changed: dict[TensorAddress, np.ndarray] = {}
    for address, stays in kept.items():
        values = model.array(model.tensors[address]).reshape(-1)
        gone = ~stays.reshape(-1) & (values != 0)
        if gone.any():
            changed[address] = np.where(gone, np.zeros((), values.dtype), values)
    return rewritten(model, changed)


def least_by_magnitude(model: Model, layers: Sequence[Layer], wanted: Wanted) -> Model:
    """The model without the least magnitudes of these layers."""
    kept = best(layers, [magnitudes(model, layer) for layer in layers], wanted)
    return without(model, {layer.address: stays for layer, stays in zip(layers, kept, strict=True)})
