"""Gradients of pooling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.element_types import assert_same_types
from tests.training.evaluate64 import evaluate
from tests.training.pools import against_torch, pooling, torch_max

GEOMETRIES = {
    "2x2": ((2, 2, 4, 6), [2, 2], {"strides": [2, 2]}),
    "2x2 rest": ((1, 2, 5, 7), [2, 2], {"strides": [2, 2]}),
    "2x2 ceil": ((1, 2, 5, 4), [2, 2], {"strides": [2, 2], "ceil_mode": 1}),
    "1-d": ((2, 1, 7), [3], {"strides": [3]}),
    "1-d far apart": ((1, 2, 8), [2], {"strides": [3]}),
    "1-d dense": ((2, 2, 5), [3], {}),
    "overlap": ((1, 2, 7, 6), [3, 3], {"strides": [2, 2]}),
    "overlap pads": ((1, 2, 6, 5), [3, 3], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "overlap ceil": (
        (1, 1, 7, 8),
        [3, 3],
        {"strides": [2, 3], "pads": [1, 0, 1, 0], "ceil_mode": 1},
    ),
    "dense pads": ((1, 2, 4, 4), [3, 3], {"pads": [1, 1, 1, 1]}),
    "apart pads": ((1, 1, 5, 4), [2, 2], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "3-d": ((1, 1, 4, 3, 4), [2, 2, 2], {"strides": [2, 1, 2]}),
    "3-d apart": ((1, 1, 4, 2, 3), [2, 2, 1], {"strides": [2, 2, 1]}),
}
UNEVEN = {
    "uneven": ((1, 2, 4, 5), [2, 3], {"pads": [1, 0, 0, 2]}),
    "uneven stride": ((1, 1, 6, 5), [3, 3], {"strides": [2, 3], "pads": [0, 2, 2, 1]}),
    "uneven ceil": (
        (1, 1, 7, 7),
        [3, 3],
        {"strides": [2, 3], "pads": [1, 0, 0, 2], "ceil_mode": 1},
    ),
    "dilated": ((1, 1, 7, 6), [3, 2], {"dilations": [2, 3], "pads": [1, 1, 0, 0]}),
    "dilated stride": ((2, 1, 9), [3], {"dilations": [2], "strides": [2], "pads": [2, 1]}),
    "dilated apart": ((1, 2, 8), [2], {"dilations": [2], "strides": [2]}),
    "dilated ceil": ((1, 1, 10), [2], {"dilations": [3], "strides": [3], "ceil_mode": 1}),
}
AUTO = {
    "VALID": ((1, 1, 5, 6), [3, 2], {"auto_pad": "VALID", "strides": [2, 2]}),
    "VALID ceil": ((1, 1, 6), [3], {"auto_pad": "VALID", "strides": [2], "ceil_mode": 1}),
    "SAME_UPPER": ((1, 1, 4, 5), [2, 3], {"auto_pad": "SAME_UPPER", "pads": [0, 1, 1, 1]}),
    "SAME_LOWER": ((1, 1, 4, 5), [2, 3], {"auto_pad": "SAME_LOWER", "pads": [1, 1, 0, 1]}),
    "SAME_UPPER stride": (
        (1, 2, 6, 5),
        [3, 4],
        {"auto_pad": "SAME_UPPER", "strides": [2, 2], "pads": [0, 1, 1, 2]},
    ),
    "SAME_LOWER stride": (
        (1, 2, 6, 5),
        [3, 4],
        {"auto_pad": "SAME_LOWER", "strides": [2, 2], "pads": [1, 2, 0, 1]},
    ),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pool(op, name):
    shape, kernel, given = GEOMETRIES[name]
    against_torch(op, shape, kernel, **given).check()


@pytest.mark.parametrize("name", GEOMETRIES)
def test_average_with_padding_counted(name):
    shape, kernel, given = GEOMETRIES[name]
    against_torch("AveragePool", shape, kernel, count_include_pad=1, **given).check()


@pytest.mark.parametrize("name", [*UNEVEN, *AUTO])
@pytest.mark.parametrize(
    ("op", "more"),
    [("MaxPool", {}), ("AveragePool", {}), ("AveragePool", {"count_include_pad": 1})],
    ids=("max", "average", "average of all"),
)
def test_uneven_pool(op, more, name):
    shape, kernel, given = {**UNEVEN, **AUTO}[name]
    pooling(op, shape, kernel, **given, **more).check()


@pytest.mark.parametrize("auto", ["VALID", "SAME_UPPER"])
def test_pads_beside_automatic_ones(auto):
    """onnxruntime ignores them."""
    check = pooling("AveragePool", (1, 2, 6), [3], auto_pad=auto, strides=[3], pads=[0, 0])
    check.nodes[0].attribute.append(helper.make_attribute("pads", [1, 0]))
    check.check()


@pytest.mark.parametrize("name", [*GEOMETRIES, "uneven stride", "dilated", "SAME_UPPER stride"])
def test_lp_pool(name):
    shape, kernel, given = {**GEOMETRIES, **UNEVEN, **AUTO}[name]
    pooling("LpPool", shape, kernel, **given).check()


@pytest.mark.parametrize("power", [1, 3])
def test_lp_pool_of_another_power(power):
    pooling("LpPool", (1, 2, 5, 4), [2, 3], strides=[1, 2], p=power).check()


@st.composite
def drawn_windows(draw):
    rank = draw(st.sampled_from((1, 1, 2, 2, 3)))
    most = {1: 5, 2: 4, 3: 2}[rank]

    def each(low, high):
        return [draw(st.integers(low, high)) for _ in range(rank)]

    kernel, strides, dilations = each(1, most), each(1, 3), each(1, 2)
    pads = [draw(st.integers(0, min(2, width - 1))) for width in kernel * 2]
    sizes = []
    for axis, width in enumerate(kernel):
        reach = (width - 1) * dilations[axis] + 1
        sizes.append(draw(st.integers(reach, reach + (3 if rank < 3 else 1))))
    attributes = {"strides": strides, "dilations": dilations, "pads": pads}
    return sizes, kernel, {**attributes, "ceil_mode": draw(st.integers(0, 1))}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    drawn_windows(),
    st.sampled_from([("MaxPool", {}), ("LpPool", {}), ("LpPool", {"p": 3})])
    | st.sampled_from([("AveragePool", {"count_include_pad": flag}) for flag in (0, 1)]),
)
def test_any_pool(window, kind):
    sizes, kernel, given = window
    op, more = kind
    check = pooling(op, (1, 1, *sizes), kernel, **given, **more, modes=("static", "symbolic"))
    if op == "MaxPool" and not given["ceil_mode"]:
        check.torch = torch_max(kernel, given)
    check.check()


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("strides", [[2, 2], [1, 1]])
def test_max_pool_whose_indices_are_used(order, strides):
    given = {"strides": strides, "storage_order": order}
    check = pooling("MaxPool", (2, 2, 4, 3), [2, 2], **given)
    check.nodes[0].output.append("places")
    check.check()


@pytest.mark.parametrize("name", ["overlap ceil", "dilated stride", "SAME_LOWER stride"])
def test_max_pool_with_column_major_indices(name):
    shape, kernel, given = {**GEOMETRIES, **UNEVEN, **AUTO}[name]
    pooling("MaxPool", shape, kernel, storage_order=1, **given).check()


def test_max_pool_in_double_precision():
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2])
    infos = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, (1, 1, 5))]
    model = helper.make_model(
        helper.make_graph([node], "g", infos, []),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=10,
    )
    found = pull_back(GraphBuilder(model), {"y": "y"}, ["x"])["x"]
    model.graph.output.append(helper.make_tensor_value_info(found, TensorProto.DOUBLE, None))
    x = np.array([1, 3, 2, 0, 5], np.float64)
    assert evaluate(model, {"x": x[None, None]})[found].tolist() == [[[0, 6, 2, 0, 5]]]


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize(
    "name", ["2x2", "2x2 rest", "1-d dense", "overlap pads", "overlap ceil", "dilated"]
)
def test_types_agree(op, name):
    shape, kernel, given = {**GEOMETRIES, **UNEVEN}[name]
    more = {"p": 3} if op == "LpPool" else {}
    assert_same_types(pooling(op, shape, kernel, **given, **more).model("batch"), ["x0"])


def test_max_pool_that_only_gives_indices():
    node = helper.make_node("MaxPool", ["x"], ["", "places"], kernel_shape=[2])
    used = helper.make_node("Cast", ["places"], ["y"], to=1)
    infos = [helper.make_tensor_value_info("x", 1, (1, 1, 4))]
    graph = helper.make_graph([node, used], "g", infos, [])
    builder = GraphBuilder(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    assert pull_back(builder, {"y": "y"}, ["x"]) == {}


@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((1, 1, 4, 4), [2, 2], "Resize"),
        ((1, 1, 4, 5), [2, 2], "MaxUnpool"),
        ((1, 1, 4, 4), [1, 2], "ScatterElements"),
    ],
)
def test_form_of_max_pool(shape, strides, expected):
    found = forms(pooling("MaxPool", shape, [2, 2], strides=strides))
    assert found & {"Resize", "MaxUnpool", "ScatterElements"} == {expected}
    assert ("MaxPool" in found) == (expected == "Resize")  # others get the places from the node


def test_form_of_max_pool_whose_places_are_there():
    check = pooling("MaxPool", (1, 1, 4, 4), [2, 2], strides=[2, 2])
    check.nodes[0].output.append("places")
    assert "MaxUnpool" in forms(check)


def test_first_of_equal_maxima():
    check = pooling("MaxPool", (1, 1, 4, 6), [2, 2], strides=[2, 2])
    model = check.model("batch")
    found = pull_back(GraphBuilder(model), {"y0": "y0"}, ["x0"])["x0"]
    model.graph.output.append(helper.make_tensor_value_info(found, 1, None))
    x = [[7, 7, 2, 3, 0, 1], [7, 7, 3, 1, 4, 4], [-1, 5, 1, 0, 6, 0], [5, 5, 0, 1, 6, 1]]
    maxima = [[7, 0, 0, 3, 0, 0], [0, 0, 0, 0, 4, 0], [0, 5, 1, 0, 6, 0], [0, 0, 0, 0, 0, 0]]
    assert evaluate(model, {"x0": np.array([[x]], np.float32)})[found].tolist() == [[maxima]]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"strides": [2, 2]}, "Resize"),
        ({"pads": [1, 0, 0, 1]}, "AveragePool"),
        ({"strides": [1, 2]}, "ConvTranspose"),
        ({"strides": [2, 2], "pads": [1, 0, 0, 0]}, "ConvTranspose"),
        ({"dilations": [2, 1]}, "ConvTranspose"),
    ],
)
def test_form_of_average_pool(given, expected):
    found = forms(pooling("AveragePool", (1, 1, 4, 4), [2, 2], **given))
    assert found & {"Resize", "AveragePool", "ConvTranspose", "Slice"} == {expected}


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        ({}, False),
        ({"pads": [1, 0, 0, 0], "count_include_pad": 1}, False),
        ({"pads": [1, 0, 0, 0]}, True),
        ({"ceil_mode": 1, "count_include_pad": 1}, True),
    ],
)
def test_elements_are_counted_only_where_windows_differ(given, counted):
    assert ("Range" in forms(pooling("AveragePool", (1, 1, 4, 4), [2, 2], **given))) == counted


@pytest.mark.parametrize(("size", "padded"), [(4, False), (5, True)])
def test_what_no_window_covers_is_filled_up(size, padded):
    found = forms(pooling("AveragePool", (1, 1, 4, size), [2, 2], strides=[2, 2]))
    assert ("Pad" in found) == padded


@pytest.mark.parametrize(("power", "expected"), [(1, False), (2, False), (3, True)])
def test_powers_are_computed_only_where_needed(power, expected):
    assert ("Pow" in forms(pooling("LpPool", (1, 1, 4), [2], p=power))) == expected


def test_known_sizes_are_not_measured():
    """onnxruntime then counts what lies under the windows once, when it loads the model."""
    check = pooling("AveragePool", (1, 1, 5, 4), [2, 2], strides=[2, 2], pads=[1, 0, 0, 0])
    found = forms(check)
    assert "Range" in found
    assert "Shape" not in found


def test_form_of_average_pool_where_only_the_output_is_known():
    check = pooling("AveragePool", (1, 1, 4, 4), [2, 2], strides=[2, 2])
    model = check.model("symbolic")
    shape = [None, None, 2, 2]
    model.graph.value_info.append(helper.make_tensor_value_info("y0", TensorProto.FLOAT, shape))
    found = forms(model)
    assert "ConvTranspose" in found
    assert "Resize" not in found


def forms(check):
    model = check if isinstance(check, ModelProto) else check.model("batch")
    builder = GraphBuilder(model)
    before = len(builder.graph.node)
    pull_back(builder, {"y0": "y0"}, ["x0"])
    return {node.op_type for node in builder.graph.node[before:]}


def test_same_with_dilations():
    check = pooling(
        "AveragePool", (1, 1, 7), [3], auto_pad="SAME_UPPER", dilations=[2], pads=[2, 2]
    )
    with pytest.raises(ModelError, match="AveragePool 'node' has auto_pad and dilations"):
        check.gradients("static")
