from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.runtime import CannotRun, cause, open_session, random_feeds, run
from tests.builders import mlp


def session_with(**inputs: tuple[str, list[Any]]) -> Any:
    values = [SimpleNamespace(name=n, type=t, shape=s) for n, (t, s) in inputs.items()]
    return SimpleNamespace(get_inputs=lambda: values)


def shapes(session: Any) -> list[dict[str, tuple[int, ...]]]:
    return [{name: x.shape for name, x in feeds.items()} for feeds in random_feeds(session)]


def test_fixed_shapes_are_tried_once() -> None:
    assert shapes(session_with(x=("tensor(float)", [2, 3]))) == [{"x": (2, 3)}]


def test_open_axes_of_one_name_get_one_size() -> None:
    session = session_with(
        audio=("tensor(float)", ["batch", "samples"]),
        state=("tensor(float)", [2, "batch", 64]),
        mask=("tensor(bool)", [None, "samples", None]),
    )
    for feeds in shapes(session):
        assert feeds["audio"][0] == feeds["state"][1] == feeds["mask"][0] == 1
        assert feeds["audio"][1] == feeds["mask"][1] == feeds["mask"][2]
    assert {feeds["audio"][1] for feeds in shapes(session)} >= {1, 512, 4096}


def test_inputs_are_the_same_every_time() -> None:
    session = session_with(x=("tensor(float16)", ["N", 5]), i=("tensor(int64)", []))
    for first, second in zip(random_feeds(session), random_feeds(session), strict=True):
        assert first["x"].dtype == np.float16
        np.testing.assert_array_equal(first["x"], second["x"])
        assert first["i"].shape == ()


def test_inputs_that_are_no_tensors() -> None:
    with pytest.raises(CannotRun, match="input 's' is not a plain tensor"):
        next(random_feeds(session_with(s=("seq(tensor(float))", []))))


def test_a_model_that_does_not_load_or_run() -> None:
    broken = mlp()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(CannotRun, match="does not load"):
        open_session(broken.SerializeToString())
    session = open_session(mlp((3, 4)).SerializeToString())
    with pytest.raises(CannotRun, match="does not run"):
        run(session, {"x": np.zeros((1, 7), np.float32)})


def test_messages_are_one_line_and_tell_the_cause() -> None:
    nested = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running If node. "
        "Name:'If_0' Status Message: Non-zero status code returned while running LSTM node.\n"
        " Name:'' Status Message: Input initial_h must have shape {1,1,64}."
    )
    assert cause(RuntimeError(nested)) == "Input initial_h must have shape {1,1,64}."
    assert cause(RuntimeError("")) == "RuntimeError"


@pytest.mark.parametrize("light", [False, True])
def test_both_kinds_of_session_run(light: bool) -> None:
    session = open_session(mlp((3, 4)).SerializeToString(), light=light)
    (output,) = run(session, {"x": np.ones((2, 3), np.float32)})
    assert output.shape == (2, 4)


def test_text_inputs() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.STRING, [2]) for n in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17)]
    session = open_session(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    (output,) = run(session, next(random_feeds(session)))
    assert output.tolist() == ["a", "a"]
