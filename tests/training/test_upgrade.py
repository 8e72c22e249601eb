"""Models of old opsets compute the same in the opset of training graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, defs, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.runtime import CannotRun, open_session, random_feeds, run
from onnxprune.training.builder import TRAINING_OPSET, GraphBuilder
from onnxprune.training.upgrade import upgraded
from onnxprune.training.upgrade_operators import CONVERSIONS

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

    Float arrays are inputs, others constants.
    """

    def __init__(self, opset, op, *arrays, expected=None, shapes=True, **attributes):
        names = [f"x{index}" for index in range(len(arrays))]
        given = dict(zip(names, arrays, strict=True))
        self.feeds = {name: value for name, value in given.items() if value.dtype == F}
        constants = {name: value for name, value in given.items() if value.dtype != F}
        node = helper.make_node(op, names, ["y"], name="node", **attributes)
        kept = {name: value for name, value in attributes.items() if value is not None}
        self.text = f"{op}-{opset}({', '.join(f'{k}={v}' for k, v in kept.items())})"
        self.model = model_of([node], self.feeds, constants, opset, shapes=shapes)
        self.expected = expected

    def __str__(self):
        return self.text


X = draw(2, 3, 4)
IMAGE = draw(1, 2, 4, 6)
BOXES = np.array([[0, 0, 3, 3], [1, 1, 4, 2]], F)
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
    Old(5, "Cast", X, to="INT32", expected=lambda x: x.astype(np.int32)),
    Old(3, "Concat", X, X, expected=lambda x, y: np.concatenate([x, y], 1)),
    Old(
        1,
        "GlobalLpPool",
        IMAGE,
        p=2.0,
        expected=lambda x: np.sqrt((x**2).sum((2, 3), keepdims=True)),
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
    Old(9, "TopK", X, k=2, axis=1),
    Old(17, "DFT", draw(2, 4, 1)),
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
        Old(10, "Resize", IMAGE, np.array(scales, np.float64), mode=mode)
        for mode in ("nearest", "linear")
        for scales in ([1, 1, 2, 1.5], [1, 1, 0.5, 0.7], [1, 1, 1, 1])
    ),
    Old(12, "Resize", IMAGE, F([]), F([1, 1, 2, 2]), mode="linear"),
    Old(9, "Scatter", X, np.zeros((1, 3, 4), np.int64), draw(1, 3, 4)),
    Old(10, "RoiAlign", IMAGE, BOXES, ints(0, 0), output_height=2, output_width=2),
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
