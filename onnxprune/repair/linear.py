"""Layers whose pre-activations follow from their data alone, without a run of the model.

Where the data of a layer lie at hand, what it makes of them is a product with its weights, and the
fit needs the rows of that product anyway: running the node would do the work twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..model.model import Model
from ..model.tensors import TensorAddress
from .biases import BIAS_INPUT
from .jobs import Job
from .samples import Samples
from .seen import OUTSIDE
from .sites import Site
from .taps import widened
from .targets import Observed, Targets
from .writing import numbers

__all__ = ["Linear", "linear_of", "placed"]


@dataclass(frozen=True, eq=False)
class Linear:
    """The linear map of a layer.

    Attributes:
        weights: [groups, outputs, inputs], float64.
        bias: What the node itself adds [groups, 1, outputs].
    """

    weights: np.ndarray
    bias: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Pre-activations [groups, rows, outputs] of rows [groups, rows, inputs], in their type."""
        # What overflows is found among the results, as it is after a run.
        with np.errstate(over="ignore", invalid="ignore"):
            made: np.ndarray = rows @ self.weights.astype(rows.dtype).swapaxes(1, 2)
            return made + self.bias.astype(rows.dtype) if self.bias.any() else made


def linear_of(model: Model, job: Job, samples: Samples, targets: Targets) -> Linear | None:
    """The map of a layer whose data are at hand; None where it takes a run to know its outputs.

    Args:
        model: A pruning of the unpruned model, in its working form.
        job: The layer.
        samples: What the model makes of the samples before this layer.
        targets: What the unpruned model computes.
    """
    known = samples.batches[0]
    if not targets.whole or any(site.data.name not in known for site in job.sites):
        return None
    first = job.sites[0]
    biases = [_bias(model, site) for site in job.sites]
    if (first.positions == OUTSIDE).any() or any(bias is None for bias in biases):
        return None
    groups, outputs, _ = job.shape
    # Several uses of one weight have biases of their own, which only a run keeps apart.
    if len(biases) > 1 and any(bias.any() for bias in biases if bias is not None):
        return None
    assert biases[0] is not None
    weights = numbers(model, job.layer.address)[first.positions]
    return Linear(weights, np.broadcast_to(biases[0], groups * outputs).reshape(groups, 1, outputs))


def _bias(model: Model, site: Site) -> np.ndarray | None:
    """What a node adds to its outputs; None where that is no stored number for each."""
    node = model.proto.graph.node[site.node.index]
    if node.op_type == "MatMul" or len(node.input) <= BIAS_INPUT or not node.input[BIAS_INPUT]:
        return np.zeros(1)
    if site.bias is None:
        return None
    stored = site.bias.address or TensorAddress((), node.input[BIAS_INPUT])
    found: np.ndarray = numbers(model, stored)[site.bias.positions] * site.bias.scale
    return found


def placed(
    jobs: Sequence[Job], samples: Samples, targets: Targets
) -> Iterator[tuple[Job, Observed]]:
    """Uses of layers whose data are at hand, as `observed` gives them, without their outputs."""
    for number, feeds in enumerate(samples.batches):
        for job in jobs:
            for site in job.sites:
                x = widened(feeds[site.data.name])
                yield job, targets.placed(site, (number, site.node.index), x)
