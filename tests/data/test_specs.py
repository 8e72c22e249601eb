from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.data.specs import InputSpec, input_specs, session_specs
from onnxprune.errors import DataError
from onnxprune.runtime import open_session


def model(*inputs: object, weights: tuple[str, ...] = ()) -> ModelProto:
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.zeros(3, np.float32), name) for name in weights]
    graph = helper.make_graph([node], "g", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 0, None])


def test_inputs_of_a_graph() -> None:
    proto = model(
        X,
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [2, 5]),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, [3]),
        weights=("w",),
    )
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    proto.graph.sparse_initializer.add(values=values, dims=[3])
    x, b = input_specs(proto)
    assert x == InputSpec("x", np.dtype(np.float32), (None, 3, None, None))
    assert b == InputSpec("b", np.dtype(ml_dtypes.bfloat16), (2, 5))
    assert (x.fixed_batch, b.fixed_batch) == (None, 2)


def test_an_input_of_unknown_shape() -> None:
    proto = model(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    (spec,) = input_specs(proto)
    assert spec.shape is None
    assert spec.fixed_batch is None
    assert session_specs(open_session(proto.SerializeToString())) == [spec]


def test_a_session_has_the_inputs_of_its_graph() -> None:
    proto = model(X, helper.make_tensor_value_info("i", TensorProto.INT64, [2, 5]))
    assert session_specs(open_session(proto.SerializeToString())) == input_specs(proto)


def test_inputs_that_samples_cannot_feed() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    with pytest.raises(DataError, match="input 's': it is sequence_type, not a tensor"):
        input_specs(model(sequence))
    with pytest.raises(DataError, match="'u' has no known element type"):
        input_specs(model(helper.make_tensor_value_info("u", TensorProto.UNDEFINED, [1])))
    half = helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [1])
    with pytest.raises(DataError, match=r"input 'b' of type tensor\(bfloat16\)"):
        session_specs(open_session(model(X, half).SerializeToString()))
