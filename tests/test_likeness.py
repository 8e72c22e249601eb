"""Whether two models compute the same up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.likeness import TOLERANCES, difference, outputs_differ
from onnxprune.model.sources import read
from onnxprune.runtime import CannotRun
from tests.builders import mlp


def changed(by: float) -> ModelProto:
    """A network whose last bias differs."""
    model = mlp((6, 8, 3))
    tensor = model.graph.initializer[-1]
    array = numpy_helper.to_array(tensor).copy()
    array[0] += by
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def test_rounding_is_told_from_other_differences() -> None:
    assert outputs_differ(read(changed(0)), read(changed(0))) == 0
    found = outputs_differ(read(changed(0)), read(changed(1e-5)))
    assert found is not None and 0 < found < TOLERANCES[4]
    assert outputs_differ(read(changed(0)), read(changed(1e-2))) is None


def test_what_does_not_run_cannot_be_compared() -> None:
    strange = mlp((6, 8, 3))
    strange.graph.node[0].domain = "own"
    strange.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(CannotRun):
        outputs_differ(read(mlp((6, 8, 3))), read(strange))


def test_whole_numbers_have_to_be_equal() -> None:
    def picking(by: int) -> ModelProto:
        model = mlp((6, 8, 3))
        node = helper.make_node("ArgMax", ["y"], ["first"], axis=1)
        add = helper.make_node("Add", ["first", "by"], ["z"])
        model.graph.node.extend([node, add])
        model.graph.initializer.append(numpy_helper.from_array(np.int64(by), "by"))
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.INT64, None))
        return model

    assert outputs_differ(read(picking(0)), read(picking(0))) == 0
    assert outputs_differ(read(picking(0)), read(picking(1))) is None


ONES = np.ones(3, np.float32)
CASES = {
    "equal": (ONES, ONES, 0.0),
    "relative to the largest": (10 * ONES, np.array([10, 10, 11], np.float32), 0.1),
    "zeros": (0 * ONES, 0 * ONES, 0.0),
    "zeros and something": (0 * ONES, ONES, np.inf),
    "other shape": (ONES, ONES[:2], np.inf),
    "other type": (ONES, ONES.astype(np.float64), np.inf),
    "no array": (ONES, [1.0], np.inf),
    "not a number in both": (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), 0.0),
    "not a number in one": (np.array([np.nan, 1.0]), np.array([0.0, 1.0]), np.inf),
    "infinity": (np.array([np.inf, 1.0]), np.array([np.inf, 1.0]), 0.0),
    "other infinity": (np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]), np.inf),
    "nothing": (ONES[:0], ONES[:0], 0.0),
    "whole numbers": (np.arange(3), np.arange(3), 0.0),
    "other whole numbers": (np.arange(3), np.arange(3) + 1, np.inf),
    "text": (np.array(["a"], object), np.array(["a"], object), 0.0),
    "maps": ([{"a": 0.5}], [{"a": 0.5000001}], 0.0),
    "other maps": ([{"a": 0.5}], [{"a": 0.6}], np.inf),
    "other keys": ([{"a": 0.5}], [{"b": 0.5}], np.inf),
    "fewer maps": ([{"a": 0.5}], [], np.inf),
}


@pytest.mark.parametrize("name", CASES)
def test_differences(name: str) -> None:
    want, have, expected = CASES[name]
    assert difference(want, have) == pytest.approx(expected)
