"""Models of old opsets compute the same in the opset of training graphs."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, defs, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.runtime import CannotRun, open_session, random_feeds, run
from onnxprune.training.builder import TRAINING_OPSET, GraphBuilder
from onnxprune.training.upgrading.operators import CONVERSIONS
from onnxprune.training.upgrading.upgrade import upgraded

F = np.float32
RANDOM = np.random.default_rng(5)
MISSING = object()


def ints(*values):
    return np.array(values, np.int64)


def draw(*shape):
    return RANDOM.uniform(-2, 2, shape).astype(F)


def model_of(nodes, feeds, constants, opset, outputs=("y",), shapes=True, **options):
    """A model whose inputs are `feeds`; initializers of old formats are inputs too."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape if shapes else None
        )
        for name, value in feeds.items()
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, results, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **options)


def results_of(model: ModelProto, feeds):
    return run(open_session(model.SerializeToString(), threads=1), feeds)


class Old:
    """A node of an old opset, what it is fed, and what it gives where nothing runs it any more.

    Float arrays are inputs, others (and those at the positions `fixed`) constants.
    """

    def __init__(
        self,
        opset,
        op,
        *arrays,
        expected=None,
        shapes=True,
        fixed=(),
        dtype=1,
        more=(),
        **attributes,
    ):
        names = [f"x{index}" for index in range(len(arrays))]
        given = dict(zip(names, arrays, strict=True))
        changing = [i for i, value in enumerate(arrays) if value.dtype == F and i not in fixed]
        self.feeds = {names[i]: arrays[i] for i in changing}
        constants = {name: value for name, value in given.items() if name not in self.feeds}
        node = helper.make_node(op, names, ["y", *more], name="node", **attributes)
        self.text = f"{op}-{opset}({', '.join(f'{k}={v}' for k, v in attributes.items())})"
        self.model = model_of([node], self.feeds, constants, opset, shapes=shapes)
        self.model.graph.output[0].type.tensor_type.elem_type = dtype
        self.expected = expected

    def __str__(self):
        return self.text


X = draw(2, 3, 4)
IMAGE = draw(1, 2, 4, 6)
GRID = RANDOM.uniform(-1, 1, (1, 3, 3, 2)).astype(F)
MEANS = [draw(3), draw(3), draw(3), np.abs(draw(3)) + F(0.5)]
PLACED = [abs(draw(3, 4)) + F(0.5) for _ in range(4)]


def group_norm(x, scale, bias):
    parts = x.reshape(2, 2, -1)
    parts = parts - parts.mean(2, keepdims=True)
    parts /= np.sqrt((parts**2).mean(2, keepdims=True) + 1e-5)
    per_group = (parts.reshape(2, 2, 2, -1) * scale[:, None, None]) + bias[:, None, None]
    return per_group.reshape(x.shape)


def normal_per_element(x, scale, bias, mean, variance):
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias


OLD = [
    Old(6, "Add", X, draw(3), broadcast=1, axis=1, expected=lambda x, y: x + y[:, None]),
    Old(6, "Mul", X, draw(3, 4), broadcast=1, expected=lambda x, y: x * y),
    Old(6, "Sub", X, draw(3), broadcast=1, axis=-2, expected=lambda x, y: x - y[:, None]),
    Old(5, "Add", X, X, consumed_inputs=[0, 0], expected=lambda x, y: x + y),
    Old(6, "PRelu", X, draw(3), expected=lambda x, s: np.where(x < 0, x * s[:, None], x)),
    Old(6, "PRelu", X, draw(1), expected=lambda x, s: np.where(x < 0, x * s, x)),
    Old(
        6, "Gemm", draw(2, 3), draw(3, 4), draw(4), broadcast=1, expected=lambda a, b, c: a @ b + c
    ),
    Old(5, "Selu", X, expected=lambda x: 1.0507 * np.where(x < 0, 1.6732 * np.expm1(x), x)),
    Old(5, "Cast", X, to="INT32", dtype=TensorProto.INT32, expected=lambda x: x.astype(np.int32)),
    Old(3, "Concat", X, X, expected=lambda x, y: np.concatenate([x, y], 1)),
    Old(
        1,
        "GlobalLpPool",
        IMAGE,
        p=2.0,
        expected=lambda x: np.sqrt((x**2).sum((2, 3), keepdims=True)),
    ),
    Old(
        *(6, "RNN", draw(1, 2, 3), draw(1, 4, 3), draw(1, 4, 4)),
        hidden_size=4,
        output_sequence=1,
        expected=lambda x, w, _: np.tanh(x @ w[0].T)[:, None],
    ),
    Old(21, "GlobalLpPool", IMAGE),
    Old(21, "GlobalLpPool", IMAGE, p=1),
    Old(21, "GlobalLpPool", IMAGE, p=3),
    Old(
        1,
        "LpPool",
        IMAGE,
        p=2.0,
        kernel_shape=[1, 2],
        expected=lambda x: np.sqrt(x[..., 1:] ** 2 + x[..., :-1] ** 2),
    ),
    Old(4, "Reshape", X, shape=[4, 6], expected=lambda x: x.reshape(4, 6)),
    Old(
        5,
        "Tile",
        X,
        np.array([3], F),
        np.array([1], F),
        expected=lambda x, *_: np.tile(x, (1, 3, 1)),
    ),
    Old(5, "Clip", X, min=-1.0, max=1.0, consumed_inputs=[0], expected=lambda x: x.clip(-1, 1)),
    Old(7, "Clip", X, max=0.5),
    Old(10, "Clip", X),
    Old(6, "Dropout", X, is_test=1, ratio=0.3, expected=lambda x: x),
    Old(7, "Dropout", X, ratio=0.3),
    Old(10, "Dropout", X),
    Old(
        1,
        "Pad",
        X,
        paddings=[0, 1, 0, 0, 0, 2],
        expected=lambda x: np.pad(x, [(0, 0), (1, 0), (0, 2)]),
    ),
    Old(10, "Pad", X, pads=[0, 1, 0, 0, 0, 2], value=0.5),
    Old(10, "Pad", X, pads=[0, 1, 0, 0, 0, 2], mode="reflect"),
    Old(9, "Slice", X, starts=[1, -3], ends=[2, 99], axes=[1, 2]),
    Old(9, "Slice", X, starts=[1], ends=[2]),
    Old(1, "Split", X, np.array([3], F), axis=1, expected=lambda x, _: x),
    Old(11, "Split", X, split=[2]),
    Old(13, "Split", X),
    Old(11, "Squeeze", draw(1, 3, 1), axes=[0]),
    Old(11, "Squeeze", draw(1, 3, 1)),
    Old(11, "Unsqueeze", X, axes=[0, -1]),
    Old(12, "ReduceSum", X, axes=[1], keepdims=0),
    Old(12, "ReduceSum", X),
    *(
        Old(17, f"Reduce{kind}", X, axes=[0, 2])
        for kind in ("Mean", "Max", "L1", "L2", "SumSquare")
    ),
    *(
        Old(17, f"Reduce{kind}", abs(X), axes=[1])
        for kind in ("Min", "Prod", "LogSum", "LogSumExp")
    ),
    Old(9, "TopK", X, k=2, axis=1, more=["indices"]),
    Old(17, "DFT", draw(2, 3, 4, 1)),
    *(Old(11, kind, X) for kind in ("Softmax", "LogSoftmax", "Hardmax")),
    Old(11, "Softmax", X, shapes=False),
    Old(11, "Softmax", X, axis=0),
    Old(11, "Softmax", X, axis=2),
    Old(11, "Softmax", X, axis=-2),
    Old(11, "Softmax", X, axis=-1, shapes=False),
    Old(11, "Softmax", draw(2, 3, 1, 1)),
    Old(
        6,
        "BatchNormalization",
        X,
        *MEANS,
        is_test=1,
        expected=lambda x, *s: normal_per_element(x, *(v[:, None] for v in s)),
    ),
    Old(9, "BatchNormalization", X, *MEANS, epsilon=1e-2),
    Old(7, "BatchNormalization", X, *PLACED, spatial=0, expected=normal_per_element),
    Old(
        18, "GroupNormalization", draw(2, 4, 3), draw(2), draw(2), num_groups=2, expected=group_norm
    ),
    Old(18, "GroupNormalization", draw(2, 4, 3), draw(4), draw(4), num_groups=4),
    Old(1, "Upsample", IMAGE, height_scale=2.0, width_scale=1.0, expected=lambda x: x.repeat(2, 2)),
    Old(7, "Upsample", IMAGE, scales=[1.0, 1.0, 2.0, 3.0]),
    Old(8, "Upsample", IMAGE, scales=[1.0, 1.0, 2.0, 1.5], mode="linear"),
    Old(9, "Upsample", IMAGE, F([1, 1, 2.5, 2])),
    *(
        Old(10, "Resize", IMAGE, F(scales), fixed=[1], mode=mode)
        for mode in ("nearest", "linear")
        for scales in ([1, 1, 2, 1.5], [1, 1, 0.5, 0.7], [1, 1, 1, 1])
    ),
    Old(12, "Resize", IMAGE, F([]), F([1, 1, 2, 2]), mode="linear"),
    Old(9, "Scatter", X, np.zeros((1, 3, 4), np.int64), draw(1, 3, 4)),
    *(Old(16, "GridSample", IMAGE, GRID, mode=mode) for mode in ("bilinear", "bicubic", "nearest")),
    Old(7, "Affine", X, alpha=2.0, beta=0.5),
    Old(7, "ScaledTanh", X, alpha=2.0, beta=0.5),
    Old(7, "ParametricSoftplus", X, alpha=2.0, beta=0.5),
    Old(7, "Scale", X, scale=2.0, expected=lambda x: 2 * x),
    Old(7, "ImageScaler", IMAGE, scale=2.0, bias=[0.5, -1.0]),
    Old(7, "ImageScaler", IMAGE, scale=2.0, expected=lambda x: 2 * x),
    Old(7, "Crop", IMAGE, border=[1, 0, 2, 1]),
    Old(7, "Crop", IMAGE, border=[1, 0, 2, 1], scale=[2, 3]),
]


@pytest.mark.parametrize("case", OLD, ids=str)
def test_same_results(case):
    model = upgraded(case.model)
    assert model.opset_import[0].version == TRAINING_OPSET
    (found,) = results_of(model, case.feeds)
    if case.expected is not None:
        expected = case.expected(*case.feeds.values())
    else:
        (expected,) = results_of(case.model, case.feeds)
    assert found.dtype == expected.dtype or case.expected
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


REFUSED = [
    (Old(8, "Scan", X), "Scan 'node' of opset 8"),
    (Old(9, "RoiAlign", IMAGE, draw(1, 4), ints(0)), "no kernel"),
    (Old(1, "LpPool", IMAGE, p=2.5, kernel_shape=[1, 1]), "no norm 2.5"),
    (Old(5, "Cast", X, to="NUMBER"), "'NUMBER' is not an element type"),
    (Old(9, "FC", X), "FC 'node' of opset 9 .* has no such operator"),
    (Old(9, "Relu", X, slope=1.0), "knows no attribute 'slope'"),
    (Old(9, "Relu", X, X), "fewer inputs or outputs"),
    (Old(6, "Add", X, draw(3), broadcast=1, axis=1, shapes=False), "the rank of 'x0' is unknown"),
    (Old(18, "GroupNormalization", X, X, X, num_groups=1, shapes=False), "rank of 'x0' is unknown"),
    (Old(10, "Resize", IMAGE, F([1, 1, 2, 0.5]), fixed=[1]), "one axis larger and another"),
    (
        Old(
            *(12, "Resize", IMAGE, F([]), F([1, 1, 2, 2])),
            coordinate_transformation_mode="tf_half_pixel_for_nn",
        ),
        "tf_half_pixel_for_nn",
    ),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=str)
def test_refusals(case, reason):
    with pytest.raises(ModelError, match=reason):
        upgraded(case.model)


@pytest.mark.parametrize(("op", "extra"), [("Dropout", 0), ("BatchNormalization", 4)])
def test_further_outputs_that_are_read(op, extra):
    """Masks that are no booleans, and batch statistics."""
    node = helper.make_node(op, ["x", *"abcd"[:extra]], ["y", "second"])
    scales = dict.fromkeys("abcd"[:extra], draw(3))
    unread = model_of([node], {"x": X}, scales, 7)
    assert list(upgraded(unread).graph.node[-1].output) == ["y"]
    read = model_of([node], {"x": X}, scales, 7, outputs=("y", "second"))
    with pytest.raises(ModelError, match=f"{op} '{op}_0' of opset 7"):
        upgraded(read)


def test_no_opset():
    model = ModelProto(graph=Old(9, "Relu", X).model.graph, ir_version=3)
    with pytest.raises(ModelError, match="does not say which opset"):
        upgraded(model)


def test_every_change_of_the_standard_is_known():
    """Each version of an operator that does not take the nodes of the one before."""
    history = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= TRAINING_OPSET:
            history.setdefault(schema.name, []).append(schema)
    for op_type, schemas in history.items():
        schemas.sort(key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(schemas):
            if not _takes(new, old):
                steps = [version for version, _ in CONVERSIONS.get(op_type, [])]
                assert any(version >= new.since_version for version in steps), op_type


def _takes(new, old):
    renamed = [(a.name, b.name) for a, b in zip(old.inputs, new.inputs, strict=False)]
    same = all(
        name in new.attributes
        and new.attributes[name].type == attribute.type
        and (attribute.required or new.attributes[name].default_value == attribute.default_value)
        for name, attribute in old.attributes.items()
    )
    required = {name for name, attribute in new.attributes.items() if attribute.required}
    known = {name for name, attribute in old.attributes.items() if attribute.required}
    kept = len(new.inputs) >= len(old.inputs) and new.min_input <= old.min_input
    return (
        same
        and required <= known
        and kept
        and not new.deprecated
        and all(a == b for a, b in renamed)
    )


# ---- whole models --------------------------------------------------------------------------

BRANCHES = """
    <ir_version: 8, opset_import: ["" : 11]>
    g (bool flag, float[2, 3, 4] x) => (float[?, ?] y)
    {
        y = If(flag) <
            then_branch = t () => (float[6, 4] a) {
                shape = Constant<value = int64[2] {6, 4}>()
                flat = Reshape(x, shape)
                a = Softmax<axis = 1>(flat)
            },
            else_branch = e () => (float[2, 12] b) {
                soft = Softmax<axis = 1>(x)
                shape = Constant<value = int64[2] {2, 12}>()
                b = Reshape(soft, shape)
            }>
    }
"""


@pytest.mark.parametrize("flag", [True, False])
def test_bodies(flag):
    model = onnx.parser.parse_model(BRANCHES)
    feeds = {"flag": np.array(flag), "x": X}
    np.testing.assert_allclose(
        results_of(upgraded(model), feeds)[0], results_of(model, feeds)[0], atol=1e-6
    )


FUNCTIONS = """
    <ir_version: 8, opset_import: ["" : 11, "own" : 1]>
    g (float[2, 3, 4] x) => (float[?, ?, ?] y)
    {
        half = own.normal<by = 1>(x)
        y = own.normal<by = 2>(half)
    }
    <opset_import: ["" : OPSET, "com.microsoft" : 1], domain: "own">
    normal <by> (v) => (w)
    {
        soft = Softmax<axis : int = @by>(v)
        w = com.microsoft.Gelu(soft)
    }
"""


def test_functions():
    model = onnx.parser.parse_model(FUNCTIONS.replace("OPSET", "11"))
    expected = results_of(model, {"x": X})[0]
    found = upgraded(model)
    assert not found.functions
    np.testing.assert_allclose(results_of(found, {"x": X})[0], expected, atol=1e-6)


def test_functions_of_another_opset():
    text = FUNCTIONS.replace("OPSET", "12").replace("Softmax<axis : int = @by>", "Relu")
    model = onnx.parser.parse_model(text)
    found = results_of(upgraded(model), {"x": X})[0]
    gelu = Old(22, "Gelu", np.maximum(X, 0))
    expected = results_of(gelu.model, gelu.feeds)[0]
    expected = Old(22, "Gelu", expected)
    np.testing.assert_allclose(found, results_of(expected.model, expected.feeds)[0], atol=1e-6)
    model = onnx.parser.parse_model(FUNCTIONS.replace("OPSET", "12"))
    with pytest.raises(ModelError, match="'axis' is decided by the caller"):
        upgraded(model)


def test_names_stay():
    """Those of inputs, outputs, weights, nodes and of all values, whatever is put between."""
    nodes = [
        helper.make_node("Unsqueeze", ["upgrade_0"], ["wide"], name="first", axes=[0]),
        helper.make_node("Softmax", ["wide"], ["soft"], name="second", axis=1),
        helper.make_node("Mul", ["soft", "weight"], ["y"], name="third"),
        helper.make_node("Gelu", ["y"], ["z"], name="fourth", domain="com.microsoft"),
    ]
    feeds = {"upgrade_0": X}
    model = model_of(nodes, feeds, {"weight": draw(4)}, 11, outputs=("y", "z"))
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("weight", 1, [4]))
    before = model.SerializeToString()
    found = upgraded(model)
    assert model.SerializeToString() == before
    assert [info.name for info in found.graph.input] == ["upgrade_0"]
    assert [info.name for info in found.graph.output] == ["y", "z"]
    assert found.graph.initializer[0] == model.graph.initializer[0]
    assert {"first", "second", "third", "fourth"} <= {node.name for node in found.graph.node}
    assert {"wide", "soft"} <= {name for node in found.graph.node for name in node.output}
    GraphBuilder(found)
    for one, other in zip(results_of(found, feeds), results_of(model, feeds), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_constants_take_the_type_of_the_value():
    """Bounds, also where inference does not know the type."""
    for domain in ("", "com.microsoft"):
        nodes = [
            helper.make_node("Gelu" if domain else "Relu", ["x"], ["v"], domain=domain),
            helper.make_node("Clip", ["v"], ["y"], max=0.5),
        ]
        model = model_of(nodes, {"x": X.astype(np.float16)}, {}, 7)
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        found = upgraded(model)
        assert found.graph.node[-1].input[1] == ""
        assert "CastLike" in {node.op_type for node in found.graph.node}
        onnx.shape_inference.infer_shapes(found, check_type=True, strict_mode=True)


def test_newer_models_stay():
    model = Old(24, "Relu", X).model
    assert upgraded(model).opset_import[0].version == 24


def test_real_models(zoo):
    """Every model that onnxruntime runs gives the same results, up to rounding."""
    compared = 0
    for path in sorted(zoo.glob("*.onnx")):
        try:
            session = open_session(path, threads=1)
        except CannotRun:
            continue
        model = onnx.load(path)
        found = upgraded(model)
        kept = {tensor.name for tensor in found.graph.initializer}
        assert {tensor.name for tensor in model.graph.initializer} <= kept
        compared += _same(path.name, session, open_session(found.SerializeToString(), threads=1))
    assert compared


def _same(name, before, after):
    """Compare two sessions on the first random inputs that the first one takes."""
    for feeds in random_feeds(before):
        try:
            expected = run(before, feeds)
        except CannotRun:
            continue
        for one, other in zip(run(after, feeds), expected, strict=True):
            if isinstance(other, np.ndarray) and other.dtype.kind == "f":
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=name)
            else:
                assert np.array_equal(one, other), name
        return 1
    return 0
