"""Trained values, back into the user's model by the address of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import helper

from ..errors import ModelError
from ..model.model import Model
from ..model.payload import ArrayPayload
from ..model.tensors import TensorAddress

__all__ = ["write_back"]


def write_back(
    model: Model, parameters: Mapping[str, np.ndarray], addresses: Mapping[str, TensorAddress]
) -> Model:
    """The model with trained values, each in the element type that it has there.

    Values beyond the range of a 16-bit type would become infinite.

    Raises:
        ModelError: A value is NaN, infinite, or beyond the range of its type.
    """
    payloads = {}
    for name, values in parameters.items():
        address = addresses[name]
        tensor = model.tensors[address]
        with np.errstate(over="ignore"):
            stored = values.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if not np.isfinite(stored.astype(np.float32)).all():
            raise ModelError(
                f"training made NaN or infinity of tensor '{address}'; use a lower --lr, or "
                "--clip-norm 1"
            )
        payloads[address] = ArrayPayload.of(stored)
    return model.with_payloads(payloads)
