"""Which of many units, weights or blocks of them, go so that a share of all weights does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..config import Scope

__all__ = ["keep_best", "lowest"]


def keep_best(
    scores: Sequence[np.ndarray],
    sizes: Sequence[np.ndarray | None],
    share: float,
    scope: Scope = "global",
) -> list[np.ndarray]:
    """The units of highest score; the others together have the wanted share of the weights.

    Args:
        scores: One array for each layer, with a number of at least 0 for each unit.
        sizes: How many weights each unit has; None: one.
        share: Share of weights that go, 0 to 1: as many units as come closest to it.
        scope: Whether all layers together meet the share, or each does.

    Returns:
        Which units stay, layer by layer. Of equal scores the later units stay.
    """
    if scope == "layer":
        return [keep_best([s], [n], share)[0] for s, n in zip(scores, sizes, strict=True)]
    flat = np.concatenate([np.zeros(0, np.float32), *(s.reshape(-1) for s in scores)])
    kept = np.ones(flat.size, bool)
    if all(n is None for n in sizes):
        count = round(share * flat.size)
        kept[lowest(flat, count)] = False
    elif flat.size:
        weights = np.concatenate(
            [
                np.ones(s.size, np.int64) if n is None else n.reshape(-1).astype(np.int64)
                for s, n in zip(scores, sizes, strict=True)
            ]
        )
        order = np.argsort(flat, kind="stable")
        gone = np.concatenate([[0], np.cumsum(weights[order])])
        count = int(np.argmin(np.abs(gone - share * gone[-1])))
        kept[order[:count]] = False
    ends = np.cumsum([s.size for s in scores])
    parts = np.split(kept, ends[:-1]) if len(scores) else []
    return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Positions of so many of the lowest scores, flat; of equal ones at the limit, the first."""
    if count <= 0:
        return np.zeros(0, np.intp)
    limit = np.partition(scores, count - 1)[count - 1]
    below = np.flatnonzero(scores < limit)
    equal = np.flatnonzero(scores == limit)[: count - below.size]
    return np.concatenate([below, equal])
