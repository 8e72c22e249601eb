"""Gradients of Gather, Scatter, Compress, ReverseSequence and OneHot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.gradcheck import Case, Fixed, gradient_tests

EVERY = ("static", "symbolic", "unranked")
TABLE = (300, 2)  # more rows than a one-hot product is used for


def ints(*values):
    return np.array(values, np.int64)


def at_run_time(op, *inputs, **options):
    """The case with its integer inputs as inputs of the model rather than constants."""
    case = Case(op, *inputs, **options)
    case.text += ", at run time"
    case.check_.fixed = set()
    return case


ROWS = ints(1, -1, 1, 0)
GRID = np.array([[0, 2, 2], [1, -3, 1]])
ELEMENTS = np.array([[0, 1], [-1, 1], [2, 0]])
SPOTS = np.array([[0, 1], [1, -1], [-2, 0]])
POINTS = np.array([[[0, 1], [0, 1]], [[2, -1], [1, 0]]])
BATCHED = np.array([[[1], [1]], [[-1], [0]]])


def one_hot(t, indices, depth, values):
    hot = t.nn.functional.one_hot(indices, 4).double()
    return hot * values[1] + (1 - hot) * values[0]


CASES = [
    Case("Gather", (3, 2), ROWS, torch=lambda t, x, i: x[i], modes=EVERY),
    Case("Gather", (3, 2), ints(2, 0), torch=lambda t, x, i: x[i], modes=EVERY),
    Case("Gather", (4, 2), ints(1, 2), torch=lambda t, x, i: x[i], modes=EVERY),
    Case("Gather", (3, 2), np.array(-1), torch=lambda t, x, i: x[-1], modes=EVERY),
    Case("Gather", (2, 3, 2), np.array(1), axis=1, torch=lambda t, x, i: x[:, 1], modes=EVERY),
    Case("Gather", (2, 3, 2), GRID, axis=1, torch=lambda t, x, i: x[:, i], modes=EVERY),
    Case("Gather", (2, 3), GRID, axis=-1, torch=lambda t, x, i: x[:, i], modes=EVERY),
    Case("Gather", (3,), GRID, torch=lambda t, x, i: x[i], modes=EVERY),
    Case(
        "Gather",
        (2, 4, 2),
        np.array([[3, 0], [1, -2]]),
        axis=1,
        torch=lambda t, x, i: x[:, i],
        modes=EVERY,
    ),
    at_run_time("Gather", (3, 2), GRID, torch=lambda t, x, i: x[i], modes=EVERY),
    at_run_time("Gather", (3, 2), ROWS.astype(np.int32), torch=lambda t, x, i: x[i.long()]),
    at_run_time("Gather", (3, 2), np.array(2), torch=lambda t, x, i: x[2], modes=EVERY),
    at_run_time("Gather", (3,), np.array(2), torch=lambda t, x, i: x[2], modes=EVERY),
    at_run_time("Gather", (2, 3, 2), np.array(2), axis=1, torch=lambda t, x, i: x[:, 2]),
    at_run_time("Gather", TABLE, np.array([[299, 5], [7, 5]]), torch=lambda t, x, i: x[i]),
    at_run_time("Gather", (2, 3, 2), GRID, axis=-2, torch=lambda t, x, i: x[:, i]),
    Case(
        "GatherElements",
        (3, 2),
        ELEMENTS,
        torch=lambda t, x, i: x.gather(0, i % 3),
        modes=EVERY,
    ),
    Case(
        "GatherElements",
        (3, 3),
        ELEMENTS,
        axis=-1,
        torch=lambda t, x, i: x.gather(1, i % 3),
        modes=EVERY,
    ),
    Case("GatherND", (3, 2), SPOTS, torch=lambda t, x, i: x[i[:, 0], i[:, 1]], modes=EVERY),
    Case("GatherND", (3, 2, 2), POINTS, torch=lambda t, x, i: x[i[..., 0], i[..., 1]], modes=EVERY),
    Case("GatherND", (3, 2), ints(1), torch=lambda t, x, i: x[1], modes=EVERY),
    Case(
        "GatherND",
        (2, 3, 2),
        BATCHED,
        batch_dims=1,
        torch=lambda t, x, i: t.stack([x[k][i[k, :, 0]] for k in range(2)]),
        modes=EVERY,
    ),
    Case(
        "GatherND",
        (2, 2, 3),
        BATCHED,
        batch_dims=2,
        torch=lambda t, x, i: t.stack(
            [x[j, k, i[j, k, 0]] for j in (0, 1) for k in (0, 1)]
        ).reshape(2, 2),
        modes=EVERY,
    ),
    Case(
        "ScatterND",
        (3, 2),
        SPOTS,
        (3,),
        torch=lambda t, x, i, u: x.index_put((i[:, 0], i[:, 1]), u),
        modes=EVERY,
    ),
    Case(
        "ScatterND",
        (3, 2),
        np.array([[1], [-1], [1]]),
        (3, 2),
        reduction="add",
        torch=lambda t, x, i, u: x.index_put((i[:, 0],), u, accumulate=True),
        modes=EVERY,
    ),
    Case(
        "ScatterElements",
        (3, 2),
        np.array([[0, 1], [-1, 2]]),
        (2, 2),
        torch=lambda t, x, i, u: x.scatter(0, i % 3, u),
        modes=EVERY,
    ),
    Case(
        "ScatterElements",
        (3, 3),
        ELEMENTS,
        (3, 2),
        axis=-1,
        reduction="add",
        torch=lambda t, x, i, u: x.scatter_add(1, i % 3, u),
        modes=EVERY,
    ),
    Case(
        "Compress",
        (2, 3),
        np.array([False, True, True]),
        axis=1,
        torch=lambda t, x, c: x[:, 1:],
        modes=EVERY,
    ),
    Case(
        "Compress",
        (2, 3),
        np.array([False, True, False, False, True]),
        torch=lambda t, x, c: x.reshape(-1)[[1, 4]],
        modes=EVERY,
    ),
    Case(
        "ReverseSequence",
        (3, 2, 2),
        ints(2, 3),
        torch=lambda t, x, n: t.stack([x[[1, 0, 2], 0], x[[2, 1, 0], 1]], 1),
        modes=EVERY,
    ),
    Case(
        "ReverseSequence",
        (2, 3, 2),
        ints(2, 3),
        batch_axis=0,
        time_axis=1,
        torch=lambda t, x, n: t.stack([x[0, [1, 0, 2]], x[1, [2, 1, 0]]]),
        modes=EVERY,
    ),
    Case("OneHot", GRID % 4, np.array(4), (2,), torch=one_hot, modes=EVERY),
    Case(
        "OneHot",
        GRID % 4,
        np.array(4),
        (2,),
        axis=0,
        torch=lambda *x: one_hot(*x).permute(2, 0, 1),
    ),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize("case", [Case, at_run_time])
@settings(max_examples=25)
@given(data=st.data())
def test_gather(case, data):
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    count = data.draw(st.lists(st.integers(0, 2), max_size=2))
    total = int(np.prod(count))
    chosen = data.draw(st.lists(st.integers(-size, size - 1), min_size=total, max_size=total))
    indices = np.array(chosen, np.int64).reshape(count)
    case("Gather", tuple(shape), indices, axis=axis, modes=EVERY).check()


@settings(max_examples=25)
@given(st.data())
def test_elements(data):
    """GatherElements, and ScatterElements with sums."""
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    count = [data.draw(st.integers(1, n)) for n in shape]
    total = int(np.prod(count))
    chosen = data.draw(st.lists(st.integers(-size, size - 1), min_size=total, max_size=total))
    indices = np.array(chosen, np.int64).reshape(count)
    Case("GatherElements", tuple(shape), indices, axis=axis, modes=EVERY).check()
    updates = tuple(count)
    Case("ScatterElements", tuple(shape), indices, updates, axis=axis, reduction="add").check()


@settings(max_examples=25)
@given(st.data())
def test_gather_nd(data):
    """Any number of batch axes and of indexed axes."""
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    batch = data.draw(st.integers(0, len(shape) - 1))
    depth = data.draw(st.integers(1, len(shape) - batch))
    count = [*shape[:batch], *data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=1))]
    columns = [
        data.draw(
            st.lists(
                st.integers(-size, size - 1),
                min_size=int(np.prod(count)),
                max_size=int(np.prod(count)),
            )
        )
        for size in shape[batch : batch + depth]
    ]
    indices = np.array(columns, np.int64).T.reshape(*count, depth)
    Case("GatherND", tuple(shape), indices, batch_dims=batch, modes=EVERY).check()


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("reduction", ["mul", "min", "max"])
def test_other_reductions_are_refused(op, reduction):
    indices = np.zeros((1, 1), np.int64)
    updates = (1, 1) if op == "ScatterElements" else (1, 3)
    case = Case(op, (2, 3), indices, updates, reduction=reduction)
    with pytest.raises(ModelError, match=f"{op} 'node' with reduction '{reduction}'"):
        case.check_.gradients("static")


@pytest.mark.parametrize(("rows", "form"), [(4, "Gemm"), (300, "ScatterElements")])
def test_sums_over_many_equal_indices(rows, form):
    """So many that kernels which add in parallel lose some."""
    indices = np.zeros(20_000, np.int64)
    check = Case("Gather", np.zeros((rows, 8), np.float32), Fixed(indices)).check_
    seed = check._cotangents()["y0"].sum(axis=0, dtype=np.float64)
    found = check.gradients("static")["x0"]
    np.testing.assert_allclose(found[0], seed, rtol=1e-3, atol=1e-2)
    model = check.model()
    model.graph.input.append(helper.make_tensor_value_info("dy", 1, [20_000, 8]))
    pull_back(GraphBuilder(model), {"y0": "dy"}, ["x0"])
    assert form in {node.op_type for node in model.graph.node}
