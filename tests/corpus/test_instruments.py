"""The instruments of this folder notice what they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from tests.builders import mlp
from tests.corpus.backend import examine
from tests.corpus.cases import Case
from tests.corpus.comparing import differences
from tests.corpus.running import same, same_run
from tests.corpus.weights import counted


def changed(model: ModelProto, what: str) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    if what == "one bit":
        array = numpy_helper.to_array(copy.graph.initializer[0]).copy()
        array.view(np.uint32)[0, 0] ^= 1
        copy.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "fc0.weight"))
    elif what == "sign of a zero":
        copy.graph.initializer[1].CopyFrom(
            numpy_helper.from_array(np.full(32, -0.0, np.float32), "fc0.bias")
        )
    elif what == "tensor":
        del copy.graph.initializer[3]
    elif what == "node":
        copy.graph.node.insert(1, helper.make_node("Identity", ["h0"], ["other"]))
    elif what == "attribute":
        copy.graph.node[0].attribute[0].i = 0
    elif what == "order":
        nodes = list(copy.graph.node)[::-1]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
    elif what == "metadata":
        helper.set_model_props(copy, {"key": "value"})
    elif what == "opset":
        copy.opset_import[0].version += 1
    elif what == "value info":
        copy.graph.value_info.add(name="h0")
    elif what == "input":
        copy.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "M"
    elif what == "IR version":
        copy.ir_version += 1
    return copy


@pytest.mark.parametrize(
    "what",
    [
        *("one bit", "sign of a zero", "tensor", "node", "attribute", "order", "metadata"),
        *("opset", "value info", "input", "IR version"),
    ],
)
def test_a_difference_is_noticed(what: str) -> None:
    model = mlp()
    bias = numpy_helper.from_array(np.zeros(32, np.float32), "fc0.bias")
    model.graph.initializer[1].CopyFrom(bias)
    assert differences(model, changed(model, "nothing")) == []
    assert len(differences(model, changed(model, what))) == 1


def test_outputs_are_compared_bit_for_bit(tmp_path: Path) -> None:
    onnx.save(changed(mlp(), "sign of a zero"), tmp_path / "other.onnx")
    feeds = [{"x": np.ones((1, 24), np.float32)}]
    assert same_run(tmp_path / "other.onnx", mlp(), feeds)[0] == "different"
    assert not same(np.zeros(1, np.float32), np.array([-0.0], np.float32))
    assert not same([{"a": 1.0}], [{"a": 2.0}])
    assert same([np.array([np.nan])], [np.array([np.nan])])


def test_count_of_a_layer_by_hand() -> None:
    model = mlp((4, 2))
    weight = np.array([[0, 1, -1, 3], [0, -0.5, 2, -2]], np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "fc0.weight"))
    # Not zero: 1, -1, 3, -0.5, 2, -2; mean 5/12, mean square 19.25/6, std 1.742.
    ((array, count),) = counted(model, 1.0).values()
    assert array.tolist() == [[0, 0, 0, 3], [0, 0, 2, -2]]
    assert (count.size, count.alive, count.kept) == (8, 6, 3)


def test_a_wrong_result_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pruning.once.apply_plan", lambda model, plans: model)
    case = Case("mlp", "test", mlp(), {"x": np.ones((1, 24), np.float32)})
    texts = " ".join(examine(case, 1.0, "dense", own_check=False).problems)
    assert "fc0.weight" in texts and "outputs differ" in texts
