"""Masks that are decided on again while weights are trained: which go, and which come back.

Sources: Zhu & Gupta 2017, "To prune, or not to prune" (a share of zeros that rises while the model
is trained); Guo et al. 2016, "Dynamic Network Surgery for Efficient DNNs", equation 3 (two
thresholds, so that weights near the limit do not come and go).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .ranking import lowest

__all__ = ["GRADUAL", "SPLICING", "Aim", "Hysteresis", "revised", "weighed"]


@dataclass(frozen=True)
class Hysteresis:
    """How far below a threshold a weight goes, and how far above it one comes back.

    Attributes:
        lower: An alive weight goes where its magnitude is below `lower` x threshold.
        upper: A pruned one comes back where its magnitude is at least `upper` x threshold; None
            where nothing comes back.
    """

    lower: float
    upper: float | None

    def scores(self, weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Numbers that stay where they reach the threshold: float32, of the weights' shape."""
        back = 0.0 if self.upper is None else 1 / self.upper
        factors = np.where(mask, np.float32(1 / self.lower), np.float32(back))
        scores: np.ndarray = np.abs(weights) * factors
        return scores


#: Zhu & Gupta: what went stays away.
GRADUAL = Hysteresis(1.0, None)
#: Guo et al., section 3.2: a margin of a tenth on either side.
SPLICING = Hysteresis(0.9, 1.1)


@dataclass(frozen=True)
class Aim:
    """What is to be left in the end.

    Attributes:
        thresholds: Full thresholds of layers that have one of their own.
        pools: Layers that share a number of weights to keep, and that number.
    """

    thresholds: Mapping[str, float]
    pools: tuple[tuple[tuple[str, ...], int], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All layers."""
        return (*self.thresholds, *(name for names, _ in self.pools for name in names))


def revised(
    aim: Aim,
    height: float,
    hysteresis: Hysteresis,
    weights: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    candidates: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """New masks of all layers of an aim.

    Args:
        aim: What is to be left at height 1.
        height: Share of that: of every threshold, and of the weights that a pool is to lose.
        hysteresis: What it takes to go and to come back.
        weights: The weights beneath the masks.
        masks: The masks so far, bool.
        candidates: Which weights may be there at all, bool: the others were zero from the start.
    """
    scores = {}
    for name in aim.names:
        score = hysteresis.scores(weights[name], masks[name])
        score[~candidates[name]] = -1
        if hysteresis.upper is None:
            score[~masks[name]] = -1
        scores[name] = score
    found = {name: scores[name] >= height * threshold for name, threshold in aim.thresholds.items()}
    for names, kept in aim.pools:
        alive = sum(int(np.count_nonzero(candidates[name])) for name in names)
        wanted = alive - round((alive - kept) * height)
        found.update(zip(names, _best([scores[name] for name in names], wanted), strict=True))
    return found


def weighed(
    aim: Aim, weights: Mapping[str, np.ndarray], squares: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Weights whose magnitudes say what the loss would lose by them, in layers of pools.

    Without a weight w the loss rises by about ``F w^2 / 2``, where F, its entry of the Fisher
    information's diagonal, is the mean squared gradient (Theis et al. 2018, "Faster gaze prediction
    with dense networks and Fisher pruning"; LeCun et al. 1990, "Optimal Brain Damage").
    Its root ranks alike. Layers with a threshold of their own stay as they are.

    Args:
        aim: What is to be left in the end.
        weights: The weights.
        squares: Mean squared gradients, all up to one factor.
    """
    pooled = [name for names, _ in aim.pools for name in names]
    return {**weights, **{name: weights[name] * np.sqrt(squares[name]) for name in pooled}}


def _best(scores: Sequence[np.ndarray], wanted: int) -> list[np.ndarray]:
    """So many of the highest scores of all arrays, none of them below 0."""
    flat = np.concatenate([score.reshape(-1) for score in scores])
    kept = flat >= 0
    kept[lowest(flat, flat.size - wanted)] = False
    ends = np.cumsum([score.size for score in scores])[:-1]
    return [
        part.reshape(score.shape) for part, score in zip(np.split(kept, ends), scores, strict=True)
    ]
