"""Which weights go at a given share of zeros: by magnitude, or by magnitude and use.

The use of a weight is the standard deviation of the input that it multiplies, in the model as it is
(what is constant, a refitted bias makes up for). Within a layer that is the criterion of Sun et
al., "A Simple and Effective Pruning Approach for Large Language Models" (Wanda, 2023). Between
layers, uses are counted in their layer's root mean square: a layer's inputs being large says
nothing of its importance, and layers whose inputs are not seen compare by magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph.layer import Layer
from ..model.model import Model
from ..model.tensors import TensorAddress
from .jobs import Job
from .samples import Samples
from .seen import OUTSIDE
from .targets import observed
from .writing import rewritten

__all__ = ["Uses", "input_uses", "stored_outputs", "uses_of", "without_least"]


@dataclass(frozen=True, eq=False)
class Uses:
    """How much the inputs of weights vary.

    Attributes:
        relative: Standard deviation of each weight's input, in the layer's stored order, relative
            to their root mean square over the layer; by address.
        scales: That root mean square.
    """

    relative: Mapping[TensorAddress, np.ndarray]
    scales: Mapping[TensorAddress, float]


def uses_of(variances: Mapping[Job, np.ndarray]) -> Uses:
    """Uses of layers from the variances of their inputs [groups, inputs]."""
    relative, scales = {}, {}
    for job, variance in variances.items():
        whole = float(variance.mean())
        part = variance / whole if whole > 0 else np.ones_like(variance)
        relative[job.layer.address] = _spread(job, np.sqrt(part)[:, None, :])
        scales[job.layer.address] = whole**0.5
    return Uses(relative, scales)


def input_uses(model: Model, jobs: Sequence[Job], samples: Samples, *, stack: bool) -> Uses:
    """How much the inputs of each weight vary, for layers whose inputs can be seen.

    Args:
        model: The model that runs.
        jobs: The layers.
        samples: What it is fed.
        stack: See `Taps`.
    """
    sums = {job: _Variances() for job in jobs}
    for job, seen in observed(model, jobs, samples, stack=stack):
        unfolding = seen.site.unfolding
        sums[job].add(unfolding.rows(seen.x, seen.y.shape, seen.picks))
    return uses_of({job: found.value for job, found in sums.items()})


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

    @property
    def value(self) -> np.ndarray:
        """The variance [groups, inputs]."""
        mean = np.asarray(self.total) / max(self.count, 1)
        return np.maximum(np.asarray(self.squares) / max(self.count, 1) - mean**2, 0.0)


def stored_outputs(
    jobs: Sequence[Job], values: Mapping[TensorAddress, np.ndarray]
) -> dict[TensorAddress, np.ndarray]:
    """A number for each stored weight, from one for each output [groups, outputs]."""
    return {
        job.layer.address: _spread(job, values[job.layer.address][:, :, None])
        for job in jobs
        if job.layer.address in values
    }


def _spread(job: Job, values: np.ndarray) -> np.ndarray:
    """A number for each stored weight, from what broadcasts to [groups, outputs, inputs]."""
    positions = job.sites[0].positions
    flat = np.ones(int(np.prod(job.layer.shape)), np.float32)
    known = positions != OUTSIDE
    flat[positions[known]] = np.broadcast_to(values, positions.shape)[known]
    return flat


def without_least(
    model: Model,
    layers: Sequence[Layer],
    share: float,
    uses: Mapping[TensorAddress, np.ndarray] | None = None,
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
    everything = np.concatenate(scores) if scores else np.zeros(0, np.float32)
    left = everything[everything > 0]
    wanted = min(round(share * everything.size), everything.size) - (everything.size - left.size)
    if wanted <= 0:
        return model
    limit = np.partition(left, wanted - 1)[wanted - 1]
    changed: dict[TensorAddress, np.ndarray] = {}
    for layer, score in zip(layers, scores, strict=True):
        values = model.array(model.tensors[layer.address]).reshape(-1)
        gone = (score <= limit) & (values != 0)
        if gone.any():
            changed[layer.address] = np.where(gone, np.zeros((), values.dtype), values)
    return rewritten(model, changed)
