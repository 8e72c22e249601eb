"""The teacher: the unpruned model's values, whole or in parts of a fixed batch."""

from __future__ import annotations

import numpy as np
import onnx.reference
import pytest
from onnx import ModelProto

from onnxprune.model.sources import read
from onnxprune.training.preparation import prepare
from onnxprune.training.teacher import Teacher
from tests.training.nets import MLP_SHAPES, batches, fixed_batch, mlp, model


def teacher(proto: ModelProto, *values: str) -> Teacher:
    forward = prepare(read(proto))
    return Teacher(forward.inference, values, forward.fixed_batch)


@pytest.mark.parametrize("value", ["y", "h"])
def test_any_value_of_the_graph_is_given(value: str) -> None:
    proto, batch = mlp(), batches(1)[0]
    (found,) = teacher(proto, value)(batch)
    proto.graph.output[0].name = value
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": batch["x"]})[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_fed_in_parts() -> None:
    batch = batches(1, 6)[0]
    whole = teacher(mlp(), "y", "h")(batch)
    for size in (1, 2, 3, 6):
        parts = teacher(fixed_batch(mlp(), size), "y", "h")(batch)
        for found, expected in zip(parts, whole, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_dropout_and_normalization_are_at_rest() -> None:
    text = """agraph (float[N, 6] x) => (float[N, 3] y) {
        h = Gemm <transB = 1> (x, w1, b1)
        r = Constant <value_float = 0.9> ()
        d = Dropout (h, r)
        y = Gemm <transB = 1> (d, w2, b2)
    }"""
    proto, batch = model(text, MLP_SHAPES), batches(1)[0]
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": batch["x"]})[0]
    (found,) = teacher(proto, "y")(batch)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
