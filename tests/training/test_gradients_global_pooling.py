"""Gradients of global pooling and of unpooling, and of pooling at given points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper

from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.element_types import assert_same_types
from tests.training.gradcheck import Case, Check, Draw
from tests.training.pools import EVERY, TORCH

GLOBAL = [
    *(
        Case("GlobalAveragePool", shape, modes=EVERY, torch=lambda t, x: mean_over(x))
        for shape in ((2, 3, 4), (2, 2, 3, 4), (1, 2, 2, 3, 2))
    ),
    *(
        Case(
            "GlobalMaxPool",
            Draw(shape, distinct=True),
            reference=lambda x: x.max(tuple(range(2, x.ndim)), keepdims=True),
            torch=lambda t, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
        )
        for shape in ((2, 3, 4), (2, 2, 3, 4), (1, 2, 2, 3, 2))
    ),
    Case(
        "MaxUnpool",
        (1, 2, 2, 2),
        np.array([0, 3, 9, 14, 16, 21, 26, 31]).reshape(1, 2, 2, 2),
        kernel_shape=[2, 2],
        strides=[2, 2],
        reference=lambda x, places: unpooled(x, places, (1, 2, 4, 4)),
        torch=lambda t, x, places: t.nn.functional.max_unpool2d(
            x, t.tensor([0, 3, 9, 14, 0, 5, 10, 15]).reshape(1, 2, 2, 2), 2
        ),
    ),
    Case(
        "MaxUnpool",
        (1, 1, 3),
        np.array([[[1, 2, 6]]]),
        np.array([1, 1, 7]),
        kernel_shape=[2],
        strides=[2],
        reference=lambda x, places, shape: unpooled(x, places, (1, 1, 7)),
        modes=("unranked",),
    ),
]


def mean_over(x):
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def unpooled(x, places, shape):
    y = np.zeros(math.prod(shape))
    y[places.astype(int).ravel()] = x.ravel()
    return y.reshape(shape)


@pytest.mark.parametrize("case", GLOBAL, ids=str)
def test_global(case):
    case.check()
    if TORCH and case.check_.torch:
        case.check_torch()


@pytest.mark.parametrize(("mode", "expected"), [("static", False), ("symbolic", True)])
def test_positions_are_counted_only_where_sizes_are_unknown(mode, expected):
    builder = GraphBuilder(Case("GlobalAveragePool", (2, 3, 4)).check_.model(mode))
    pull_back(builder, {"y0": "y0"}, ["x0"])
    assert ("ReduceProd" in {node.op_type for node in builder.graph.node}) == expected


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("mode", ["static", "symbolic"])
def test_types_agree(op, mode):
    assert_same_types(Case(op, (2, 3, 4)).check_.model(mode), ["x0"])


def gradient_at(op, x, dy, **attributes):
    """The gradient at one given point."""
    node = helper.make_node(op, ["x0"], ["y0"], name="node", **attributes)
    check = Check([node], {"x0": np.array(x, np.float32)}, ["y0"])
    check._cotangents = lambda: {"y0": np.array(dy, np.float32)}
    return check.gradients("static")["x0"]


def test_equal_maxima_share():
    found = gradient_at("GlobalMaxPool", [[[1, 3, 3, 2]]], [[[4]]])
    np.testing.assert_array_equal(found, [[[0, 2, 2, 0]]])


@pytest.mark.parametrize("power", [1, 2, 3])
def test_norm_of_zeros(power):
    zeros = [[[0, 0, 0, 2]]]
    found = gradient_at("LpPool", zeros, [[[1, 1]]], p=power, kernel_shape=[2], strides=[2])
    np.testing.assert_allclose(found, [[[0, 0, 0, 1]]], atol=1e-6)


@pytest.mark.parametrize(
    ("stride", "x", "expected"), [(1, [1, 1, 1], [4, 5, 0]), (2, [3, 3, 1, 1], [4, 0, 5, 0])]
)
def test_first_of_equal_maxima(stride, x, expected):
    found = gradient_at("MaxPool", [[x]], [[[4, 5]]], kernel_shape=[2], strides=[stride])
    np.testing.assert_array_equal(found, [[expected]])


def test_average_of_nothing():
    """onnxruntime gives 0 where a window's elements all lie in the padding."""
    given = {"kernel_shape": [2], "dilations": [3], "pads": [1, 1]}
    np.testing.assert_array_equal(gradient_at("AveragePool", [[[1, 2]]], [[[5]]], **given), 0)
    found = gradient_at("AveragePool", [[[1, 2, 3]]], [[[5, 7]]], **given)
    np.testing.assert_array_equal(found, [[[7, 0, 5]]])
