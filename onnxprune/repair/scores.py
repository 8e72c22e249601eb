"""Which weights go at a given share of zeros: by magnitude, or by magnitude and use.

The use of a weight is the standard deviation of the input that it multiplies, in the model as it is
(what is constant, a refitted bias makes up for). Within a layer that is the criterion of Sun et
al., "A Simple and Effective Pruning Approach for Large Language Models" (Wanda, 2023). Between
layers, uses are counted in their layer's root mean square: a layer's inputs being large says
nothing of its importance, and layers whose inputs are not seen compare by magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..graph.layer import Layer
from ..model.model import Model
from ..model.tensors import TensorAddress
from .jobs import Job
from .samples import Samples
from .targets import observed
from .writing import rewritten

__all__ = ["Uses", "input_uses", "without_least"]

#: Standard deviations of the inputs of a layer's weights, in its stored order, relative to their
#: root mean square; by address.
Uses = Mapping[TensorAddress, np.ndarray]


def input_uses(
    model: Model, jobs: Sequence[Job], samples: Samples, *, stack: bool
) -> tuple[dict[TensorAddress, np.ndarray], dict[TensorAddress, float]]:
    """How much the inputs of each weight vary, for layers whose inputs can be seen.

    Args:
        model: The model that runs.
        jobs: The layers.
        samples: What it is fed.
        stack: See `Taps`.

    Returns:
        Uses by address, and the root mean square that they are relative to.
    """
    sums = {job: _Variances() for job in jobs}
    for job, seen in observed(model, jobs, samples, stack=stack):
        unfolding = seen.site.unfolding
        sums[job].add(unfolding.rows(seen.x, seen.y.shape, seen.picks))
    uses: dict[TensorAddress, np.ndarray] = {}
    scales: dict[TensorAddress, float] = {}
    for job in jobs:
        address = job.layer.address
        relative, scales[address] = sums[job].deviations()
        uses[address] = _stored(job, relative)
    return uses, scales


class _Variances:
    """Variance of inputs [groups, inputs] over rows."""

    def __init__(self) -> None:
        self.count = 0
        self.total: np.ndarray | float = 0.0
        self.squares: np.ndarray | float = 0.0

    def add(self, x: np.ndarray) -> None:
        self.total = self.total + x.sum(axis=1, dtype=np.float64)
        self.squares = self.squares + np.einsum("grk,grk->gk", x, x, dtype=np.float64)
        self.count += x.shape[1]

    def deviations(self) -> tuple[np.ndarray, float]:
        """Relative to their root mean square, and that; all one where nothing varies."""
        mean = np.asarray(self.total) / max(self.count, 1)
        variance = np.maximum(np.asarray(self.squares) / max(self.count, 1) - mean**2, 0.0)
        whole = float(variance.mean())
        relative = variance / whole if whole > 0 else np.ones_like(variance)
        return np.sqrt(relative), whole**0.5


def _stored(job: Job, deviations: np.ndarray) -> np.ndarray:
    """A number for each stored weight [weights], from one for each input [groups, inputs]."""
    positions = job.sites[0].positions
    spread = np.broadcast_to(deviations[:, None, :], positions.shape)
    flat = np.ones(int(np.prod(job.layer.shape)), np.float32)
    flat[positions[positions >= 0]] = spread[positions >= 0]
    return flat


def without_least(
    model: Model, layers: Sequence[Layer], share: float, uses: Uses | None = None
) -> Model:
    """The model with the least of its weights at zero, over all these layers together.

    Args:
        model: The model; zeros stay zeros.
        layers: The layers, of floats.
        share: Share of zeros wanted, 0 to 1.
        uses: What magnitudes are multiplied by; 1 where a layer has none.
    """
    scores: list[np.ndarray] = []
    for layer in layers:
        values = np.abs(model.array(model.tensors[layer.address]).reshape(-1).astype(np.float32))
        use = (uses or {}).get(layer.address)
        scores.append(values * (1 if use is None else use))
        # A weight that does nothing goes, but after those that are gone already.
        scores[-1][(values > 0) & (scores[-1] == 0)] = np.finfo(np.float32).tiny
    everything = np.concatenate([score for score in scores]) if scores else np.zeros(0, np.float32)
    wanted = min(round(share * everything.size), everything.size)
    if not wanted:
        return model
    limit = np.partition(everything, wanted - 1)[wanted - 1]
    changed: dict[TensorAddress, np.ndarray] = {}
    for layer, score in zip(layers, scores, strict=True):
        values = model.array(model.tensors[layer.address]).reshape(-1)
        gone = (score <= limit) & (values != 0)
        if gone.any():
            changed[layer.address] = np.where(gone, np.zeros((), values.dtype), values)
    return rewritten(model, changed)
