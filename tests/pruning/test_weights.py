from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.graph.layer import Layer, Quantization
from onnxprune.model.model import Model
from onnxprune.model.tensors import TensorAddress
from onnxprune.pruning.weights import Float8Weights, FloatWeights, QuantizedWeights, weights_of


def model_of(tensor: TensorProto, quantization: Quantization | None = None) -> tuple[Model, Layer]:
    """A model with one initializer, and the layer that it is."""
    proto = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    address = TensorAddress((), tensor.name)
    shape = tuple(tensor.dims)
    layer = Layer("w", address, "initializer", shape, tensor.data_type, (), quantization)
    return Model(proto), layer


def made(data_type: int, shape: Sequence[int], values: Sequence[float]) -> TensorProto:
    return helper.make_tensor("w", data_type, shape, values)


def test_each_storage_type_has_its_weights() -> None:
    scaled = Quantization(np.array(0.5, np.float32), np.array(1, np.int8))
    cases = [
        (numpy_helper.from_array(np.ones((2, 2)), "w"), None, FloatWeights, 1.0),
        (made(TensorProto.BFLOAT16, [2], [1, 1]), None, FloatWeights, 1.0),
        (made(TensorProto.INT8, [2], [5, 5]), None, QuantizedWeights, 5.0),
        (made(TensorProto.UINT8, [2], [5, 5]), scaled, QuantizedWeights, 2.0),
        (made(TensorProto.INT4, [3], [-3, -3, -3]), scaled, QuantizedWeights, -2.0),
        (made(TensorProto.FLOAT8E4M3FN, [2], [1, 1]), None, Float8Weights, 1.0),
    ]
    for tensor, quantization, kind, value in cases:
        weights = weights_of(*model_of(tensor, quantization))
        assert isinstance(weights, kind)
        assert weights.size == np.prod(tensor.dims)
        assert set(weights.values(weights.payload.array(), 0).tolist()) == {value}
        assert weights.wide == (weights.values(weights.payload.array(), 0).dtype == np.float64)


def test_other_types_and_misfitting_scales_are_refused() -> None:
    with pytest.raises(ModelError, match="layer 'w' holds int64 elements"):
        weights_of(*model_of(made(TensorProto.INT64, [2], [1, 1])))
    shifted = Quantization(np.array(1.0), np.array(1.0, np.float32))
    with pytest.raises(ModelError, match="holds float8e5m2 elements"):
        weights_of(*model_of(made(TensorProto.FLOAT8E5M2, [2], [1, 1]), shifted))
    for wrong in (
        Quantization(np.ones(3), np.array(0), 0),
        Quantization(np.ones(2), np.array(0)),
        Quantization(np.ones(2), np.zeros((2, 2)), 0),
        Quantization(np.ones((2, 2)), np.array(0), 1, 2),
    ):
        with pytest.raises(ModelError, match="layer 'w' has a scale or zero point"):
            weights_of(*model_of(made(TensorProto.INT8, [2, 2], [1] * 4), wrong))
