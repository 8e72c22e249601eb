"""Quantised weights: scales and zero points land on the axes of the stored tensor."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxprune.graph.layers import find_layers

F = np.float32
HEAD = "g (float[M, K] x) => (float[N] y)"
CODES = np.arange(12, dtype=np.int8).reshape(3, 4)


def dequantised(layer, codes):
    """Values of stored codes as the layer's quantization tells them."""
    found = layer.quantization
    scale, zero = np.asarray(found.scale), np.asarray(found.zero_point, np.float64)
    if found.block_size:
        scale, zero = (
            p if p.ndim == 0 else np.repeat(p, found.block_size, found.axis) for p in (scale, zero)
        )
        cut = tuple(slice(0, n) for n in codes.shape)
        scale, zero = (p if p.ndim == 0 else p[cut] for p in (scale, zero))
    elif scale.ndim or zero.ndim:
        shape = [1] * codes.ndim
        shape[found.axis] = -1
        scale, zero = (p.reshape(shape) if p.ndim else p for p in (scale, zero))
    return (codes.astype(np.float64) - zero) * scale


def check(model, name="w", seen="v", **turned):
    """The layer's values, viewed as the graph views them, equal what the graph computes."""
    (layer,) = find_layers(model).layers
    assert layer.name == name
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    (codes,) = (onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)
    expected = dequantised(layer, codes)
    # The same graph fed with its own dequantised values as plain floats must agree.
    del proto.graph.node[-1:]
    del proto.graph.output[:]
    del proto.graph.input[:]
    proto.graph.output.add(name=seen)
    computed = ReferenceEvaluator(proto).run(None, {})[0]
    view = turned.get("view", lambda array: array)
    np.testing.assert_allclose(view(expected), computed, rtol=1e-6)
    return layer


def test_one_scale_for_all(build):
    text = f"{HEAD} {{ v = DequantizeLinear(w, s, z) y = MatMul(x, v) }}"
    layer = check(build(text, w=CODES, s=F(0.5), z=np.int8(3)))
    assert layer.quantization.axis is None
    assert layer.uses[0].roles == ("input", "output")


def test_a_missing_zero_point_is_zero(build):
    text = f"{HEAD} {{ v = DequantizeLinear(w, s) y = MatMul(x, v) }}"
    assert check(build(text, w=CODES, s=F(0.5))).quantization.zero_point == 0


@pytest.mark.parametrize(("axis", "size"), [(0, 3), (1, 4), (-1, 4), (-2, 3)])
def test_scales_along_an_axis(build, axis, size):
    text = f"{HEAD} {{ v = DequantizeLinear<axis = {axis}>(w, s, z) y = MatMul(x, v) }}"
    arrays = {"s": np.linspace(0.1, 1, size, dtype=F), "z": np.arange(size, dtype=np.int8)}
    assert check(build(text, w=CODES, **arrays)).quantization.axis == axis % 2


def test_parameters_behind_identity(build):
    text = f"{HEAD} {{ t = Identity(s) v = DequantizeLinear(w, t) y = MatMul(x, v) }}"
    check(build(text, w=CODES, s=F(0.25)))


def test_a_transpose_before_the_scales(build):
    text = f"{HEAD} {{ t = Transpose(w) v = DequantizeLinear<axis = 0>(t, s) y = MatMul(x, v) }}"
    model = build(text, w=CODES, s=np.linspace(0.1, 1, 4, dtype=F))
    layer = check(model, view=np.transpose)
    assert layer.quantization.axis == 1
    assert layer.uses[0].roles == ("output", "input")


def test_a_transpose_after_the_scales(build):
    text = f"{HEAD} {{ t = DequantizeLinear<axis = 0>(w, s) v = Transpose(t) y = MatMul(x, v) }}"
    model = build(text, w=CODES, s=np.linspace(0.1, 1, 3, dtype=F))
    assert check(model, view=np.transpose).quantization.axis == 0


def test_blocks(build):
    text = f"{HEAD} {{ v = DequantizeLinear<axis = 1, block_size = 2>(w, s, z) y = MatMul(x, v) }}"
    arrays = {"s": np.linspace(0.1, 1, 6, dtype=F).reshape(3, 2), "z": np.ones((3, 2), np.int8)}
    layer = check(build(text, opset=21, w=CODES, **arrays))
    assert (layer.quantization.axis, layer.quantization.block_size) == (1, 2)


def test_blocks_of_a_transposed_tensor(build):
    text = f"""{HEAD} {{ t = Transpose(w)
        v = DequantizeLinear<axis = 0, block_size = 2>(t, s) y = MatMul(x, v) }}"""
    model = build(text, opset=21, w=CODES, s=np.linspace(0.1, 1, 6, dtype=F).reshape(2, 3))
    layer = check(model, view=np.transpose)
    assert (layer.quantization.axis, layer.quantization.block_size) == (1, 2)
    assert layer.quantization.scale.shape == (3, 2)


@pytest.mark.parametrize(
    "kind", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn, np.uint8, np.int16]
)
def test_stored_types(build, kind):
    text = f"{HEAD} {{ v = DequantizeLinear(w, s) y = MatMul(x, v) }}"
    model = build(text, opset=21, w=np.ones((3, 4), kind), s=F(0.5))
    (layer,) = find_layers(model).layers
    assert layer.quantization.scale == 0.5


def test_quantised_floats_are_the_weight_themselves(build):
    text = f"""{HEAD} {{ q = QuantizeLinear(w, s, z) v = DequantizeLinear(q, s, z)
        y = Conv(x, v) }}"""
    model = build(text, w=np.ones((4, 3, 2, 2), F), s=F(0.5), z=np.int8(0))
    (layer,) = find_layers(model).layers
    assert layer.quantization is None
    assert layer.uses[0].roles == ("output", "input", "tap", "tap")


def test_readers_that_agree_share_and_readers_that_differ_are_refused(build):
    text = f"""{HEAD} {{ a = DequantizeLinear(w, s) b = DequantizeLinear(w, t)
        h = MatMul(x, a) y = MatMul(h, b) }}"""
    assert len(find_layers(build(text, w=CODES, s=F(0.5), t=F(0.5))).layers[0].uses) == 2
    scan = find_layers(build(text, w=CODES, s=F(0.5), t=F(0.25)))
    assert not scan.layers
    assert scan.unprunable[0].reason == "its readers give it different scales or zero points"


def test_a_known_scale_wins_over_an_unknown_one(build):
    text = f"{HEAD} {{ h = MatMulInteger(x, w) v = DequantizeLinear(w, s) y = MatMul(x, v) }}"
    assert find_layers(build(text, w=CODES, s=F(0.5))).layers[0].quantization.scale == 0.5


REFUSED = [
    ("v = DequantizeLinear(w, x)", {}, "its scale is made at run time"),
    ("z = Cast<to = 3>(x) v = DequantizeLinear(w, s, z)", {}, "its zero point is made at run time"),
    ("u = DequantizeLinear(w, s) v = DequantizeLinear(u, s)", {}, "it is dequantised twice"),
    ("v = DequantizeLinear<axis = 7>(w, r)", {}, "its scale of shape 4 does not say which axis"),
    ("v = DequantizeLinear<axis = 0>(w, r)", {}, "its 4 scales do not fit its axis of size 3"),
    (
        "t = Reshape(w, a) v = DequantizeLinear<axis = 0>(t, p)",
        {"a": np.array([6, 2]), "p": np.ones(6, F)},
        "its scales run along an axis that a Reshape hides",
    ),
    (
        "t = Slice(w, a, b) v = DequantizeLinear<axis = 0>(t, p)",
        {"a": np.array([0]), "b": np.array([2]), "p": np.ones(2, F)},
        "its scales run along an axis that is cut or joined first",
    ),
    (
        "t = Reshape(w, x) v = DequantizeLinear<axis = 0>(t, r)",
        {},
        "its scales belong to axes that a Reshape hides",
    ),
    (
        "v = DequantizeLinear<axis = 0, block_size = 2>(w, p)",
        {"p": np.ones((3, 4), F)},
        "its scale of shape 3x4 does not fit its own 3x4",
    ),
    ("v = DequantizeLinear(w, p)", {"p": np.ones((2, 1, 2), F)}, "its scale of shape 2x1x2"),
]


@pytest.mark.parametrize(("steps", "arrays", "words"), REFUSED)
def test_scales_that_cannot_be_placed_are_refused(build, steps, arrays, words):
    arrays = {"s": F(0.5), "r": np.ones(4, F), **arrays}
    scan = find_layers(build(f"{HEAD} {{ {steps} y = MatMul(x, v) }}", w=CODES, **arrays))
    assert not scan.layers
    assert scan.unprunable[0].reason.startswith(words)
