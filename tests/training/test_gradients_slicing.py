"""Gradients of Concat, Split and Slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.training.backward import NoGradientError, pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.gradcheck import Case, Check, gradient_tests

EVERY = ("static", "symbolic", "unranked")
LEAST = -(2**63)


def ints(*values):
    return np.array(values, np.int64)


def flipped(t, x):
    return x.flip(1)


CASES = [
    Case("Concat", (2, 3), (2, 1), (2, 2), axis=1, torch=lambda t, *x: t.cat(x, 1), modes=EVERY),
    Case("Concat", (2, 3), (1, 3), axis=-2, torch=lambda t, *x: t.cat(x, 0), modes=EVERY),
    Case("Concat", (2, 3), (2, 2), axis=-1, torch=lambda t, *x: t.cat(x, 1), modes=EVERY),
    Case("Concat", (2, 3), axis=0, torch=lambda t, x: x * 1),
    Case("Split", (2, 6), outputs=3, axis=1, num_outputs=3, torch=lambda t, x: x.split(2, 1)),
    Case("Split", (7, 2), outputs=3, num_outputs=3, torch=lambda t, x: x.split(3)),
    Case(
        "Split",
        (2, 6),
        ints(1, 0, 5),
        outputs=3,
        axis=-1,
        torch=lambda t, x, s: x.split([1, 0, 5], 1),
        modes=EVERY,
    ),
    *(
        Case(
            "Split",
            (6, 2),
            ints(1, 2, 3),
            outputs=3,
            seeded=used,
            torch=lambda t, x, s: x.split([1, 2, 3]),
            modes=EVERY,
        )
        for used in ([0], [1], [2], [0, 2])
    ),
    Case("Split", (2, 3), outputs=1, num_outputs=1, torch=lambda t, x: x * 1),
    Case("Slice", (4, 5), ints(1), ints(3), torch=lambda t, x, *_: x[1:3], modes=EVERY),
    Case(
        "Slice",
        (4, 5),
        ints(-3, 0),
        ints(99, -1),
        ints(-1, 0),
        torch=lambda t, x, *_: x[:-1, -3:],
        modes=EVERY,
    ),
    Case(
        "Slice",
        (4, 7),
        ints(1),
        ints(7),
        ints(1),
        ints(2),
        torch=lambda t, x, *_: x[:, 1::2],
        modes=EVERY,
    ),
    Case(
        "Slice",
        (3, 4),
        ints(-1),
        ints(LEAST),
        ints(1),
        ints(-1),
        torch=lambda t, x, *_: x.flip(1),
        modes=EVERY,
    ),
    Case(
        "Slice",
        (3, 7),
        ints(5),
        ints(0),
        ints(1),
        ints(-2),
        torch=lambda t, x, *_: x[:, [5, 3, 1]],
        modes=EVERY,
    ),
    Case("Slice", (4, 3), ints(3), ints(2), torch=lambda t, x, *_: x[3:2], modes=EVERY),
    Case("Slice", (4, 4), ints(1, -9), ints(3, 2), torch=lambda t, x, *_: x[1:3, :2], modes=EVERY),
    Case("Slice", (4, 3), ints(9), ints(99), torch=lambda t, x, *_: x[9:], modes=EVERY),
    # Python would take nothing here.
    Case("Slice", (5,), ints(-7), ints(-9), ints(0), ints(-1), modes=EVERY),
    Case(
        "Slice",
        (4, 3),
        np.array([1], np.int32),
        np.array([-1], np.int32),
        np.array([0], np.int32),
        torch=lambda t, x, *_: x[1:-1],
        modes=EVERY,
    ),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@settings(max_examples=40)
@given(st.data())
def test_slice(data):
    """Bounds beyond the ends, steps of both signs, every subset of axes."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
    axes = data.draw(st.lists(st.sampled_from(range(len(shape))), min_size=1, unique=True))
    steps = data.draw(st.lists(st.sampled_from([1, 1, 2, 3, -1, -2]), min_size=2, max_size=2))
    bounds = st.lists(st.integers(-7, 7), min_size=2, max_size=2)
    starts, ends = data.draw(bounds), data.draw(bounds)
    axes = [axis - data.draw(st.sampled_from([0, len(shape)])) for axis in axes]
    values = (starts, ends, axes, steps)
    inputs = [ints(*value[: len(axes)]) for value in values]
    Case("Slice", tuple(shape), *inputs, modes=EVERY).check()


@pytest.mark.parametrize("step", [1, 2, -1])
@pytest.mark.parametrize("axes", [True, False])
def test_slice_at_run_time(step, axes):
    """Bounds, and even axes, made from a value that the graph computes."""
    nodes = [
        helper.make_node("Cast", ["x1"], ["from"], to=7),
        helper.make_node("Cast", ["x2"], ["to"], to=7),
        helper.make_node("Cast", ["x3"], ["along"], to=7),
        helper.make_node("Slice", ["x0", "from", "to", "along" if axes else "x4", "x5"], ["y0"]),
    ]
    bounds = (-1, 0) if step < 0 else (1, 6)
    values = {
        "x0": np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7),
        "x1": np.array([bounds[0]], np.int32),
        "x2": np.array([bounds[1]], np.int32),
        "x3": np.array([1], np.int32),
        "x4": ints(1),
        "x5": ints(step),
    }
    # Inputs that no value is known of, although their gradient is not asked for.
    check = Check(nodes, values, ["y0"], {"x4", "x5"}, modes=EVERY)
    check.finite_differences()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 2), st.data())
def test_concat_and_split(sizes, axis, data):
    """One is the gradient of the other."""
    shape = [2, 1, 3]
    shape[axis] = sum(sizes)
    parts = [tuple(size if i == axis else n for i, n in enumerate(shape)) for size in sizes]
    signed = axis - data.draw(st.sampled_from([0, 3]))
    Case("Concat", *parts, axis=signed, modes=EVERY).check()
    if len(sizes) > 1 and sum(sizes):
        Case("Split", tuple(shape), ints(*sizes), axis=signed, outputs=len(sizes)).check()


def test_slice_of_known_axes_is_one_pad():
    """Unknown sizes elsewhere do not matter."""
    check = Case("Slice", (4, 5), ints(1), ints(3), ints(1)).check_
    model = check.model("static")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert [node.op_type for node in _gradient_nodes(model)] == ["Pad"]


def _gradient_nodes(model):
    count = len(model.graph.node)
    model.graph.input.append(helper.make_tensor_value_info("dy", 1, ["batch", 2]))
    pull_back(GraphBuilder(model), {"y0": "dy"}, ["x0"])
    return model.graph.node[count:]


def test_sequences_are_refused():
    nodes = [
        helper.make_node("SplitToSequence", ["x0"], ["parts"], axis=1, name="cut"),
        helper.make_node("ConcatFromSequence", ["parts"], ["y0"], axis=0, name="join"),
    ]
    check = Check(nodes, {"x0": np.ones((2, 3), np.float32)}, ["y0"], reference=lambda x: x)
    with pytest.raises(NoGradientError, match=r"SplitToSequence 'cut'.*ConcatFromSequence 'join'"):
        check.gradients("static")
