"""Between a layer's stored tensor and its linear map [groups, outputs, inputs]."""

from __future__ import annotations

import math

import numpy as np

from ..model.model import Model
from ..repair.jobs import Job
from ..repair.seen import OUTSIDE
from ..repair.writing import numbers

__all__ = ["scattered", "weights_of_map"]


def weights_of_map(model: Model, job: Job) -> np.ndarray:
    """Weights of the linear map in float64; 0 where another tensor has them."""
    positions = job.sites[0].positions
    values: np.ndarray = numbers(model, job.layer.address)[positions]
    values[positions == OUTSIDE] = 0.0
    return values


def scattered(
    job: Job, values: np.ndarray, rest: float | bool, dtype: type | None = None
) -> np.ndarray:
    """Values of the map in the stored shape of the layer.

    Args:
        job: The layer.
        values: Broadcasts to [groups, outputs, inputs].
        rest: What stored elements get that the map does not use.
        dtype: Type of the result; that of `values` by default.
    """
    positions = job.sites[0].positions
    own = positions != OUTSIDE
    flat = np.full(math.prod(job.layer.shape), rest, dtype or values.dtype)
    flat[positions[own]] = np.broadcast_to(values, positions.shape)[own]
    return flat.reshape(job.layer.shape)
