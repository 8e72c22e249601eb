from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import DataError
from onnxprune.evaluation import AccuracyMeter
from onnxprune.model.sources import read


def argmax_model(batch: int | str = "N", *, classes: bool = False) -> ModelProto:
    """Scores are the inputs themselves; with `classes`, the output is the class."""
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])
    if classes:
        node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)
        output = helper.make_tensor_value_info("y", TensorProto.INT64, [batch])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5])]
    graph = helper.make_graph([node], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def val(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    scores = random.standard_normal((130, 5)).astype(np.float32)
    labels = scores.argmax(1)
    labels[:13] = (labels[:13] + 1) % 5
    np.savez(tmp_path / "val.npz", x=scores, labels=labels)
    return tmp_path / "val.npz"


@pytest.mark.parametrize(
    "model", [argmax_model(), argmax_model(1), argmax_model(7), argmax_model(classes=True)]
)
def test_top1(val: Path, model: ModelProto) -> None:
    meter = AccuracyMeter(val)
    assert meter(read(model)) == 117 / 130
    assert meter.samples == 130


def test_models_over_two_gigabytes_go_through_a_file(
    val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.evaluation.INLINE_LIMIT", 0)
    assert AccuracyMeter(val)(read(argmax_model())) == 117 / 130


def test_outputs_that_are_no_class_scores(val: Path) -> None:
    model = argmax_model()
    model.graph.node[0].op_type = "ReduceSum"
    with pytest.raises(DataError, match="1 rows for 64 samples"):
        AccuracyMeter(val)(read(model))
