"""Which weights of whole models stay where zeros follow a pattern, by magnitude."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Scope
from ..graph.layer import Layer
from ..pattern import BlockPattern, GroupPattern, Pattern
from .axes import Axes, axes_of
from .keep import Keep
from .patterns import block_scores, in_blocks, keep_groups
from .ranking import keep_best
from .stream import slices
from .weights import Weights, magnitudes

__all__ = ["Patterned", "keeps"]


@dataclass(frozen=True)
class Patterned:
    """A layer whose zeros shall follow a pattern.

    Attributes:
        layer: The layer; it fits the pattern.
        weights: Its weights.
        threshold: Blocks of a smaller root mean square go; None: as many as a share asks for.
    """

    layer: Layer
    weights: Weights
    threshold: float | None = None

    @property
    def axes(self) -> Axes:
        """The axes that the pattern follows."""
        axes = axes_of(self.layer)
        assert isinstance(axes, Axes)  # it fits the pattern
        return axes

    def magnitudes(self) -> np.ndarray:
        """Magnitudes in the stored shape."""
        return magnitudes(self.weights).reshape(self.layer.shape)


def keeps(
    layers: Sequence[Patterned],
    pattern: Pattern,
    *,
    share: float | None = None,
    scope: Scope = "global",
    advance: Callable[[int], None] | None = None,
) -> Iterator[tuple[Keep, int]]:
    """Which weights of each layer stay, and how many of them are not zero.

    Args:
        layers: The layers, in order.
        pattern: What zeros follow.
        share: Share of zeros to reach with blocks in the layers without a threshold.
        scope: Whether they reach it together, or each does.
        advance: Called with the number of stored bytes that were read.
    """
    if isinstance(pattern, GroupPattern):
        masks: Iterator[np.ndarray] = (
            keep_groups(one.magnitudes(), one.axes, pattern.keep, pattern.of) for one in layers
        )
    else:
        masks = _block_masks(layers, pattern, share, scope)
    for one, kept in zip(layers, masks, strict=True):
        keep = Keep.of(kept)
        yield keep, _alive(one.weights, kept.reshape(-1))
        if advance:
            advance(one.weights.payload.nbytes)


def _block_masks(
    layers: Sequence[Patterned], pattern: BlockPattern, share: float | None, scope: Scope
) -> Iterator[np.ndarray]:
    found = [block_scores(one.magnitudes(), one.axes, pattern) for one in layers]
    pool = [number for number, one in enumerate(layers) if one.threshold is None]
    ranked = keep_best(
        [found[number][0] for number in pool],
        [found[number][1] for number in pool],
        share or 0.0,
        scope,
    )
    kept = dict(zip(pool, ranked, strict=True))
    for number, one in enumerate(layers):
        stays = kept[number] if number in kept else found[number][0] >= (one.threshold or 0.0)
        yield in_blocks(stays, one.layer.shape, one.axes, pattern)


def _alive(weights: Weights, kept: np.ndarray) -> int:
    """How many weights that stay are not zero."""
    count = at = 0
    for chunk, start in slices(weights.payload):
        alive = weights.alive(chunk, start)
        count += int(np.count_nonzero(alive & kept[at : at + alive.size]))
        at += alive.size
    return count
