"""The geometry of sliding windows, and spreading values back over it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.training.builder import GraphBuilder
from onnxprune.training.gradients.windows import Window, transposed
from tests.training.convolutions import convolve
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import relative_error


def adjoint(x, weight, dy, **given):
    """The gradient of sum(dy * convolution) in numpy: its response to every unit of x."""
    units = np.eye(x.size).reshape(-1, *x.shape)
    return np.array([(convolve(unit, weight, **given) * dy).sum() for unit in units]).reshape(
        x.shape
    )


def test_ends_of_late_padding():
    late, known = (Window((3, 2), (2, 1), (1, 1), pads) for pads in ("pads", (1, 2, 3, 4)))
    assert late.begin == late.end == (0, 0)
    assert (known.begin, known.end) == ((1, 2), (3, 4))


@pytest.mark.parametrize("known", [("x", "dy"), ("x",), ("dy",), ()], ids="".join)
@pytest.mark.parametrize("late", [True, False], ids=["late pads", "pads"])
@pytest.mark.parametrize(
    ("strides", "pads", "group"),
    [([1, 1], [1, 0, 0, 2], 1), ([2, 1], [0, 2, 1, 1], 2), ([1, 3], [2, 0, 1, 0], 1)],
)
def test_transposed(strides, pads, group, late, known):
    """Also where the padding is known at run time only."""
    dilations = [1, 2]
    random = np.random.default_rng(4)
    weight = random.uniform(-1, 1, (4, 2 // group, 3, 2)).astype(np.float32)
    x = np.zeros((1, 2, 6, 7))
    given = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    dy = random.uniform(-1, 1, convolve(x, weight, **given).shape).astype(np.float32)

    infos = [
        helper.make_tensor_value_info(
            name,
            TensorProto.FLOAT,
            value.shape if name in known else [*value.shape[:2], None, None],
        )
        for name, value in (("x", x), ("dy", dy))
    ]
    infos += [
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, weight.shape),
        helper.make_tensor_value_info("pads", TensorProto.INT64, [4]),
    ]
    graph = helper.make_graph([], "g", infos, [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    window = Window((3, 2), tuple(strides), tuple(dilations), "pads" if late else tuple(pads))
    found = transposed(GraphBuilder(model), "dy", "weight", window, "x", group)
    model.graph.output.append(helper.make_tensor_value_info(found, TensorProto.FLOAT, None))
    feeds = {"x": x.astype(np.float32), "dy": dy, "weight": weight, "pads": np.array(pads)}
    result = evaluate(model, feeds)[found]
    assert result.shape == x.shape
    assert relative_error(result, adjoint(x, weight, dy, **given)) < 1e-5
