"""Gradients of arithmetic with broadcasting and of elementary functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Case, Draw, Fixed, gradient_tests

F = np.float32
MIXED = np.array([[True, False, True], [False, False, True]])
EVERY = ("static", "symbolic", "unranked")


def broadcasts(op, function, low=-2.0, high=2.0):
    """A binary operator over every way in which two shapes broadcast."""
    shapes = [
        ((2, 3), (2, 3)),
        ((2, 3), (3,)),
        ((3,), (2, 3)),
        ((2, 1, 3), (4, 1)),
        ((1, 3), (2, 1)),
        ((), (2, 2)),
        ((2, 2), ()),
        ((1,), (1, 1)),
        ((2, 1), (2, 1)),
        ((1, 2), (3, 1, 2)),
    ]
    return [
        Case(op, Draw(left, low, high), Draw(right, low, high), torch=function, modes=EVERY)
        for left, right in shapes
    ]


CASES = [
    *broadcasts("Add", lambda t, x, y: x + y),
    *broadcasts("Sub", lambda t, x, y: x - y),
    *broadcasts("Mul", lambda t, x, y: x * y),
    *broadcasts("Div", lambda t, x, y: x / y, 0.5, 2),
    *broadcasts("Pow", lambda t, x, y: x**y, 0.5, 2),
    *broadcasts("Max", lambda t, x, y: t.maximum(x, y)),
    *broadcasts("Min", lambda t, x, y: t.minimum(x, y)),
    Case("Div", Draw((3,), -2, -1), Draw((3,), -2, -0.5), torch=lambda t, x, y: x / y),
    *(
        Case("Pow", (2, 3), Fixed(np.array(p, F)), torch=lambda t, x, p: x**p, avoid=(0.0,))
        for p in (2, 3, 1, 4, -1, -2, 0)
    ),
    *(
        Case("Pow", Draw((2, 3), 0.3, 2), Fixed(np.array(p, F)), torch=lambda t, x, p: x**p)
        for p in (0.5, -0.5, 1.7)
    ),
    Case("Pow", (2, 3), np.array([2], np.int64), torch=lambda t, x, p: x**p),
    Case("Pow", (2, 3), np.array([2, 3, 1], np.int64), torch=lambda t, x, p: x**p),
    Case("Pow", np.array([0, 1, 2], F), Fixed(np.array(0, F)), torch=lambda t, x, p: x**p),
    Case("Pow", np.array([0, 1, 2], F), Fixed(np.array([0, 0, 3], F)), torch=lambda t, x, p: x**p),
    Case(
        "Mod", Draw((2, 3), 1, 9), Draw((3,), 1.1, 1.3), fmod=1, torch=lambda t, x, y: t.fmod(x, y)
    ),
    Case(
        "Mod", Draw((3,), -9, -1), Draw((3,), 1.1, 1.3), fmod=1, torch=lambda t, x, y: t.fmod(x, y)
    ),
    Case("Sum", (2, 3), torch=lambda t, x: x),
    Case("Sum", (2, 3), (3,), (2, 1), torch=lambda t, x, y, z: x + y + z),
    Case("Mod", Draw((3,), 1, 9), Draw((2, 3), 1.1, 1.3), fmod=1, name="Mod broadcast"),
    Case("Mean", (2, 3), torch=lambda t, x: x),
    Case("Mean", (2, 3), (3,), (2, 1), torch=lambda t, x, y, z: (x + y + z) / 3),
    Case("Max", (2, 3), torch=lambda t, x: x),
    Case("Max", (2, 3), (3,), (2, 1), torch=lambda t, x, y, z: t.maximum(t.maximum(x, y), z)),
    Case("Min", (2, 3), (3,), (), (2, 1), name="Min of four"),
    Case("Where", MIXED, (2, 3), (2, 3), torch=lambda t, c, x, y: t.where(c, x, y)),
    Case("Where", MIXED, (3,), (2, 1), torch=lambda t, c, x, y: t.where(c, x, y), modes=EVERY),
    Case("Where", MIXED, (), (2, 2, 3), torch=lambda t, c, x, y: t.where(c, x, y)),
    Case("Where", MIXED[:, :1], (3,), (2, 3), torch=lambda t, c, x, y: t.where(c, x, y)),
    Case("Clip", (2, 3), torch=lambda t, x: x),
    Case(
        "Clip",
        (3, 4),
        Fixed(np.array(-1, F)),
        Fixed(np.array(1, F)),
        avoid=(-1.0, 1.0),
        torch=lambda t, x, low, high: t.clip(x, low, high),
    ),
    Case("Clip", (3, 4), None, Fixed(np.array(0.5, F)), avoid=(0.5,)),
    Case("Clip", (3, 4), Draw((), -1, -0.5), Draw((), 0.5, 1), name="Clip to trained bounds"),
    Case("Neg", (2, 3), torch=lambda t, x: -x),
    Case("Abs", (2, 3), avoid=(0.0,), torch=lambda t, x: x.abs()),
    Case("Sqrt", Draw((2, 3), 0.3, 2), torch=lambda t, x: x.sqrt()),
    Case("Exp", (2, 3), torch=lambda t, x: x.exp()),
    Case("Log", Draw((2, 3), 0.3, 2), torch=lambda t, x: x.log()),
    Case("Reciprocal", Draw((2, 3), 0.3, 2), torch=lambda t, x: 1 / x),
    Case("Sin", (2, 3), torch=lambda t, x: x.sin()),
    Case("Cos", (2, 3), torch=lambda t, x: x.cos()),
    Case("Tan", Draw((2, 3), -1, 1), torch=lambda t, x: x.tan()),
    Case("Sinh", (2, 3), torch=lambda t, x: x.sinh()),
    Case("Cosh", (2, 3), torch=lambda t, x: x.cosh()),
    Case("Asin", Draw((2, 3), -0.8, 0.8), torch=lambda t, x: x.asin()),
    Case("Acos", Draw((2, 3), -0.8, 0.8), torch=lambda t, x: x.acos()),
    Case("Atan", (2, 3), torch=lambda t, x: x.atan()),
    Case("Asinh", (2, 3), torch=lambda t, x: x.asinh()),
    Case("Acosh", Draw((2, 3), 1.2, 3), torch=lambda t, x: x.acosh()),
    Case("Atanh", Draw((2, 3), -0.8, 0.8), torch=lambda t, x: x.atanh()),
    Case("Erf", (2, 3), torch=lambda t, x: t.erf(x), reference=np.vectorize(math.erf)),
    Case("Identity", (2, 3), torch=lambda t, x: x),
    Case("Cast", (2, 3), to=1, torch=lambda t, x: x),
    Case("CastLike", (2, 3), Fixed(np.zeros(1, F)), torch=lambda t, x, y: x),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize(
    ("op", "bounds", "expected"),
    [
        ("Clip", (-1, 1), [0, 1, 1, 1, 0]),
        ("Max", (0,), [0, 0, 1, 1, 1]),
        ("Abs", (), [-1, -1, 0, 1, 1]),
    ],
)
def test_kinks(op, bounds, expected):
    """Clip passes gradients on its bounds, Max gives those of equal inputs to the first."""
    points = np.array([-2, -1, 0, 1, 2], F)
    case = Case(op, points, *(Fixed(np.array(bound, F)) for bound in bounds))
    cotangent = case.check_._cotangents()["y0"]
    assert case.check_.gradients("static")["x0"].tolist() == (cotangent * expected).tolist()


def test_ties_of_three_share_the_gradient():
    case = Case("Max", np.array([1, 5], F), np.array([1, 5], F), np.array([0, 5], F))
    cotangent = case.check_._cotangents()["y0"]
    found = case.check_.gradients("static")
    np.testing.assert_allclose(found["x0"], cotangent * np.array([1 / 2, 1 / 3]), rtol=1e-6)
    np.testing.assert_allclose(found["x2"], cotangent * np.array([0, 1 / 3]), rtol=1e-6)


def test_exponent_of_a_negative_base_has_no_gradient():
    """Its logarithm is no number; training must not turn into NaN over it."""
    found = Case("Pow", np.array([-2, 2], F), np.array([3, 3], F)).check_.gradients("static")
    assert found["x1"][0] == 0
    assert found["x1"][1] != 0


@pytest.mark.parametrize("exponent", [0.5, 1, 2, 3])
def test_common_exponents_need_no_second_power(exponent):
    case = Case("Pow", (3,), Fixed(np.array(exponent, F)))
    model = case.check_.model()
    pull_back(GraphBuilder(model), {"y0": "y0"}, ["x0"])
    assert "Pow" not in [node.op_type for node in model.graph.node[1:]]


def dropout_gradient(inputs):
    """Output and gradient of Dropout of ones for a gradient of ones.

    `inputs`: ratio and training mode, each as (value, is it a constant), None where left out.
    """
    names = ["x", *(name if given else "" for name, given in inputs.items())]
    graph = helper.make_graph(
        [helper.make_node("Dropout", names, ["y"], seed=3)],
        "g",
        [helper.make_tensor_value_info(name, 1, [4, 50]) for name in ("x", "dy")],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    feeds = {name: np.ones((4, 50), F) for name in ("x", "dy")}
    for name, known in inputs.items():
        if known is None:
            continue
        value = np.array(known[0])
        if known[1]:
            graph.initializer.append(numpy_helper.from_array(value, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, []))
            feeds[name] = value
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    found = pull_back(GraphBuilder(model), {"y": "dy"}, ["x"])
    model.graph.node.append(helper.make_node("Identity", [found["x"]], ["dx"]))
    model.graph.output.append(helper.make_tensor_value_info("dx", 1, None))
    results = evaluate(model, feeds)
    return results["y"], results["dx"]


@pytest.mark.parametrize("ratio", [(F(0.3), True), (F(0.3), False), (0.25, False), None])
@pytest.mark.parametrize("training", [(True, True), (True, False), (False, True), (False, False)])
def test_dropout(ratio, training):
    """Of ones, output and gradient are the same: the mask over what is kept."""
    output, slope = dropout_gradient({"ratio": ratio, "training": training})
    np.testing.assert_allclose(slope, output, rtol=1e-6)
    assert bool((output == 0).any()) == training[0]


def test_dropout_without_training_mode_is_the_identity():
    output, slope = dropout_gradient({"ratio": (F(0.3), True), "training": None})
    assert (output == 1).all() and (slope == 1).all()


@st.composite
def broadcast_shapes(draw, count):
    """Shapes that broadcast together, in every way."""
    whole = draw(st.lists(st.integers(1, 3), max_size=3))
    return [
        tuple(
            size if draw(st.booleans()) else 1 for size in whole[draw(st.integers(0, len(whole))) :]
        )
        for _ in range(count)
    ]


@settings(max_examples=30)
@given(st.sampled_from(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"]), broadcast_shapes(2))
def test_any_broadcast_of_two(op, shapes):
    Case(op, *(Draw(shape, 0.5, 2) for shape in shapes), modes=EVERY).check()


@settings(max_examples=20)
@given(st.sampled_from(["Sum", "Mean", "Max", "Min"]), broadcast_shapes(3))
def test_any_broadcast_of_three(op, shapes):
    reference = (lambda x, y, z: (x + y + z) / 3) if op == "Mean" else None
    Case(op, *shapes, modes=EVERY, reference=reference).check()


@settings(max_examples=20)
@given(broadcast_shapes(3), st.integers(0, 99))
def test_any_broadcast_of_where(shapes, seed):
    condition = np.random.default_rng(seed).random(shapes[0]) < 0.5
    Case("Where", condition, *shapes[1:], modes=EVERY, name=f"Where {shapes} {seed}").check()
