"""Mean, standard deviation and range of the weights alive, in one streaming pass.

Moments of blocks are merged with Chan's parallel formula (Chan, Golub, LeVeque 1983,
https://doi.org/10.1080/00031305.1983.10483115), always in the order of the tensor, so that the
result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .stream import blocks, ordered_map, slices
from .weights import Weights

__all__ = ["LayerStatistics", "all_statistics", "layer_statistics", "prunability"]

#: Below this share of the mean square, the variance is computed again around the mean.
CANCELLATION = 1e-3
#: Powers of two beyond which squares would leave the range of float64.
SAFE_EXPONENT = 400


@dataclass(frozen=True)
class LayerStatistics:
    """Facts about the weights of one layer.

    `mean` and `std` (population), `minimum` and `maximum` are over the finite weights that are not
    zero, all 0.0 where there are none; `alive` counts all weights that are not zero.
    """

    size: int
    alive: int
    mean: float
    std: float
    minimum: float
    maximum: float
    nonfinite: int

    @property
    def sparsity(self) -> float:
        """Share of weights that are zero; 0.0 for an empty layer."""
        return 1.0 - self.alive / self.size if self.size else 0.0


@dataclass(frozen=True)
class _Moments:
    """Moments of some weights: finite ones alive, and how many others there are.

    `spread` is the root mean square distance from the mean: unlike its square, it has the range
    of the weights themselves.
    """

    count: int = 0
    mean: float = 0.0
    spread: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    nonfinite: int = 0

    def merged(self, other: _Moments) -> _Moments:
        """Moments of both (Chan's formula)."""
        nonfinite = self.nonfinite + other.nonfinite
        if not self.count or not other.count:
            return replace(self if self.count else other, nonfinite=nonfinite)
        count = self.count + other.count
        share = other.count / count
        distance = other.mean - self.mean
        spread = math.hypot(
            self.spread * math.sqrt(1 - share),
            other.spread * math.sqrt(share),
            distance * math.sqrt(share * (1 - share)),
        )
        return _Moments(
            count,
            self.mean + distance * share,
            spread,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            nonfinite,
        )


def layer_statistics(weights: Weights, *, workers: int | None = None) -> LayerStatistics:
    """Statistics of one layer."""
    return next(all_statistics([weights], workers=workers))


def all_statistics(
    layers: Sequence[Weights],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[LayerStatistics]:
    """Statistics of several layers, in order, with one pool of threads for all of them.

    Args:
        layers: The layers.
        workers: Number of threads; None for the default.
        advance: Called with the number of stored bytes that were read, slice by slice.
    """
    items = (
        (number, weights, chunk, start)
        for number, weights in enumerate(layers)
        for chunk, start in slices(weights.payload)
    )
    done, total = 0, _Moments()
    for number, read, moments in ordered_map(_slice_moments, items, workers=workers):
        while done < number:
            yield _finished(layers[done], total)
            done, total = done + 1, _Moments()
        total = total.merged(moments)
        if advance:
            advance(read)
    for weights in layers[done:]:
        yield _finished(weights, total)
        total = _Moments()


def prunability(statistics: LayerStatistics) -> str | None:
    """Why no threshold makes sense for a layer, or None where one does."""
    if not statistics.size:
        return "empty"
    if not statistics.alive:
        return "all weights are zero"
    if statistics.alive == 1:
        return "a single weight" if statistics.size == 1 else "a single weight that is not zero"
    if statistics.minimum == statistics.maximum:
        return f"constant: every weight that is not zero is {statistics.minimum:.6g}"
    return None if statistics.std > 0 else "standard deviation 0"


def _finished(weights: Weights, moments: _Moments) -> LayerStatistics:
    """Public form of the moments of a whole layer."""
    alive = moments.count + moments.nonfinite
    if not moments.count:
        return LayerStatistics(weights.size, alive, 0.0, 0.0, 0.0, 0.0, moments.nonfinite)
    constant = moments.minimum == moments.maximum
    # No deviation exceeds the largest magnitude; rounding must not make it so, or q = 1 would
    # prune all of a layer whose weights are +c and -c.
    spread = min(moments.spread, max(-moments.minimum, moments.maximum))
    return LayerStatistics(
        weights.size,
        alive,
        moments.minimum if constant else moments.mean,
        0.0 if constant else spread,
        moments.minimum,
        moments.maximum,
        moments.nonfinite,
    )


def _slice_moments(item: tuple[int, Weights, np.ndarray, int]) -> tuple[int, int, _Moments]:
    """Number of the layer, bytes read, and the moments of one slice."""
    number, weights, chunk, start = item
    total = _Moments()
    with np.errstate(all="ignore"):
        for block, at in blocks(chunk, start):
            total = total.merged(_block_moments(weights.values(block, at)))
    return number, chunk.nbytes, total


def _block_moments(values: np.ndarray) -> _Moments:
    """Moments of a block (not empty) in as few passes as the values allow."""
    alive = int(np.count_nonzero(values != 0))
    minimum, maximum = float(values.min()), float(values.max())
    if not (math.isfinite(minimum) and math.isfinite(maximum)):
        finite = values[np.isfinite(values)]
        moments = _block_moments(finite) if finite.size else _Moments()
        return replace(moments, nonfinite=values.size - finite.size)
    exponent = math.frexp(max(-minimum, maximum))[1]
    if abs(exponent) < SAFE_EXPONENT and (minimum < 0 < maximum or alive == values.size):
        found = _mean_and_spread(values.astype(np.float64, copy=False), alive)
        if found:
            return _Moments(alive, *found, minimum, maximum)
    return _careful_moments(values[np.flatnonzero(values)], exponent)


def _mean_and_spread(values: np.ndarray, alive: int) -> tuple[float, float] | None:
    """Mean and standard deviation around zero; None where that would cancel digits.

    Zeros among the values add nothing to either sum.
    """
    # einsum rather than dot: BLAS starts threads of its own, and sums in an order of its own.
    mean = float(np.einsum("i->", values)) / alive
    mean_square = float(np.einsum("i,i->", values, values)) / alive
    variance = mean_square - mean * mean
    return None if variance < CANCELLATION * mean_square else (mean, math.sqrt(variance))


def _careful_moments(values: np.ndarray, exponent: int) -> _Moments:
    """Moments around the mean of values without zeros, of magnitudes up to ``2**exponent``."""
    if not values.size:
        return _Moments()
    scaled = np.ldexp(values.astype(np.float64), -exponent)
    mean = float(np.mean(scaled))
    scaled -= mean
    variance = float(np.einsum("i,i->", scaled, scaled)) / scaled.size - float(np.mean(scaled)) ** 2
    return _Moments(
        values.size,
        float(np.ldexp(mean, exponent)),
        float(np.ldexp(math.sqrt(max(variance, 0.0)), exponent)),
        float(values.min()),
        float(values.max()),
    )
