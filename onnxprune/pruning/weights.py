"""How the stored elements of a layer are read as weights, compared, and pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import ModelError
from ..graph.layer import Layer, Quantization
from ..model.dtypes import type_name
from ..model.model import Model
from ..model.payload import Payload
from .floating import FLOAT_DTYPES, FloatWeights, threshold_bits
from .keep import Keep
from .quantized import INTEGER_TYPES, Float8Weights, QuantizedWeights
from .spread import spread_over
from .stream import slices

__all__ = [
    "Float8Weights",
    "FloatWeights",
    "QuantizedWeights",
    "Weights",
    "magnitudes",
    "threshold_bits",
    "weights_of",
]


class Weights(Protocol):
    """The weights of one layer, worked on slice by slice.

    `chunk` is any slice of the payload's storage elements, `start` the index of its first one.
    Packed storage elements hold several weights, the last one perhaps fewer.
    """

    @property
    def payload(self) -> Payload:
        """The stored bytes."""
        ...

    @property
    def size(self) -> int:
        """Number of weights."""
        ...

    @property
    def wide(self) -> bool:
        """Whether `values` are float64 (float32 holds them exactly otherwise)."""
        ...

    def values(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """The (dequantised) weights as float32 or float64; may be a view."""
        ...

    def alive(self, chunk: np.ndarray, start: int) -> np.ndarray:
        """Which weights are not zero."""
        ...

    def kept(self, chunk: np.ndarray, start: int, thresholds: Sequence[float]) -> list[int]:
        """How many weights are not zero and not below each threshold."""
        ...

    def prune(self, chunk: np.ndarray, start: int, threshold: float) -> np.ndarray:
        """Storage elements with every weight of ``|value| < threshold`` replaced.

        By +0.0, or by the zero point; all other weights keep their bits. At threshold 0 nothing
        is below: the chunk itself.
        """
        ...

    def masked(self, chunk: np.ndarray, start: int, keep: Keep) -> np.ndarray:
        """Storage elements with every weight replaced, as by `prune`, that does not stay."""
        ...


def magnitudes(weights: Weights) -> np.ndarray:
    """Magnitudes of all weights, flat, in stored order (float32, or float64 for wide ones)."""
    dtype = np.float64 if weights.wide else np.float32
    found = np.empty(weights.size, dtype)
    at = 0
    for chunk, start in slices(weights.payload):
        values = weights.values(chunk, start)
        np.abs(values, out=found[at : at + values.size])
        at += values.size
    return found


def weights_of(model: Model, layer: Layer) -> Weights:
    """The weights of a layer; raises ModelError for a type or quantisation that can't be pruned."""
    payload = model.payload(model.tensors[layer.address])
    if payload.dtype in FLOAT_DTYPES:
        return FloatWeights(payload)
    kind = type_name(layer.data_type)
    quantization = layer.quantization or Quantization(None, np.zeros((), np.int8))
    _check_fit(layer, quantization)
    if kind in INTEGER_TYPES:
        return QuantizedWeights(
            payload,
            layer.data_type,
            layer.shape,
            quantization.zero_point,
            quantization.scale,
            quantization.axis,
            quantization.block_size,
        )
    zero_at_zero = not np.any(quantization.zero_point.astype(np.float32))
    if kind.startswith("float8") and kind != "float8e8m0" and zero_at_zero:
        return Float8Weights(
            payload,
            layer.data_type,
            layer.shape,
            quantization.scale,
            quantization.axis,
            quantization.block_size,
        )
    raise ModelError(
        f"layer '{layer.name}' holds {kind} elements, which cannot be pruned; "
        "store it as another type"
    )


def _check_fit(layer: Layer, quantization: Quantization) -> None:
    """Raise ModelError where scales or zero points do not fit the layer."""
    for parameter in (quantization.scale, quantization.zero_point):
        if parameter is not None:
            try:
                spread_over(parameter, layer.shape, quantization.axis, quantization.block_size)
            except ValueError as error:
                raise ModelError(
                    f"layer '{layer.name}' has a scale or zero point that does not fit it "
                    f"({error}); quantise the model again"
                ) from error
