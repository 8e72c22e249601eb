"""Gradients of resizing."""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.element_types import assert_same_types
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Case, Check, Draw, Fixed, gradient_tests

TORCH = importlib.util.find_spec("torch") is not None
EVERY = ("static", "symbolic", "unranked")
F = np.float32


def linear(node, shape, constants):
    """What onnxruntime's Resize computes, as a matrix: the reference, in any precision."""

    def run(x):
        info = helper.make_tensor_value_info("x0", 1, shape)
        initializers = [helper.make_tensor(n, t, a.shape, a) for n, t, a in constants]
        outputs = [helper.make_empty_tensor_value_info("y0")]
        graph = helper.make_graph([node], "g", [info], outputs, initializers)
        opsets = [helper.make_opsetid("", 23)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return evaluate(model, {"x0": x.astype(F)})["y0"].astype(np.float64)

    @functools.cache
    def parts():
        offset = run(np.zeros(shape))
        basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
        return offset, np.stack([run(unit) - offset for unit in basis])

    def apply(x, *_):
        offset, responses = parts()
        return offset + np.tensordot(x.ravel(), responses, 1)

    return apply


def resizing(
    shape, scales=None, sizes=None, roi=None, *, torch=None, modes=("static", "symbolic"), **given
):
    """A case of Resize."""
    inputs = [
        Fixed(np.array(roi, F)) if roi is not None else None,
        Fixed(np.array(scales, F)) if scales is not None else None,
        np.array(sizes) if sizes is not None else None,
    ]
    while inputs[-1] is None:
        inputs.pop()
    names = ["x0", *("" if value is None else f"x{i}" for i, value in enumerate(inputs, 1))]
    node = helper.make_node("Resize", names, ["y0"], name="node", **given)
    kinds = ((roi, 1, F), (scales, 1, F), (sizes, 7, np.int64))
    constants = [
        (f"x{i}", kind, np.array(value, dtype))
        for i, (value, kind, dtype) in enumerate(kinds, 1)
        if value is not None
    ]
    function = None
    if torch is not None:
        factors = scales[2:] if scales is not None else None
        options = {"scale_factor": factors} if factors else {"size": sizes[2:]}
        function = lambda t, x, *_: t.nn.functional.interpolate(x, **options, **torch)  # noqa: E731
    reference = linear(node, shape, constants)
    return Case("Resize", shape, *inputs, reference=reference, torch=function, modes=modes, **given)


HALF, ALIGN, CORNER = "half_pixel", "align_corners", "asymmetric"


def at(coordinates, mode="linear", **more):
    return {"coordinate_transformation_mode": coordinates, "mode": mode, **more}


FLOOR = at(CORNER, "nearest", nearest_mode="floor")
CASES = [
    resizing((1, 2, 2, 3), [1, 1, 2, 2], **FLOOR, torch={"mode": "nearest"}),
    resizing((1, 2, 2, 3), sizes=[1, 2, 6, 9], **FLOOR, torch={"mode": "nearest"}),
    resizing((1, 1, 3, 4), [1, 1, 1, 2], torch={"mode": "nearest-exact"}),
    resizing((1, 1, 4, 5), sizes=[1, 1, 3, 7], **FLOOR, torch={"mode": "nearest"}),
    resizing((1, 2, 3, 3), [1, 1, 2, 3], **at(HALF), torch={"mode": "bilinear"}),
    resizing((1, 2, 2, 3), sizes=[1, 2, 5, 4], **at(HALF), torch={"mode": "bilinear"}),
    resizing((1, 1, 5, 6), sizes=[1, 1, 2, 3], **at(HALF), torch={"mode": "bilinear"}),
    resizing(
        (1, 1, 3, 3),
        sizes=[1, 1, 6, 5],
        **at(ALIGN),
        torch={"mode": "bilinear", "align_corners": True},
    ),
    resizing((1, 1, 3, 4), sizes=[1, 1, 5, 7], **at(HALF, "cubic"), torch={"mode": "bicubic"}),
    resizing(
        (1, 1, 3, 4),
        [1, 1, 2, 2],
        **at(ALIGN, "cubic"),
        torch={"mode": "bicubic", "align_corners": True},
    ),
    resizing((1, 2, 4), sizes=[1, 2, 7], **at(HALF), torch={"mode": "linear"}),
    resizing((1, 1, 2, 3, 2), sizes=[1, 1, 3, 4, 5], **at(HALF), torch={"mode": "trilinear"}),
    resizing((1, 1, 2, 2, 3), [1, 1, 2, 1, 2], **FLOOR, torch={"mode": "nearest"}),
    resizing(
        (1, 1, 6, 5),
        sizes=[1, 1, 3, 4],
        **at(HALF, antialias=1, exclude_outside=1),
        torch={"mode": "bilinear", "antialias": True},
    ),
    resizing((1, 1, 3, 4), [1, 1, 1.7, 0.6], **at(HALF)),
    resizing((1, 1, 4, 3), [1, 1, 1.1, 2.5], **at(CORNER)),
    resizing((1, 1, 3, 3), [1, 1, 2, 1], **at("pytorch_half_pixel")),
    resizing((1, 1, 4, 3), sizes=[1, 1, 1, 5], **at("pytorch_half_pixel")),
    resizing((1, 1, 4, 3), [1, 1, 1.4, 0.8], **at("half_pixel_symmetric")),
    resizing((1, 1, 4, 3), sizes=[1, 1, 5, 5], **at(HALF, "cubic", cubic_coeff_a=-0.5)),
    resizing((1, 1, 4, 3), sizes=[1, 1, 3, 5], **at(HALF, "cubic", exclude_outside=1)),
    # the last four numbers of the regions are those of the axes resized
    resizing(
        (1, 1, 4, 4),
        sizes=[1, 1, 3, 5],
        roi=[0, 0, 0.2, 0.1, 1, 1, 0.7, 0.9],
        **at("tf_crop_and_resize"),
    ),
    resizing(
        (1, 1, 4, 4),
        sizes=[1, 1, 4, 5],
        roi=[0, 0, -0.3, 0.1, 1, 1, 0.8, 1.4],
        extrapolation_value=3.0,
        **at("tf_crop_and_resize"),
    ),
    resizing(
        (1, 1, 4, 4),
        sizes=[4, 3],
        axes=[2, 3],
        roi=[0.2, 0.1, 0.7, 0.9],
        **at("tf_crop_and_resize", "nearest"),
    ),
    # axes, some of which stay
    resizing((1, 1, 3, 4), sizes=[5, 7], axes=[3, 2], **at(HALF)),
    resizing((1, 2, 3, 2), [2], axes=[-2], **at(HALF)),
    resizing((1, 2, 3, 2), [2, 3], axes=[-1, 2], **FLOOR),
    resizing((2, 3), sizes=[3, 5], **at(HALF)),
    resizing((2, 3), [2, 2], **FLOOR),
    resizing((2, 2, 3), [2, 1, 2], **at(CORNER, "nearest")),
    resizing((2, 3, 2, 1), [1, 2, 1, 2], **FLOOR),
    resizing((2, 3), [1, 1], **FLOOR),
    resizing((1, 1, 1, 1, 2, 2), [1, 1, 1, 1, 2, 3], **FLOOR),
    resizing((1, 1, 2, 3), [1, 1, 1, 3], **at(HALF, "nearest", nearest_mode="floor")),
    resizing((1, 2, 2, 3), [2], axes=[3], **FLOOR),
    resizing((2, 1, 2, 2), sizes=[3, 1, 2, 3]),
    # three axes are all interpolated, the first one too
    resizing((2, 2, 3), sizes=[3, 2, 5], **at(HALF)),
    # scales left empty
    resizing((1, 1, 3, 4), [], [1, 1, 5, 4], **at(HALF)),
    # onnxruntime copies what keeps its shape, though not one axis that does
    resizing((1, 1, 10), [1, 1, 1.05], **at(CORNER), modes=("static",)),
    resizing((1, 2, 3, 10), [1, 1, 2, 1.05], **at(CORNER)),
    resizing((1, 1, 4), sizes=[1, 1, 4], roi=[0, 0, 0.2, 1, 1, 0.7], **at("tf_crop_and_resize")),
    resizing((1, 2, 2, 3), [1, 1, 1, 1], **at(HALF)),
]
test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("coordinates", [HALF, ALIGN, CORNER, "pytorch_half_pixel"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 3], [1, 1, 0.5, 1.5]])
def test_nearest(coordinates, rounding, scales):
    given = at(coordinates, "nearest", nearest_mode=rounding)
    resizing((1, 1, 4, 3), scales, modes=("static", "symbolic"), **given).check()


COORDINATES = (HALF, ALIGN, CORNER, "pytorch_half_pixel", "half_pixel_symmetric")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=2),
    st.lists(st.integers(1, 6), min_size=2, max_size=2),
    st.sampled_from(COORDINATES),
    st.sampled_from(("nearest", "linear", "cubic")),
    st.booleans(),
)
def test_any_resize(before, after, coordinates, mode, scaled):
    given = at(coordinates, mode)
    if scaled:
        # a little more than needed, for sizes are rounded down
        scales = [(made + 0.3) / size for size, made in zip(before, after, strict=True)]
        resizing((1, 1, *before), [1, 1, *scales], **given).check()
    else:
        resizing((1, 1, *before), sizes=[1, 1, *after], **given).check()


def test_sizes_of_another_value():
    """As in U-Nets: resized to what a value on the way down has, known at run time only."""
    nodes = [
        helper.make_node("Shape", ["x1"], ["size"]),
        helper.make_node("Resize", ["x0", "", "", "size"], ["y0"], name="node", mode="linear"),
    ]
    random = np.random.default_rng(1)
    values = {"x0": Draw((2, 2, 3, 2)).values(random), "x1": np.zeros((2, 2, 5, 4), np.int64)}
    node = helper.make_node("Resize", ["x0", "", "", "x3"], ["y0"], mode="linear")
    known = [("x3", 7, np.array([2, 2, 5, 4]))]
    reference = linear(node, (2, 2, 3, 2), known)
    Check(nodes, values, ["y0"], reference=reference).finite_differences()


@pytest.mark.parametrize(
    ("sizes", "given"), [([1, 2, 5, 4], {}), ([4, 5], {"axes": [3, 2]})], ids=["all", "axes"]
)
def test_sizes_at_run_time(sizes, given):
    """No size of the result is known then."""
    shape, sizes = (1, 2, 2, 3), np.array(sizes)
    node = helper.make_node("Resize", ["x0", "", "", "x3"], ["y0"], mode="linear", **given)
    reference = linear(node, shape, [("x3", 7, sizes)])
    infos = [
        helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("x3", TensorProto.INT64, sizes.shape),
    ]
    model = helper.make_model(
        helper.make_graph([node], "g", infos, []),
        opset_imports=[helper.make_opsetid("", 23)],
        ir_version=10,
    )
    found = pull_back(GraphBuilder(model), {"y0": "y0"}, ["x0"])["x0"]
    model.graph.output.append(helper.make_tensor_value_info(found, TensorProto.FLOAT, None))
    x = Draw(shape).values(np.random.default_rng(1))
    units = np.eye(x.size).reshape(-1, *shape)
    expected = [(reference(x) * reference(unit)).sum() for unit in units]
    result = evaluate(model, {"x0": x, "x3": sizes})[found]
    np.testing.assert_allclose(result.ravel(), expected, rtol=1e-4, atol=1e-5)


def test_scales_at_run_time():
    scales = np.array([1, 1, 1.5, 2], F)
    node = helper.make_node("Resize", ["x0", "", "x1"], ["y0"], name="node", mode="linear")
    reference = linear(node, (1, 2, 2, 3), [("x1", 1, scales)])
    values = {"x0": Draw((1, 2, 2, 3)).values(np.random.default_rng(1)), "x1": scales}
    check = Check([node], values, ["y0"], reference=reference)
    found = check.gradients("static", ["x0"])["x0"]
    np.testing.assert_allclose(found, check._numeric()["x0"], rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scales": [1, 1, 1, 2]}, ["AveragePool", "Mul"]),
        ({"scales": [1, 1, 2, 2], **FLOOR}, ["AveragePool", "Mul"]),
        ({"scales": [1, 1, 3, 1], **at(HALF, "nearest")}, ["AveragePool", "Mul"]),
        ({"scales": [1, 1, 2, 1], **at(HALF, "nearest", nearest_mode="floor")}, ["MatMul"]),
        ({"scales": [1, 1, 2, 2], **at(HALF)}, ["MatMul", "MatMul"]),
        ({"scales": [1, 1, 1, 2], **at(HALF)}, ["MatMul"]),
        ({"scales": [1, 1, 1, 1], **FLOOR}, []),
    ],
)
def test_form(given, expected):
    """Plain repetition is undone by pooling, axes that stay cost nothing."""
    builder = GraphBuilder(resizing((1, 1, 2, 3), **given).check_.model("symbolic"))
    pull_back(builder, {"y0": "y0"}, ["x0"])
    work = ("AveragePool", "MatMul", "Mul")
    made = [node.op_type for node in builder.graph.node[1:] if node.op_type in work]
    assert made == expected


@pytest.mark.parametrize(
    ("sizes", "given", "expected"),
    [
        ([1, 1, 2, 6], at(HALF), ["MatMul"]),
        ([1, 1, 4, 9], FLOOR, ["AveragePool", "Mul"]),
        ([1, 1, 5, 3], FLOOR, ["MatMul"]),
    ],
)
def test_form_of_known_sizes(sizes, given, expected):
    builder = GraphBuilder(resizing((1, 1, 2, 3), sizes=sizes, **given).check_.model())
    pull_back(builder, {"y0": "y0"}, ["x0"])
    made = [node.op_type for node in builder.graph.node[1:]]
    assert [kind for kind in made if kind in ("AveragePool", "MatMul", "Mul")] == expected
    assert "Shape" not in made


def test_form_of_rows():
    """A product from the left needs nothing turned."""
    builder = GraphBuilder(resizing((1, 1, 2, 3), [1, 1, 2, 1], **at(HALF)).check_.model())
    pull_back(builder, {"y0": "y0"}, ["x0"])
    assert "Transpose" not in [node.op_type for node in builder.graph.node]


@pytest.mark.parametrize(
    ("scales", "how", "mode"),
    [([1, 1, 1, 2], "linear", "static"), ([1, 1, 1, 1], "nearest", "symbolic")],
)
def test_form_of_cropping(scales, how, mode):
    """What a region does to an axis that keeps its size is the runtime's choice."""
    region = {"roi": [0, 0, 0.2, 0, 1, 1, 0.8, 1], **at("tf_crop_and_resize", how)}
    builder = GraphBuilder(resizing((1, 1, 2, 3), scales, **region).check_.model(mode))
    pull_back(builder, {"y0": "y0"}, ["x0"])
    assert [node.op_type for node in builder.graph.node].count("MatMul") == 4


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_form_of_spatial_axes(rank):
    """onnxruntime pools one to three of them."""
    case = resizing((1, 1, *[2] * (rank - 2)), [1, 1, *[2] * (rank - 2)], **FLOOR)
    builder = GraphBuilder(case.check_.model())
    pull_back(builder, {"y0": "y0"}, ["x0"])
    assert "AveragePool" in [node.op_type for node in builder.graph.node]


def test_form_of_declared_sizes():
    """Axes of equal names stay."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 23]>
        g (float[N,C,2,3] x, int64[4] sizes) => (float[N,C,4,9] y) { y = Resize(x, , , sizes) }"""
    )
    builder = GraphBuilder(model)
    pull_back(builder, {"y": "y"}, ["x"])
    assert "AveragePool" in [node.op_type for node in builder.graph.node]


def test_types_agree_with_the_region():
    region = np.array([0.2, 0.1, 0.7, 0.9])
    case = resizing((1, 1, 4, 4), sizes=[4, 3], axes=[2, 3], roi=region, **at("tf_crop_and_resize"))
    model = case.check_.model()
    (initializer,) = (tensor for tensor in model.graph.initializer if tensor.name == "x1")
    initializer.CopyFrom(numpy_helper.from_array(region, "x1"))
    assert_same_types(model, ["x0"], TensorProto.FLOAT)


@pytest.mark.parametrize("mode", ["static", "symbolic"])
@pytest.mark.parametrize("given", [FLOOR, at(HALF)])
def test_types_agree(given, mode):
    assert_same_types(resizing((1, 1, 2, 3), [1, 1, 2, 2], **given).check_.model(mode), ["x0"])


BATCH = "p = Slice(s, zero, two)"
GATHERED = (
    "n = Gather(s, zero) c = Gather(s, one0) c1 = Unsqueeze(c, zero) p = Concat<axis=0>(n, c1)"
)
CAST = "h = Shape<end=2>(x) i = Cast<to=6>(h) p = Cast<to=7>(i)"
OTHER = "q = Shape(z) p = Slice(q, zero, two)"


@pytest.mark.parametrize(
    ("text", "mode", "products"),
    [
        (BATCH, "linear", 2),
        (BATCH, "nearest", 2),
        (GATHERED, "nearest", 2),
        (CAST, "nearest", 2),
        (OTHER, "nearest", 4),
        (OTHER, "linear", 3),
        ("p = Slice(s, zero, two, zero, one)", "nearest", 2),
        ("p = Slice(s, minus, two)", "nearest", 2),
        ("p = Slice(s, zero, three, zero, two)", "nearest", 4),
        ("p = Gather(s, zeros)", "nearest", 3),
        ("p = Slice(s, one, three)", "nearest", 4),
        ("i = Identity(s) p = Slice(i, zero, two)", "nearest", 2),
        ("q = Shape(z) t = Concat<axis=0>(s, q) p = Gather(t, back)", "nearest", 2),
        ("q = Shape<end=1>(z) r = Shape<start=1,end=2>(x) p = Concat<axis=0>(q, r)", "linear", 2),
        # nothing is known of these
        ("q = Shape<end=2>(x) p = Mul(q, two)", "nearest", 4),
        ("q = Shape(u) p = Slice(q, zero, two)", "nearest", 4),
        ("p = Slice(s, zero, k)", "nearest", 4),
        ("t = Slice(s, zero, k) p = Gather(t, zeros)", "nearest", 4),
        ("p = Gather(s, m)", "nearest", 4),
        ("p = Identity(m)", "nearest", 4),
    ],
)
def test_sizes_taken_from_the_input(text, mode, products):
    """Axes whose size the graph takes from the input itself are not resized."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 23]>
        g (float[N,C,H,W] x, float[N2,C2] z, float[] u, int64[1] k, int64[2] m) => (y)
        <int64[1] zero={{0}}, int64[1] one={{1}}, int64[1] two={{2}}, int64[1] three={{3}},
         int64[1] minus={{-4}}, int64 one0={{1}}, int64[2] zeros={{0,0}}, int64[2] back={{-6,-5}},
         int64[2] hw={{5,7}}> {{
          s = Shape(x)
          {text}
          sizes = Concat<axis=0>(p, hw)
          y = Resize<mode="{mode}">(x, , , sizes)
        }}"""
    )
    builder = GraphBuilder(model)
    before = len(builder.graph.node)
    pull_back(builder, {"y": "y"}, ["x"])
    made = [node.op_type for node in builder.graph.node[before:]]
    assert made.count("MatMul") == products


def test_sizes_of_a_value_of_unknown_rank():
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 23]>
        g (float[N,C,H,W] x, float[] u) => (y) { s = Shape(u) y = Resize(x, , , s) }"""
    )
    builder = GraphBuilder(model)
    pull_back(builder, {"y": "y"}, ["x"])
    assert [node.op_type for node in builder.graph.node].count("MatMul") == 4


def test_aspect_ratio():
    case = resizing((1, 1, 4, 3), sizes=[1, 1, 6, 6], keep_aspect_ratio_policy="not_larger")
    with pytest.raises(ModelError, match="Resize 'node' keeps the aspect ratio"):
        case.check_.gradients("static")
