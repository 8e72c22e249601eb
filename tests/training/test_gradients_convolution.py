"""Gradients of convolutions."""

from __future__ import annotations

import math

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.convolutions import EVERY, conv, geometries
from tests.training.element_types import assert_same_types

CONVOLUTIONS = {
    "1-d": lambda: conv((2, 2, 6), (3, 2, 3), bias=True),
    "1-d kernel 1": lambda: conv((2, 3, 4), (2, 3, 1), bias=True),
    "1-d stride, rest": lambda: conv((2, 2, 8), (3, 2, 3), strides=[3], pads=[1, 0]),
    "2-d": lambda: conv((2, 2, 4, 5), (3, 2, 3, 3), bias=True, pads=[1, 1, 1, 1]),
    "2-d pads": lambda: conv((1, 2, 4, 3), (2, 2, 3, 2), pads=[2, 0, 1, 2], dilations=[1, 2]),
    "2-d stride": lambda: conv((2, 2, 5, 6), (2, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    "2-d stride 3": lambda: conv((1, 2, 8, 7), (2, 2, 2, 3), strides=[3, 2], pads=[0, 1, 2, 1]),
    "pointwise": lambda: conv((2, 3, 2, 3), (4, 3, 1, 1), bias=True),
    "pointwise stride": lambda: conv((2, 3, 4, 3), (2, 3, 1, 1), strides=[2, 2]),
    "pointwise pads": lambda: conv((1, 2, 2, 2), (2, 2, 1, 1), pads=[1, 0, 0, 1]),
    "3-d": lambda: conv((1, 2, 3, 2, 3), (2, 2, 2, 1, 2), pads=[1, 0, 0, 0, 1, 1]),
    "3-d stride": lambda: conv((1, 1, 4, 3, 4), (2, 1, 2, 2, 3), strides=[2, 1, 2]),
    "groups": lambda: conv((2, 4, 3, 4), (6, 2, 2, 2), group=2, bias=True, pads=[0, 1, 0, 0]),
    "depthwise": lambda: conv((2, 3, 4, 3), (3, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    "depthwise stride": lambda: conv((1, 2, 5, 4), (4, 1, 3, 2), group=2, strides=[2, 3]),
    "groups 1-d": lambda: conv((2, 4, 5), (2, 2, 3), group=2, dilations=[2], pads=[1, 1]),
    "groups pointwise": lambda: conv((2, 4, 3), (4, 2, 1), group=2),
    # the products of single samples (many positions), and of the whole batch
    "by sample": lambda: conv((2, 5, 12), (1, 5, 2), bias=True),
    "by tap": lambda: conv(
        (2, 6, 2, 3), (2, 6, 2, 2), kernel_shape=[2, 2], pads=[1, 0, 0, 0], modes=EVERY
    ),
    "by tap stride": lambda: conv((2, 5, 4, 3), (1, 5, 3, 2), strides=[2, 2], pads=[1, 1, 1, 0]),
    # more kernel elements than anything but the convolution is for
    "many taps": lambda: conv((2, 1, 9, 7), (2, 1, 9, 8), pads=[2, 0, 1, 1]),
    "many taps stride": lambda: conv((1, 1, 12, 9), (2, 1, 9, 8), strides=[3, 2]),
    "many taps stride on one axis": lambda: conv((1, 1, 12, 9), (2, 1, 9, 8), strides=[2, 1]),
    "many taps dilated": lambda: conv((1, 1, 70), (1, 1, 65), dilations=[1], strides=[2]),
    "many taps steps": lambda: conv(
        (1, 2, 19, 8), (1, 2, 9, 8), strides=[3, 1], dilations=[2, 1], pads=[1, 1, 0, 0]
    ),
    # the weight's shape is unknown too
    "unknown weight": lambda: conv(
        (2, 2, 4, 3), (3, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 1], bias=True, modes=EVERY
    ),
    "unknown many": lambda: conv((1, 1, 68), (2, 1, 65), kernel_shape=[65], modes=EVERY),
    "unknown pointwise": lambda: conv((2, 2, 3), (3, 2, 1), kernel_shape=[1], modes=EVERY),
    "VALID": lambda: conv((1, 2, 5, 4), (2, 2, 3, 2), auto_pad="VALID", strides=[2, 1]),
    "SAME_UPPER": lambda: conv(
        (1, 2, 4, 5), (2, 2, 2, 3), auto_pad="SAME_UPPER", pads=[0, 1, 1, 1]
    ),
    "SAME_LOWER": lambda: conv(
        (1, 2, 4, 5), (2, 2, 2, 3), auto_pad="SAME_LOWER", pads=[1, 1, 0, 1]
    ),
    "SAME_UPPER stride": lambda: conv(
        (1, 2, 6, 5), (2, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2], pads=[0, 1, 1, 1]
    ),
    "SAME_LOWER stride": lambda: conv(
        (1, 2, 6, 5), (2, 2, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2], pads=[1, 1, 0, 1]
    ),
    "SAME_UPPER mixed": lambda: conv(
        (2, 5, 4, 7), (1, 5, 2, 4), auto_pad="SAME_UPPER", strides=[1, 3], pads=[0, 1, 1, 2]
    ),
    "SAME_UPPER small": lambda: conv(
        (1, 2, 7), (2, 2, 1), auto_pad="SAME_UPPER", strides=[3], pads=[0, 0]
    ),
    "SAME_LOWER many": lambda: conv(
        (1, 1, 6, 5), (1, 1, 9, 8), auto_pad="SAME_LOWER", strides=[2, 1], pads=[4, 4, 3, 3]
    ),
    "SAME groups": lambda: conv(
        (1, 2, 4, 4),
        (2, 1, 3, 3),
        auto_pad="SAME_UPPER",
        strides=[2, 2],
        group=2,
        pads=[0, 0, 1, 1],
    ),
}


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv(make):
    make().check()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(geometries(), st.data())
def test_any_conv(geometry, data):
    kernel, attributes, inner, outer = geometry
    group, rank = attributes["group"], len(kernel)
    sizes = []
    for axis, width in enumerate(kernel):
        pads = attributes["pads"][axis] + attributes["pads"][axis + rank]
        reach = (width - 1) * attributes["dilations"][axis] + 1
        least = max(reach - pads, 1)
        sizes.append(data.draw(st.integers(least, least + (4 if rank < 3 else 1))))
    batch = 2 if math.prod(sizes) * inner * group < 25 else 1
    weight = (outer * group, inner, *kernel)
    conv((batch, inner * group, *sizes), weight, bias=True, **attributes).check()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(("SAME_UPPER", "SAME_LOWER")),
    st.lists(
        st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=2
    ),
)
def test_any_same_padding(auto, axes):
    sizes, kernel, strides = (list(values) for values in zip(*axes, strict=True))
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in axes]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    pads = less + more if auto == "SAME_UPPER" else more + less
    conv((1, 2, *sizes), (2, 2, *kernel), auto_pad=auto, strides=strides, pads=pads).check()


@pytest.mark.parametrize(
    "name", ["2-d", "2-d stride", "pointwise", "depthwise", "by tap", "many taps", "SAME_UPPER"]
)
def test_types_agree(name):
    model = CONVOLUTIONS[name]().model("weights")
    assert_same_types(model, [info.name for info in model.graph.input])


# ---- which form --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "w", "group", "expected"),
    [
        ((8, 16, 32, 32), (16, 16, 3, 3), 1, {"Conv": 1, "MatMul": 1, "ReduceSum": 1}),
        ((8, 64, 8, 8), (64, 64, 3, 3), 1, {"Conv": 1, "Gemm": 1}),
        ((8, 1, 12, 12), (16, 1, 9, 9), 1, {"Conv": 1}),
        ((8, 16, 8, 8), (16, 1, 3, 3), 16, {"Conv": 1, "MatMul": 1, "ReduceSum": 1}),
        ((8, 16, 8, 8), (16, 1, 9, 9), 16, {"MatMul": 81, "Slice": 81, "ReduceSum": 1, "Pad": 1}),
        ((8, 64, 7, 7), (128, 64, 1, 1), 1, {"Gemm": 1}),
        ((8, 16, 32, 32), (16, 16, 1, 1), 1, {"MatMul": 1, "ReduceSum": 1}),
        ((8, 16, "H", "W"), (16, 16, 3, 3), 1, {"Gemm": 9, "Slice": 9, "Pad": 1}),
        ((8, 16, "H", "W"), ("O", 16, 1, 1), 1, {"Gemm": 1}),
    ],
)
def test_form_of_the_weight_gradient(x, w, group, expected):
    pads = [w[-1] // 2] * 4
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="node", pads=pads, group=group)
    infos = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", x), ("w", w))]
    graph = helper.make_graph([node], "g", infos, [])
    builder = GraphBuilder(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    pull_back(builder, {"y": "y"}, ["w"])
    made = [node.op_type for node in builder.graph.node[1:]]
    kinds = ("MatMul", "Gemm", "Conv", "Slice", "ReduceSum", "Pad")
    work = {kind: made.count(kind) for kind in kinds}
    assert {kind: count for kind, count in work.items() if count} == expected


TURNED = ["Slice", "Conv"]


@pytest.mark.parametrize(
    ("x", "w", "expected", "given"),
    [
        (("H", "W"), (4, 4, 1, 1), ["MatMul"], {}),
        (("W",), (4, 4, 1), ["MatMul"], {}),
        (("H", "W"), (4, 4, 3, 3), TURNED, {"pads": [1] * 4}),
        (("H", "W"), (8, 4, 3, 3), TURNED, {"pads": [1] * 4}),
        # more channels to read than to write
        (("H", "W"), (9, 4, 3, 3), ["ConvTranspose"], {"pads": [1] * 4}),
        (("H", "W"), (12, 4, 3, 3), TURNED, {"pads": [1] * 4, "group": 3}),
        (("H", "W"), (13 * 3, 4, 3, 3), ["ConvTranspose"], {"pads": [1] * 4, "group": 3}),
        # more positions to read for than to write from
        ((6, 6), (4, 4, 3, 3), ["ConvTranspose"], {}),
        ((7, 7), (4, 4, 3, 3), TURNED, {}),
        # a large weight
        ((8, 8), (120, 120, 3, 3), TURNED, {"pads": [1] * 4}),
        (("H", "W"), (256, 128, 2, 2), TURNED, {}),
        ((8, 8), (121, 121, 3, 3), ["ConvTranspose"], {"pads": [1] * 4}),
        # impossible
        ((8, 8), (4, 4, 3, 3), ["ConvTranspose"], {"pads": [1] * 4, "strides": [2, 1]}),
        ((8, 8), (4, 4, 3, 3), ["ConvTranspose"], {"pads": [1, 3, 1, 1]}),
        ((8, 8), (4, 4, 3, 3), TURNED, {"pads": [1, 2, 0, 1]}),
        # padding that follows from known sizes
        ((6, 5), (2, 2, 3, 3), ["ConvTranspose"], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        (("H", "W"), (2, 2, 3, 3), TURNED, {"auto_pad": "SAME_LOWER"}),
    ],
)
def test_form_of_the_input_gradient(x, w, expected, given):
    """Nothing else is padded, cut or measured at run time."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **given)
    shapes = (("x", ["N", w[1] * given.get("group", 1), *x]), ("w", w))
    infos = [helper.make_tensor_value_info(n, 1, s) for n, s in shapes]
    graph = helper.make_graph([node], "g", infos, [])
    builder = GraphBuilder(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    pull_back(builder, {"y": "y"}, ["x"])
    shapely = ("Reshape", "Shape", "Flatten", "Transpose")
    made = [node.op_type for node in builder.graph.node if node.op_type not in shapely]
    assert made == ["Conv", *expected]


def test_form_of_the_input_gradient_where_only_the_output_is_known():
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 23]>
        g (float[N,4,H,W] x, float[4,4,3,3] w) => (float[N,4,6,6] y) { y = Conv(x, w) }"""
    )
    builder = GraphBuilder(model)
    assert builder.shape("y")[2:] == (6, 6)
    pull_back(builder, {"y": "y"}, ["x"])
    assert [node.op_type for node in builder.graph.node].count("Conv") == 2


# ---- what is refused ---------------------------------------------------------------------------


def test_unknown_kernel():
    check = conv((1, 2, 4), (2, 2, 3))
    with pytest.raises(ModelError, match="the kernel of Conv 'node' has no known size"):
        check.gradients("symbolic")


def test_groups_of_unknown_weight():
    check = conv((1, 2, 4), (2, 1, 3), group=2, kernel_shape=[3])
    with pytest.raises(ModelError, match=r"Conv 'node' has groups.*fixed shape"):
        check.gradients("symbolic")
    found = check.gradients("symbolic", ["x0"])
    assert found["x0"].shape == (1, 2, 4)


@pytest.mark.parametrize("w", [("O", 1, 3), (2, "I", 3)])
def test_groups_of_partly_unknown_weight(w):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="node", group=2)
    infos = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", (1, 2, 4)), ("w", w))]
    graph = helper.make_graph([node], "g", infos, [])
    builder = GraphBuilder(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    with pytest.raises(ModelError, match=r"Conv 'node' has groups.*fixed shape"):
        pull_back(builder, {"y": "y"}, ["w"])


def test_same_with_dilations():
    check = conv((1, 2, 6), (2, 2, 3), auto_pad="SAME_UPPER", dilations=[2], pads=[2, 2])
    with pytest.raises(ModelError, match="Conv 'node' has auto_pad and dilations"):
        check.gradients("static")
