"""Gradients of activation functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.gradcheck import Case, Draw, gradient_tests

F = np.float32
EVERY = ("static", "symbolic", "unranked")
CONTRIB = "com.microsoft"


def wide(*avoid):
    """Inputs on both sides of every bend."""
    return Draw((3, 8), -5, 5, avoid)


def erf_gelu(x, bias=0):
    z = x + bias
    return z * (1 + np.vectorize(math.erf)(z / math.sqrt(2))) / 2


def tanh_gelu(x, bias=0):
    z = x + bias
    return z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def swish(alpha):
    return lambda x: x / (1 + np.exp(-alpha * x))


def torch_gelu(approximate):
    def gelu(t, x, bias=0):
        return t.nn.functional.gelu(x + bias, approximate=approximate)

    return gelu


SELU = {"alpha": 0.7, "gamma": 1.3}
CASES = [
    Case("Relu", wide(0.0), torch=lambda t, x: t.relu(x), modes=EVERY),
    Case("LeakyRelu", wide(0.0), torch=lambda t, x: t.nn.functional.leaky_relu(x, 0.01)),
    *(
        Case(
            "LeakyRelu",
            wide(0.0),
            alpha=alpha,
            torch=lambda t, x, alpha=alpha: t.nn.functional.leaky_relu(x, alpha),
        )
        for alpha in (0.0, 0.25, 1.5, -0.3)
    ),
    Case("PRelu", wide(0.0), Draw((8,)), torch=lambda t, x, a: t.where(x > 0, x, a * x)),
    Case("PRelu", wide(0.0), Draw((1,)), torch=lambda t, x, a: t.nn.functional.prelu(x, a)),
    Case("PRelu", wide(0.0), Draw((3, 1)), modes=EVERY),
    Case(
        "PRelu",
        Draw((2, 3, 2), -5, 5, (0.0,)),
        Draw((3, 1)),
        torch=lambda t, x, a: t.nn.functional.prelu(x, a.reshape(-1)),
    ),
    Case("ThresholdedRelu", wide(1.0), torch=lambda t, x: t.nn.functional.threshold(x, 1, 0)),
    Case("ThresholdedRelu", wide(-2.0), alpha=-2.0, name="ThresholdedRelu below zero"),
    Case("Shrink", wide(0.5, -0.5), torch=lambda t, x: t.nn.functional.hardshrink(x)),
    Case(
        "Shrink",
        wide(1.5, -1.5),
        lambd=1.5,
        bias=1.5,
        torch=lambda t, x: t.nn.functional.softshrink(x, 1.5),
    ),
    Case("Elu", wide(0.0), torch=lambda t, x: t.nn.functional.elu(x), modes=EVERY),
    *(
        Case(
            "Elu",
            wide(0.0),
            alpha=alpha,
            torch=lambda t, x, alpha=alpha: t.nn.functional.elu(x, alpha),
        )
        for alpha in (0.3, 2.5, -0.5)
    ),
    Case("Selu", wide(0.0), torch=lambda t, x: t.selu(x)),
    Case("Selu", wide(0.0), **SELU),
    Case("Selu", wide(0.0), alpha=1.0, gamma=0.5),
    Case("Celu", wide(0.0), torch=lambda t, x: t.celu(x)),
    Case("Celu", wide(0.0), alpha=2.5, torch=lambda t, x: t.celu(x, 2.5)),
    Case("Celu", wide(0.0), alpha=0.5, torch=lambda t, x: t.celu(x, 0.5)),
    Case("Softplus", wide(), torch=lambda t, x: t.nn.functional.softplus(x)),
    Case("Softsign", wide(0.0), torch=lambda t, x: t.nn.functional.softsign(x)),
    Case("Sigmoid", wide(), torch=lambda t, x: x.sigmoid()),
    Case("Tanh", wide(), torch=lambda t, x: x.tanh()),
    Case("HardSigmoid", Draw((3, 8), -5, 5, (-2.5, 2.5)), modes=EVERY),
    Case(
        "HardSigmoid",
        wide(-3.0, 3.0),
        alpha=1 / 6,
        torch=lambda t, x: t.nn.functional.hardsigmoid(x),
    ),
    Case("HardSwish", wide(-3.0, 3.0), torch=lambda t, x: t.nn.functional.hardswish(x)),
    Case("Swish", wide(), opset=24, torch=lambda t, x: t.nn.functional.silu(x)),
    Case("Swish", wide(), opset=24, alpha=0.4, torch=lambda t, x: x * (0.4 * x).sigmoid()),
    Case("Mish", wide(), torch=lambda t, x: t.nn.functional.mish(x)),
    Case("Gelu", wide(), torch=torch_gelu("none"), reference=erf_gelu, modes=EVERY),
    Case("Gelu", wide(), approximate="tanh", torch=torch_gelu("tanh"), reference=tanh_gelu),
    Case(
        "Gelu",
        wide(),
        domain=CONTRIB,
        torch=torch_gelu("none"),
        reference=erf_gelu,
        name="contrib Gelu",
    ),
    Case("BiasGelu", wide(), (8,), domain=CONTRIB, torch=torch_gelu("none"), reference=erf_gelu),
    Case("FastGelu", wide(), domain=CONTRIB, torch=torch_gelu("tanh"), reference=tanh_gelu),
    Case("FastGelu", wide(), (8,), domain=CONTRIB, torch=torch_gelu("tanh"), reference=tanh_gelu),
    Case(
        "QuickGelu",
        wide(),
        domain=CONTRIB,
        reference=swish(1.702),
        torch=lambda t, x: x * (1.702 * x).sigmoid(),
    ),
    Case("QuickGelu", wide(), domain=CONTRIB, alpha=0.5, reference=swish(0.5)),
    Case("Softmax", (3, 4), torch=lambda t, x: x.softmax(-1), modes=EVERY),
    Case("LogSoftmax", (3, 4), torch=lambda t, x: x.log_softmax(-1), modes=EVERY),
    *(
        Case("Softmax", (2, 3, 4), axis=axis, torch=lambda t, x, axis=axis: x.softmax(axis))
        for axis in (0, 1, 2, -2)
    ),
    *(
        Case("LogSoftmax", (2, 3, 4), axis=axis, torch=lambda t, x, axis=axis: x.log_softmax(axis))
        for axis in (0, 1, 2, -2)
    ),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize(
    ("op", "expected"),
    [("Relu", [0, 0, 1]), ("LeakyRelu", [0.5, 0.5, 1]), ("Elu", [0.1353353, 1, 1])],
)
def test_at_zero(op, expected):
    """At their bend functions have the slope of the left side; Relu has 0, as in PyTorch."""
    attributes = {"alpha": 0.5} if op == "LeakyRelu" else {}
    case = Case(op, np.array([-2, 0, 2], F), **attributes)
    cotangent = case.check_._cotangents()["y0"]
    found = case.check_.gradients("static")["x0"]
    np.testing.assert_allclose(found, cotangent * np.array(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("Relu", ["Greater", "Cast", "Mul"]),
        ("LeakyRelu", ["Greater", "Cast", "Clip", "Mul"]),
        ("Elu", ["Add", "Clip", "Mul"]),
        ("Celu", ["Clip", "Exp", "Mul"]),
    ],
)
def test_fast_forms(op, expected):
    model = Case(op, (2, 3)).check_.model()
    pull_back(GraphBuilder(model), {"y0": "y0"}, ["x0"])
    assert [node.op_type for node in model.graph.node[1:]] == expected


@settings(max_examples=30)
@given(
    st.sampled_from(["LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "HardSigmoid", "Selu"]),
    st.floats(0.1, 3),
    st.sampled_from([(5,), (2, 3), (2, 1, 4)]),
)
def test_any_alpha(op, alpha, shape):
    bends = {"ThresholdedRelu": (alpha,), "HardSigmoid": (-0.5 / alpha, 0.5 / alpha)}
    case = Case(op, Draw(shape, -5, 5, bends.get(op, (0.0,))), alpha=alpha)
    case.check()


@settings(max_examples=20)
@given(st.data())
def test_softmax_over_any_axis(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    Case(data.draw(st.sampled_from(["Softmax", "LogSoftmax"])), shape, axis=axis).check()
