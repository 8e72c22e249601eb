"""Ways to spread pruning over layers: from how much is to be left to what is pruned how hard."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..config import PruneConfig
from ..graph.layer import LayerScan
from ..model.tensors import TensorAddress
from ..pattern import BlockPattern
from ..pruning.patterned import Patterned
from ..pruning.patterns import block_scores
from ..pruning.plan import LayerPlan
from ..pruning.selection import select
from ..pruning.threshold import sparsity_thresholds
from .scan import ScannedLayer

__all__ = [
    "Allocation",
    "Curve",
    "FixedWay",
    "SensitivityWay",
    "ThresholdWay",
    "Way",
    "curves_of",
    "with_shares",
]


class Way(Protocol):
    """Gives a configuration for every amount of pruning."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def config(self, kept: float) -> PruneConfig | None:
        """How to leave this share of the weights alive, 0 to 1; None where it cannot be reached."""


@dataclass(frozen=True)
class ThresholdWay:
    """One target for all layers: what ``--sparsity`` does.

    Attributes:
        base: Everything else that was asked for.
        name: What reports call it.
    """

    base: PruneConfig
    name: str

    def config(self, kept: float) -> PruneConfig | None:
        """How to leave this share of the weights alive."""
        return replace(self.base, quality=None, sparsity=max(1.0 - kept, 0.0))


@dataclass(frozen=True)
class FixedWay:
    """One configuration, whatever is asked for.

    Attributes:
        only: The configuration.
        name: What reports call it.
    """

    only: PruneConfig
    name: str

    def config(self, kept: float) -> PruneConfig | None:
        """The configuration."""
        return self.only


@dataclass(frozen=True, eq=False)
class Curve:
    """What it costs to take weights from one layer.

    Attributes:
        plan: The layer as it is.
        gone: Weights that are zero, rising, the first of them those that are zero already.
        cost: What that costs, on the lower convex hull: every further weight costs more.
    """

    plan: LayerPlan
    gone: np.ndarray
    cost: np.ndarray


def curves_of(layers: Sequence[ScannedLayer], costs: Sequence[Sequence[float]]) -> list[Curve]:
    """Curves of the layers that were tried and reach what is measured.

    Args:
        layers: Scanned layers.
        costs: For each of them, what each of its prunings costs.
    """
    found: list[Curve] = []
    for layer, own in zip(layers, costs, strict=True):
        if not layer.tried or layer.unreached:
            continue
        plan = layer.plan
        size, alive = plan.statistics.size, plan.statistics.alive
        gone = [size - alive, *(size - tried.plan.kept for tried in layer.tried)]
        cost = np.maximum.accumulate(np.nan_to_num([0.0, *own], nan=np.inf))
        found.append(Curve(plan, *_hull(np.array(gone, float), cost)))
    return found


def _hull(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower convex hull of points of which both coordinates rise."""
    kept: list[int] = []
    for at in map(int, np.flatnonzero(np.isfinite(y))):
        if kept and x[at] <= x[kept[-1]]:
            continue
        # The last point goes where it lies on or above the line to the new one.
        while len(kept) > 1 and _slope(x, y, kept[-2], kept[-1]) >= _slope(x, y, kept[-2], at):
            kept.pop()
        kept.append(at)
    return x[kept], y[kept]


def _slope(x: np.ndarray, y: np.ndarray, a: int, b: int) -> float:
    return float((y[b] - y[a]) / (x[b] - x[a]))


@dataclass(frozen=True, eq=False)
class Allocation:
    """How many weights each layer loses for a number in all, at the least sum of costs.

    Every further weight is taken where it costs least, as far as the costs of layers add up.
    """

    curves: Sequence[Curve]

    def gone(self, total: float) -> dict[TensorAddress, float] | None:
        """Weights that are zero in each layer; None where so many cannot go.

        Args:
            total: Weights of all these layers that are zero.
        """
        gone = {curve.plan.layer.address: float(curve.gone[0]) for curve in self.curves}
        left = total - sum(gone.values())
        for _, address, more in self._steps():
            part = min(more, max(left, 0.0))
            gone[address] += part
            left -= part
        return None if left > 0.5 else gone

    def _steps(self) -> list[tuple[float, TensorAddress, float]]:
        """Slopes of all pieces of all curves, with the weights that each takes, cheapest first."""
        steps = [
            (cost / more, at, curve.plan.layer.address, more)
            for at, curve in enumerate(self.curves)
            for more, cost in zip(np.diff(curve.gone), np.diff(curve.cost), strict=True)
        ]
        steps.sort(key=lambda step: step[:2])
        return [(slope, address, float(more)) for slope, _, address, more in steps]


@dataclass(frozen=True, eq=False)
class SensitivityWay:
    """Qualities of single layers, from what they cost when they are pruned alone.

    Attributes:
        base: Everything else that was asked for.
        scan: The model's layers.
        allocation: How weights are taken from layers.
        size: Weights of the layers that are searched over, zeros included.
        name: What reports call it.
    """

    base: PruneConfig
    scan: LayerScan
    allocation: Allocation
    size: int
    name: str = "qualities from sensitivity"

    def config(self, kept: float) -> PruneConfig | None:
        """How to leave this share of the weights alive."""
        gone = self.allocation.gone((1.0 - kept) * self.size)
        if gone is None:
            return None
        plans = {curve.plan.layer.address: curve.plan for curve in self.allocation.curves}
        shares = {at: count / plans[at].statistics.size for at, count in gone.items()}
        return with_shares(self.base, self.scan, list(plans.values()), shares)


def with_shares(
    base: PruneConfig,
    scan: LayerScan,
    plans: Sequence[LayerPlan],
    shares: Mapping[TensorAddress, float],
) -> PruneConfig | None:
    """A configuration that gives each layer the quality that leaves a share of it zero.

    Args:
        base: Everything else; its own qualities of layers stay.
        scan: The model's layers.
        plans: The layers that get a quality; all others get quality 0.
        shares: Shares of zeros, 0 to 1.

    Returns:
        None where the layers' names do not tell them apart.
    """
    qualities: dict[TensorAddress, float] = {}
    for plan in plans:
        address = plan.layer.address
        threshold = _threshold(plan, min(shares[address], 1.0), base.blocks)
        qualities[address] = threshold / plan.statistics.std if threshold > 0 else 0.0
    # Quality x deviation must not fall below the threshold by a rounding.
    own = tuple(
        (glob.escape(plan.layer.name), float(np.nextafter(qualities[plan.layer.address], np.inf)))
        for plan in plans
        if qualities[plan.layer.address] > 0
    )
    config = replace(base, sparsity=None, scope="global", quality=0.0, layers=(*own, *base.layers))
    choices = select(
        scan.layers, overrides=config.layers, exclude=config.exclude, unprunable=scan.unprunable
    )
    for layer, choice in zip(scan.layers, choices, strict=True):
        wanted = dict(own).get(glob.escape(layer.name))
        searched = layer.address in qualities
        if searched and choice.off is None and (choice.quality or None) != (wanted or None):
            return None
    return config


def _threshold(plan: LayerPlan, share: float, blocks: BlockPattern | None) -> float:
    """The magnitude, or root mean square of blocks, below which a share of a layer lies."""
    if blocks is None:
        return sparsity_thresholds([plan.weights], share)[0]
    one = Patterned(plan.layer, plan.weights)
    scores, sizes = (each.reshape(-1) for each in block_scores(one.magnitudes(), one.axes, blocks))
    order = np.argsort(scores, kind="stable")
    gone = np.searchsorted(np.cumsum(sizes[order]), share * plan.statistics.size, side="right")
    if gone == len(order):
        return float(np.nextafter(scores.max(), np.float32(np.inf)))
    return float(scores[order[gone]])
