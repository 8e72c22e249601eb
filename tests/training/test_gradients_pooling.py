"""Gradients of pooling."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Case, Check, Draw, relative_error

TORCH = importlib.util.find_spec("torch") is not None
EVERY = ("static", "symbolic", "unranked")


def settle(kernel, given):
    """Strides, dilations and pads of a pooling node."""
    rank = len(kernel)
    return (
        given.get("strides", [1] * rank),
        given.get("dilations", [1] * rank),
        given.get("pads", [0] * 2 * rank),
    )


def count(size, width, stride, dilation, before, after, ceil):
    """Number of positions of a window along an axis."""
    room = size + before + after - (width - 1) * dilation - 1
    found = (-(-room // stride) if ceil else room // stride) + 1
    return found - 1 if ceil and (found - 1) * stride >= size + before else found


def windows(shape, kernel, given):
    """For every position, row by row: the flat indices it reads, and how many it counts."""
    strides, dilations, pads = settle(kernel, given)
    rank = len(kernel)
    axes = []
    for axis, (size, width, stride, dilation) in enumerate(
        zip(shape, kernel, strides, dilations, strict=True)
    ):
        before, after = pads[axis], pads[axis + rank]
        number = count(size, width, stride, dilation, before, after, given.get("ceil_mode", 0))
        reads = []
        for position in range(number):
            at = position * stride - before + np.arange(width) * dilation
            reads.append((at[(at >= 0) & (at < size)], int((at < size + after).sum())))
        axes.append(reads)
    sizes = [len(reads) for reads in axes]
    found = []
    for index in np.ndindex(*sizes):
        chosen = [axes[axis][place] for axis, place in enumerate(index)]
        grid = np.meshgrid(*(places for places, _ in chosen), indexing="ij")
        flat = np.ravel_multi_index([part.ravel() for part in grid], shape)
        found.append((flat, math.prod(counted for _, counted in chosen)))
    return sizes, found


def pool(function, kernel, given):
    """Pooling in numpy: `function` gets the values of a window and the number it counts."""

    def run(x):
        sizes, parts = windows(x.shape[2:], kernel, given)
        rows = x.reshape(*x.shape[:2], -1)
        y = np.stack([function(rows[..., flat], counted) for flat, counted in parts], axis=-1)
        return y.reshape(*x.shape[:2], *sizes)

    return run


def mean(with_pads):
    return lambda part, counted: part.sum(-1) / (counted if with_pads else part.shape[-1])


def norm(power):
    return lambda part, counted: (np.abs(part) ** power).sum(-1) ** (1 / power)


class PoolCheck(Check):
    def model(self, mode="static"):
        model = super().model("static" if mode == "batch" else mode)
        if mode == "batch":
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        return model

    def check(self):
        forward = evaluate(self.model(), dict(self.values))["y0"]
        expected = self._forward()["y0"]
        assert forward.shape == expected.shape
        assert relative_error(forward, expected) < 1e-5, "the reference is not onnxruntime's"
        self.finite_differences()
        if TORCH and self.torch:
            self.pytorch()


def pooling(op, shape, kernel, *, pads=None, torch=None, modes=EVERY, **attributes):
    """A check of a pooling operator; with auto_pad, `pads` are those that it amounts to."""
    values = {"x0": Draw(shape, distinct=True).values(np.random.default_rng(5))}
    known = {**attributes, **({"pads": pads} if pads else {})}
    shown = {key: value for key, value in known.items() if key != "pads" or "auto_pad" not in known}
    function = {
        "MaxPool": lambda part, counted: part.max(-1),
        "AveragePool": mean(attributes.get("count_include_pad", 0)),
        "LpPool": norm(attributes.get("p", 2)),
    }[op]
    node = helper.make_node(op, ["x0"], ["y0"], name="node", kernel_shape=kernel, **shown)
    return PoolCheck(
        [node],
        values,
        ["y0"],
        reference=pool(function, kernel, known),
        torch=torch,
        modes=("batch", *modes),
    )


def torch_max(kernel, given):
    """PyTorch's, with padding of its own: any on each side."""

    def run(t, x):
        rank = len(kernel)
        strides, dilations, pads = settle(kernel, given)
        around = [pad for i in reversed(range(rank)) for pad in (pads[i], pads[i + rank])]
        function = getattr(t.nn.functional, f"max_pool{rank}d")
        x = t.nn.functional.pad(x, around, value=-1e3)
        return function(x, kernel, strides, 0, dilations, bool(given.get("ceil_mode", 0)))

    return run


def torch_average(kernel, given):
    def run(t, x):
        rank = len(kernel)
        strides, _, pads = settle(kernel, given)
        assert pads[:rank] == pads[rank:]
        function = getattr(t.nn.functional, f"avg_pool{rank}d")
        ceil, counted = (bool(given.get(n, 0)) for n in ("ceil_mode", "count_include_pad"))
        return function(x, kernel, strides, pads[:rank], ceil, counted)

    return run


def against_torch(op, shape, kernel, **given):
    function = {"MaxPool": torch_max, "AveragePool": torch_average}[op]
    return pooling(op, shape, kernel, torch=function(kernel, given), **given)


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
    "dilated": ((1, 1, 7, 6), [3, 2], {"dilations": [2, 3], "pads": [1, 1, 0, 0]}),
    "dilated stride": ((2, 1, 9), [3], {"dilations": [2], "strides": [2], "pads": [2, 1]}),
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


def test_max_pool_that_only_gives_indices():
    node = helper.make_node("MaxPool", ["x"], ["", "places"], kernel_shape=[2])
    used = helper.make_node("Cast", ["places"], ["y"], to=1)
    infos = [helper.make_tensor_value_info("x", 1, (1, 1, 4))]
    graph = helper.make_graph([node, used], "g", infos, [])
    builder = GraphBuilder(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    assert pull_back(builder, {"y": "y"}, ["x"]) == {}


@pytest.mark.parametrize(
    ("strides", "expected"), [([2, 2], "MaxUnpool"), ([1, 2], "ScatterElements")]
)
def test_form_of_max_pool(strides, expected):
    check = pooling("MaxPool", (1, 1, 4, 4), [2, 2], strides=strides)
    assert expected in forms(check)


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
    assert found & {"Resize", "AveragePool", "ConvTranspose"} == {expected}


def forms(check):
    builder = GraphBuilder(check.model("batch"))
    before = len(builder.graph.node)
    pull_back(builder, {"y0": "y0"}, ["x0"])
    return {node.op_type for node in builder.graph.node[before:]}


def test_same_with_dilations():
    check = pooling(
        "AveragePool", (1, 1, 7), [3], auto_pad="SAME_UPPER", dilations=[2], pads=[2, 2]
    )
    with pytest.raises(ModelError, match="AveragePool 'node' has auto_pad and dilations"):
        check.gradients("static")


# ---- global pooling and unpooling --------------------------------------------------------------

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
