"""Gradients of transposed convolutions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.convolutions import EVERY, conv_transpose, geometries

TRANSPOSED = {
    "1-d": lambda: conv_transpose((2, 2, 4), (2, 3, 3), bias=True),
    "kernel 1": lambda: conv_transpose((2, 3, 4), (3, 2, 1), bias=True),
    "2-d stride": lambda: conv_transpose((1, 2, 3, 2), (2, 2, 2, 2), strides=[2, 2], bias=True),
    "pads": lambda: conv_transpose(
        (1, 2, 3, 3), (2, 2, 3, 4), strides=[2, 1], pads=[1, 0, 0, 2], output_padding=[1, 0]
    ),
    "dilations": lambda: conv_transpose((1, 2, 3, 2), (2, 1, 2, 3), dilations=[2, 1]),
    "groups": lambda: conv_transpose(
        (1, 4, 3, 2), (4, 2, 2, 2), group=2, strides=[1, 2], bias=True, pads=[0, 1, 0, 0]
    ),
    "depthwise": lambda: conv_transpose((2, 3, 3), (3, 1, 3), group=3, strides=[2]),
    "3-d": lambda: conv_transpose((1, 2, 2, 2, 2), (2, 2, 2, 1, 2), strides=[2, 1, 1]),
    "many taps": lambda: conv_transpose(
        (1, 2, 2, 2), (2, 1, 9, 8), strides=[2, 2], pads=[1, 1, 2, 2], output_padding=[1, 0]
    ),
    "by tap": lambda: conv_transpose((2, 2, 2, 2), (2, 6, 2, 2), strides=[1, 2]),
    "unknown weight": lambda: conv_transpose(
        (1, 2, 3, 2), (2, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 1], bias=True, modes=EVERY
    ),
    "VALID": lambda: conv_transpose((1, 2, 3), (2, 2, 2), auto_pad="VALID", strides=[2]),
    "SAME_UPPER": lambda: conv_transpose(
        (1, 2, 3, 2), (2, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 1], pads=[0, 1, 1, 1]
    ),
    "SAME_LOWER": lambda: conv_transpose(
        (1, 2, 3, 2), (2, 2, 3, 4), auto_pad="SAME_LOWER", strides=[2, 1], pads=[1, 2, 0, 1]
    ),
    "SAME small kernel": lambda: conv_transpose(
        (1, 1, 4), (1, 2, 1), auto_pad="SAME_LOWER", strides=[3], pads=[0, 0]
    ),
    "output_shape": lambda: conv_transpose(
        (1, 2, 3, 3), (2, 2, 3, 3), strides=[2, 2], output_shape=[6, 4], pads=[1, 2, 0, 1]
    ),
    "output_shape upper": lambda: conv_transpose(
        (1, 2, 3, 3),
        (2, 2, 3, 3),
        strides=[2, 2],
        output_shape=[6, 5],
        auto_pad="SAME_UPPER",
        pads=[0, 1, 1, 1],
    ),
    "output_shape more": lambda: conv_transpose(
        (1, 2, 3), (2, 2, 3), strides=[2], output_shape=[8], pads=[0, 0], more=[1]
    ),
    "output_shape all": lambda: conv_transpose(
        (1, 1, 4), (1, 1, 4), strides=[2], output_shape=[8], output_padding=[1], pads=[2, 1]
    ),
    "output_shape dilations": lambda: conv_transpose(
        (2, 1, 4), (1, 1, 2), strides=[2], dilations=[3], output_shape=[7], pads=[2, 1]
    ),
}


@pytest.mark.parametrize("make", TRANSPOSED.values(), ids=TRANSPOSED)
def test_conv_transpose(make):
    make().check()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(geometries(), st.data())
def test_any_conv_transpose(geometry, data):
    kernel, attributes, inner, outer = geometry
    group, rank = attributes["group"], len(kernel)
    steps = attributes["strides"]
    attributes["output_padding"] = [data.draw(st.integers(0, step - 1)) for step in steps]
    sizes = []
    for axis, width in enumerate(kernel):
        pads = attributes["pads"][axis] + attributes["pads"][axis + rank]
        reach = (width - 1) * attributes["dilations"][axis] + 1
        least = max(math.ceil((pads + 1 - reach) / steps[axis]) + 1, 1)
        sizes.append(data.draw(st.integers(least, least + (2 if rank < 3 else 1))))
    weight = (inner * group, outer, *kernel)
    conv_transpose((2, inner * group, *sizes), weight, bias=True, **attributes).check()


def test_same_with_output_padding():
    check = conv_transpose(
        (1, 2, 3),
        (2, 2, 3),
        strides=[2],
        auto_pad="SAME_UPPER",
        output_padding=[1],
        pads=[1, 1],
    )
    with pytest.raises(ModelError, match="ConvTranspose 'node' has auto_pad and output_padding"):
        check.gradients("static")


def test_groups_of_unknown_weight():
    check = conv_transpose((1, 4, 3), (4, 2, 2), group=2, kernel_shape=[2])
    with pytest.raises(ModelError, match=r"ConvTranspose 'node' has groups.*fixed shape"):
        check.gradients("symbolic")
    assert check.gradients("symbolic", ["x0"])["x0"].shape == (1, 4, 3)


@pytest.mark.parametrize("given", [{"pads": [1, 1]}, {"output_shape": [6]}])
def test_input_gradient_of_known_sizes(given):
    """Nothing is padded or measured at run time."""
    check = conv_transpose((1, 2, 4), (2, 2, 3), **given)
    builder = GraphBuilder(check.model("static"))
    pull_back(builder, {"y0": "y0"}, ["x0"])
    assert [node.op_type for node in builder.graph.node] == ["ConvTranspose", "Conv"]
