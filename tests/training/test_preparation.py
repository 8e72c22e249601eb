"""The forward graph: computes what the model does, in float32 and for any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model.sources import read
from onnxprune.model.tensors import TensorAddress
from onnxprune.training import preparation
from onnxprune.training.preparation import SEED_INPUT, Statistic, prepare
from tests.training.nets import MLP_SHAPES, batches, cnn, fixed_batch, mlp, model, stored
from tests.training.test_trainer import BN, DROPOUT, bn_net


def outputs(proto: ModelProto, **feeds: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["y"], feeds)[0])


@pytest.mark.parametrize("opset", [9, 13, 17, 23])
def test_the_forward_graph_computes_what_the_model_does(opset: int) -> None:
    proto, x = cnn(opset=opset), batches(1, 3, (2, 6, 6))[0]["x"]
    before = proto.SerializeToString()
    forward = prepare(read(proto))
    np.testing.assert_allclose(outputs(forward.proto, x=x), outputs(proto, x=x), rtol=1e-5)
    assert max(entry.version for entry in forward.proto.opset_import) >= 23
    assert forward.addresses == {name: TensorAddress((), name) for name in stored(proto)}
    assert (forward.dropouts, forward.fixed_batch, forward.notes) == (0, None, ())
    assert proto.SerializeToString() == before


def test_half_precision_becomes_float32_with_a_note() -> None:
    proto = mlp()
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    forward = prepare(read(proto))
    types = {tensor.data_type for tensor in forward.proto.graph.initializer}
    assert types == {TensorProto.FLOAT}
    assert forward.notes == ("float16 weights are trained as float32 copies",)


def test_a_fixed_batch_is_freed_where_that_is_safe() -> None:
    proto = mlp()
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 1
    forward = prepare(read(proto))
    assert forward.fixed_batch is None
    assert outputs(forward.proto, x=batches(1, 5)[0]["x"]).shape == (5, 3)


def test_a_fixed_batch_that_stays_is_told() -> None:
    forward = prepare(read(fixed_batch(mlp(), 4)))
    assert forward.fixed_batch == 4
    assert forward.notes[0].startswith("gradients are added up over batches of 4: CumSum")


def test_weights_listed_as_inputs_do_not_count_as_batches() -> None:
    proto = mlp()
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims)
        proto.graph.input.append(info)
    forward = prepare(read(proto))
    assert [info.name for info in forward.proto.graph.input] == ["x"]
    assert forward.fixed_batch is None


def test_stale_shapes_are_dropped() -> None:
    proto = mlp()
    info = helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, 8])  # of an export for one
    proto.graph.value_info.append(info)
    forward = prepare(read(proto))
    assert not forward.proto.graph.value_info
    onnx.shape_inference.infer_shapes(forward.proto, strict_mode=True)


def test_dropout_is_active_in_the_forward_graph_alone() -> None:
    proto, x = model(DROPOUT, MLP_SHAPES), batches(1)[0]["x"]
    forward = prepare(read(proto))
    assert forward.dropouts == 1
    seeds = [np.array(seed, np.int64) for seed in (1, 2)]
    drawn = [outputs(forward.proto, x=x, **{SEED_INPUT: seed}) for seed in seeds]
    assert not np.array_equal(*drawn)
    expected = outputs(proto, x=x)
    np.testing.assert_allclose(outputs(forward.inference, x=x), expected, rtol=1e-5)


def test_statistics_are_named_in_training_mode_alone() -> None:
    proto = bn_net()
    assert prepare(read(proto)).statistics == ()
    forward = prepare(read(proto), bn="train")
    assert forward.statistics == (Statistic("m", "m.updated"), Statistic("v", "v.updated"))
    x = batches(1)[0]["x"]
    np.testing.assert_allclose(outputs(forward.inference, x=x), outputs(proto, x=x), rtol=1e-5)


def test_statistics_that_cannot_be_updated_are_refused() -> None:
    twice = BN.replace(
        "a = Relu (n)",
        """
        n2 = BatchNormalization <momentum = 0.8, epsilon = 1e-3> (n, s, o, m, v)
        a = Relu (n2)
    """,
    )
    proto = model(twice, stored(bn_net()))
    proto.graph.node[2].name = "second"
    with pytest.raises(ModelError, match=r"'second' has statistics that are computed or shared"):
        prepare(read(proto), bn="train")
    assert prepare(read(proto)).statistics == ()


def test_a_model_too_large_for_one_message_is_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr(preparation, "INLINE_LIMIT", 100)
    with pytest.raises(ModelError, match="larger than 2 GB"):
        prepare(read(mlp()))
