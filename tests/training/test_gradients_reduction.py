"""Gradients of reductions, CumSum, TopK and Trilu."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.training.backward import NoGradientError, pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Case, Check, Draw, gradient_tests

F = np.float32
EVERY = ("static", "symbolic", "unranked")
#: (operator, lowest and highest value drawn, the same in PyTorch over some dimensions)
REDUCTIONS = {
    "ReduceSum": (-2, 2, lambda t, x, d, k: x.sum(d, keepdim=k)),
    "ReduceMean": (-2, 2, lambda t, x, d, k: x.mean(d, keepdim=k)),
    "ReduceMax": (-2, 2, lambda t, x, d, k: x.amax(d, keepdim=k)),
    "ReduceMin": (-2, 2, lambda t, x, d, k: x.amin(d, keepdim=k)),
    "ReduceL1": (-2, 2, lambda t, x, d, k: x.abs().sum(d, keepdim=k)),
    "ReduceL2": (-2, 2, lambda t, x, d, k: t.linalg.vector_norm(x, 2, d, keepdim=k)),
    "ReduceSumSquare": (-2, 2, lambda t, x, d, k: (x * x).sum(d, keepdim=k)),
    "ReduceLogSum": (0.2, 2, lambda t, x, d, k: x.sum(d, keepdim=k).log()),
    "ReduceLogSumExp": (-2, 2, lambda t, x, d, k: x.logsumexp(d, keepdim=k)),
    "ReduceProd": (-2, 2, None),
}


def ints(*values):
    return np.array(values, np.int64)


def reduction(op, shape, axes, torch=True, modes=EVERY, **attributes):
    low, high, function = REDUCTIONS[op]
    dims = list(range(len(shape))) if axes is None else axes
    if len(shape) == 3 and axes == (1,) and op == "ReduceProd":
        function = lambda t, x, d, k: x.prod(d[0], keepdim=k)  # noqa: E731
    kept = bool(attributes.get("keepdims", 1))

    def same(t, x, *_):
        return function(t, x, list(dims), kept)

    return Case(
        op,
        Draw(shape, low, high, avoid=(0.0,), distinct=op in ("ReduceMax", "ReduceMin")),
        *([] if axes is None else [ints(*axes)]),
        torch=same if torch and function else None,
        modes=modes,
        **attributes,
    )


CASES = [
    *(
        reduction(op, shape, axes, **attributes)
        for op in REDUCTIONS
        for shape, axes, attributes in (
            ((2, 3, 2), (1,), {}),
            ((2, 3, 2), (0, -1), {"keepdims": 0}),
            ((2, 3), None, {}),
            ((2, 3), None, {"keepdims": 0}),
        )
    ),
    *(reduction(op, (2, 3), None, False, noop_with_empty_axes=1) for op in REDUCTIONS),
    reduction("ReduceMean", (2, 3), (), False, noop_with_empty_axes=1, keepdims=0),
    reduction("ReduceMean", (2, 3), (), False, keepdims=0, modes=("static", "symbolic")),
    reduction("ReduceSum", (), None),
    *(
        Case("ReduceProd", np.array(rows, F), ints(1), torch=lambda t, x, a: x.prod(1, True))
        for rows in ([[2, 0, 3], [1, -2, 4]], [[0, 0, 3], [0, 5, 0]], [[0, 0, 0], [0, 1, -2]])
    ),
    Case("CumSum", (2, 3), np.array(1), torch=lambda t, x, a: x.cumsum(1), modes=EVERY),
    Case("CumSum", (4,), np.array(-1), torch=lambda t, x, a: x.cumsum(0), modes=EVERY),
    *(
        Case("CumSum", (3, 2), np.array(axis), exclusive=exclusive, reverse=reverse, modes=EVERY)
        for axis, exclusive, reverse in ((0, 1, 0), (0, 0, 1), (1, 1, 1))
    ),
    Case("Trilu", (3, 4), torch=lambda t, x: x.triu(), modes=EVERY),
    Case("Trilu", (2, 3, 3), upper=0, torch=lambda t, x: x.tril(), modes=EVERY),
    Case("Trilu", (3, 4), np.array(1), torch=lambda t, x, k: x.triu(1), modes=EVERY),
    Case("Trilu", (4, 3), np.array(-1), upper=0, torch=lambda t, x, k: x.tril(-1), modes=EVERY),
    *(
        Case(
            "TopK",
            Draw((2, 5), distinct=True),
            ints(2),
            outputs=2,
            axis=axis,
            largest=largest,
            torch=lambda t, x, k, a=axis, g=largest: t.topk(x, 2, a, bool(g))[0],
            modes=EVERY,
        )
        for axis, largest in ((-1, 1), (0, 0))
    ),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(REDUCTIONS)),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.data(),
    st.booleans(),
)
def test_any_axes(op, shape, data, keepdims):
    rank = len(shape)
    axes = data.draw(st.lists(st.integers(0, rank - 1), unique=True))
    signed = tuple(axis - rank if data.draw(st.booleans()) else axis for axis in axes)
    noop = data.draw(st.booleans())
    case = reduction(
        op, tuple(shape), signed, False, keepdims=int(keepdims), noop_with_empty_axes=int(noop)
    )
    case.check()


@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.data(),
    st.integers(0, 1),
    st.integers(0, 1),
)
def test_cum_sum(shape, data, exclusive, reverse):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    given_axis = np.array(axis, np.int32)
    Case("CumSum", tuple(shape), given_axis, exclusive=exclusive, reverse=reverse).check()


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=3), st.integers(-4, 4), st.integers(0, 1))
def test_trilu(shape, k, upper):
    Case("Trilu", tuple(shape), np.array(k), upper=upper).check()


@settings(max_examples=20)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data(), st.integers(0, 1))
def test_top_k(shape, data, largest):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    x = Draw(tuple(shape), distinct=True)
    Case("TopK", x, ints(k), outputs=2, axis=axis, largest=largest).check()


def slopes(op, x, axes, shape, **attributes):
    """The gradient of a reduction whose axes are known at run time only, for dy = 1, 2, ..."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "axes"], ["y"], **attributes)],
        "g",
        [
            helper.make_tensor_value_info("x", 1, shape),
            helper.make_tensor_value_info("axes", 7, ["n"]),
            helper.make_tensor_value_info("dy", 1, None),
        ],
        [helper.make_tensor_value_info("y", 1, ["p", "q"] if attributes["keepdims"] else None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    found = pull_back(GraphBuilder(model), {"y": "dy"}, ["x"])
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(found["x"], 1, None))
    size = np.sum(x, axis=tuple(axes) or None, keepdims=bool(attributes["keepdims"]))
    dy = np.arange(1, size.size + 1, dtype=F).reshape(size.shape)
    feeds = {"x": x, "axes": axes, "dy": dy}
    read = {name for node in model.graph.node for name in node.input}
    return evaluate(model, {name: feeds[name] for name in read & set(feeds)})[found["x"]]


@pytest.mark.parametrize("shape", [(2, 3), ("a", "b"), ("a", 3)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes_made_at_run_time(shape, keepdims):
    x = np.array([[1, 2, 3], [4, 5, 6]], F)
    found = slopes("ReduceMean", x, ints(1), shape=shape, keepdims=keepdims)
    np.testing.assert_allclose(found, [[1 / 3] * 3, [2 / 3] * 3], rtol=1e-6)
    found = slopes("ReduceMax", x, ints(0), shape=shape, keepdims=keepdims)
    np.testing.assert_allclose(found, [[0, 0, 0], [1, 2, 3]])
    found = slopes("ReduceMean", x, ints(), shape=shape, keepdims=keepdims)
    np.testing.assert_allclose(found, np.full((2, 3), 1 / 6), rtol=1e-6)


def gradient_at(op, x, *rest):
    check = Check([helper.make_node(op, ["x", *("axes" for _ in rest)], ["y"])], {"x": x}, ["y"])
    if rest:
        check = Check(check.nodes, {"x": x, "axes": rest[0]}, ["y"], {"axes"})
    return check.gradients("static")["x"], check._cotangents()["y"]


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_equal_extremes_share(op):
    sign = 1 if op == "ReduceMax" else -1
    x = sign * np.array([[1, 3, 3], [2, 1, 0]], F)
    found, dy = gradient_at(op, x, ints(1))
    np.testing.assert_allclose(found, dy * [[0, 0.5, 0.5], [1, 0, 0]])


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2"])
def test_norm_of_nothing_but_zeros(op):
    found, _ = gradient_at(op, np.zeros((2, 3), F), ints(1))
    np.testing.assert_array_equal(found, np.zeros((2, 3)))


def test_mean_of_an_empty_batch():
    check = Check(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"])],
        {"x": np.zeros((0, 3), F), "axes": ints(1)},
        ["y"],
        {"axes"},
    )
    for mode in EVERY:
        assert check.gradients(mode)["x"].shape == (0, 3)


def test_determinant_is_refused():
    with pytest.raises(NoGradientError, match="Det 'node'"):
        Case("Det", (2, 2)).check()
