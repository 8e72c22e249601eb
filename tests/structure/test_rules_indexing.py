"""Operators that pick, place and move indices."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

W = {"w": (6, 8), "v": (8, 3)}


def between(lines: str, sizes: list[int], weights: dict | None = None, **options) -> Case:
    """Nodes from h, sequences [N, 5, 8], to g, between two products with matrices."""
    text = f"h = MatMul(x, w)\n{lines.strip()}\ny = MatMul(g, v)"
    options = {"sample": (5, 6), "opset": 18, **options}
    return Case(text, {**W, **(weights or {})}, sizes, **options)


def images(lines: str, sizes: list[int], weights: dict | None = None, **options) -> Case:
    text = f"h = Conv(x, w)\n{lines.strip()}\ny = Conv(g, v)"
    weights = {"w": (8, 4, 1, 1), "v": (3, 8, 1, 1), **(weights or {})}
    return Case(text, weights, sizes, opset=options.pop("opset", 18), **options)


#: Indices [N, 5, 8] from 0 to 4 that depend on the values.
PLACES = "p0 = MatMul(x, k)\np1 = Abs(p0)\np2 = Min(p1, top)\np = Cast<to=7>(p2)\n"
PLACED = {"k": (6, 8), "top": np.float32(4)}

CASES = {
    "rows by element": between(f"{PLACES}g = GatherElements<axis=1>(h, p)", [8], PLACED),
    "columns by element": between(f"{PLACES}g = GatherElements<axis=2>(h, p)", [], PLACED),
    "fewer columns by element": between(
        f"{PLACES}g = GatherElements<axis=1>(h, p)", [], {**PLACED, "k": (6, 7), "v": (7, 3)}
    ),
    "fewer rows by element": between(
        f"{PLACES}q = Slice(p, zero, two, one)\ng = GatherElements<axis=1>(h, q)",
        [8],
        {**PLACED, "zero": ints(0), "one": ints(1), "two": ints(2)},
    ),
    "written to fewer rows by element": between(
        f"{PLACES}q = Slice(p, zero, two, one)\nu = Slice(h, zero, two, one)\n"
        'g = ScatterElements<axis=1, reduction="add">(h, q, u)',
        [8],
        {**PLACED, "zero": ints(0), "one": ints(1), "two": ints(2)},
    ),
    "written by element": between(
        f"{PLACES}u = Relu(h)\ng = ScatterElements<axis=1>(h, p, u)", [8],
        PLACED,
    ),
    "written to columns by element": between(
        f"{PLACES}u = Relu(h)\ng = ScatterElements<axis=2>(h, p, u)", [], PLACED
    ),
    "slices of samples": between(
        "g = GatherND<batch_dims=0>(h, i)", [8], {"i": np.array([[[0, 4], [0, 1]]])}
    ),
    "slices of each sample": between(
        "z = Shape(x)\nn = Slice(z, first, second)\ns = Concat<axis=0>(n, rest)\n"
        "i = Expand(one, s)\ng0 = GatherND<batch_dims=1>(h, i)\ng = Relu(g0)",
        [8],
        {"one": ints(1), "first": ints(0), "second": ints(1), "rest": ints(2, 1)},
    ),
    "slices of each former channel": between(
        "a = Transpose<perm=[2,1,0]>(h)\nb = GatherND<batch_dims=1>(a, i)\n"
        "g = Transpose<perm=[2,1,0]>(b)",
        [8],
        {"i": np.arange(16).reshape(8, 2, 1) % 5},
        fixed_batch=True,
    ),
    "looked up in front": between(
        "a = Transpose<perm=[2,0,1]>(h)\nb = Gather<axis=-3>(a, i)\n"
        "g = Transpose<perm=[1,2,0]>(b)",
        [3, 5],
        {"i": ints(7, -6, 0), "v": (3, 3)},
    ),
    "rows by element from behind": between(
        f"{PLACES}g = GatherElements<axis=-2>(h, p)", [8], PLACED
    ),
    "written in the old way": images(
        f"{PLACES.replace('MatMul', 'Conv')}u = Relu(h)\ng = Scatter<axis=-2>(h, p, u)", [8],
        {**PLACED, "k": (8, 4, 1, 1)},
        opset=10,
    ),
    "slices of columns": between(
        "a = Transpose<perm=[2,0,1]>(h)\nc = GatherND(a, i)\ng = Transpose<perm=[1,2,0]>(c)",
        [8],  # not the channels, but the picks themselves
        {"i": np.arange(8)[::-1, None].copy()},
    ),
    "written slices": between(
        "g = ScatterND(h, i, u)", [8], {"i": np.array([[[0, 1], [0, 3], [0, 2]]]), "u": (1, 3, 8)}
    ),
    "written into columns": between(
        "a = Transpose<perm=[2,0,1]>(h)\nb = Relu(a)\nc = ScatterND(a, i, b)\n"
        "g = Transpose<perm=[1,2,0]>(c)",
        [],
        {"i": np.arange(8)[::-1, None].copy()},
    ),
    "written into columns from elsewhere": between(
        "a = Transpose<perm=[2,0,1]>(h)\nk = MatMul(x, u)\nb = Transpose<perm=[2,0,1]>(k)\n"
        "c = ScatterND(a, i, b)\ng = Transpose<perm=[1,2,0]>(c)",
        [],
        {"i": np.arange(8)[::-1, None].copy(), "u": (6, 8)},
    ),
    "looked up first": between(
        "a = Transpose<perm=[2,0,1]>(h)\nb = Gather(a, i)\ng = Transpose<perm=[1,2,0]>(b)",
        [3, 5],
        {"i": ints(7, -6, 0), "v": (3, 3)},
    ),
    "looked up in the middle at run time": between(
        f"{PLACES}q = ReduceMax<keepdims=0>(p, j)\ng = Gather<axis=1>(h, q)",
        [8],
        {**PLACED, "j": ints(0, 2)},
    ),
    "first by element": between(
        f"{PLACES}a = Transpose<perm=[1,2,0]>(h)\nb = Transpose<perm=[1,2,0]>(p)\n"
        "c = GatherElements(a, b)\ng = Transpose<perm=[2,0,1]>(c)",
        [8],
        PLACED,
    ),
    "first by element, columns last": between(
        f"{PLACES}a = Transpose<perm=[1,0,2]>(h)\nb = Transpose<perm=[1,0,2]>(p)\n"
        "c = GatherElements(a, b)\ng = Transpose<perm=[1,0,2]>(c)",
        [8],
        PLACED,
    ),
    "one hot at the end": between(
        "b = Abs(h)\nc = Cast<to=7>(b)\nd = OneHot(c, depth, values)\n"
        "g = ReduceMean<keepdims=0>(d, last)",
        [8],
        {"depth": np.int64(3), "values": np.array([0, 1], np.float32), "last": ints(-1)},
    ),
    "triangle of rows": between(
        "a = Transpose<perm=[0,2,1]>(h)\nb = Trilu(a)\ng = Transpose<perm=[0,2,1]>(b)", []
    ),
    "reversed by default": between(
        "z = Shape(x)\nn = Slice(z, first, second)\nl = Expand(two, n)\n"
        "a = Transpose<perm=[1,0,2]>(h)\nb = ReverseSequence(a, l)\n"
        "g = Transpose<perm=[1,0,2]>(b)",
        [8],
        {"two": ints(2), "first": ints(0), "second": ints(1)},
    ),
    "reversed by default, former channels": between(
        "z = Shape(x)\nn = Slice(z, first, second)\nl = Expand(two, n)\n"
        "a = Transpose<perm=[2,0,1]>(h)\nb = ReverseSequence(a, l)\n"
        "g = Transpose<perm=[1,2,0]>(b)",
        [],
        {"two": ints(2), "first": ints(0), "second": ints(1)},
    ),
    "reversed by default, each former channel to a length": between(
        "a = Transpose<perm=[1,2,0]>(h)\nb = ReverseSequence(a, l)\n"
        "g = Transpose<perm=[2,0,1]>(b)",
        [],
        {"l": ints(1, 2, 3, 4, 5, 1, 2, 3)},
        fixed_batch=True,
    ),
    "reversed, each former channel to a length": between(
        "a = Transpose<perm=[2,1,0]>(h)\nb = ReverseSequence<batch_axis=0, time_axis=1>(a, l)\n"
        "g = Transpose<perm=[2,1,0]>(b)",
        [],
        {"l": ints(1, 2, 3, 4, 5, 1, 2, 3)},
        fixed_batch=True,
    ),
    "one hot": between(
        "a = ReduceMax<keepdims=0>(h, two)\nb = Abs(a)\nc = Cast<to=7>(b)\n"
        "d = OneHot<axis=-1>(c, depth, values)\ng = Add(h, d)",
        [],
        {"depth": np.int64(8), "values": np.array([0, 1], np.float32), "two": ints(2)},
    ),
    "one hot in front": between(
        "b = Abs(h)\nc = Cast<to=7>(b)\nd = OneHot<axis=0>(c, depth, values)\n"
        "g = ReduceMean(d, first)",
        [8],
        {"depth": np.int64(3), "values": np.array([0, 1], np.float32), "first": ints(0)},
    ),
    "one hot from behind": between(
        "b = Abs(h)\nc = Cast<to=7>(b)\nd = OneHot<axis=-4>(c, depth, values)\n"
        "g = ReduceMean(d, first)",
        [8],
        {"depth": np.int64(3), "values": np.array([0, 1], np.float32), "first": ints(0)},
    ),
    "triangle": between("g = Trilu<upper=0>(h)", []),
    "triangle of images": images("g = Trilu(h)", [8]),
    "reversed": between(
        "z = Shape(x)\nn = Slice(z, first, second)\nl = Expand(two, n)\n"
        "g = ReverseSequence<batch_axis=0, time_axis=1>(h, l)",
        [8],
        {"two": ints(2), "first": ints(0), "second": ints(1)},
    ),
    "reversed columns": between(
        "z = Shape(x)\nn = Slice(z, first, second)\nl = Expand(two, n)\n"
        "a = Transpose<perm=[0,2,1]>(h)\n"
        "b = ReverseSequence<batch_axis=0, time_axis=1>(a, l)\ng = Transpose<perm=[0,2,1]>(b)",
        [],
        {"two": ints(2), "first": ints(0), "second": ints(1)},
    ),
    "cropped and padded": images("g = CenterCropPad<axes=[2,3]>(h, s)", [8], {"s": ints(4, 7)}),
    "cropped everywhere": images(
        "g = CenterCropPad(h, s)", [], {"s": ints(1, 6, 6, 6), "v": (3, 6, 1, 1)},
        fixed_batch=True,
    ),
    "cropped channels": images(
        "g = CenterCropPad<axes=[1]>(h, s)", [], {"s": ints(6), "v": (3, 6, 1, 1)}
    ),
    "regions": images(
        "g = RoiAlign<output_height=2, output_width=2>(h, r, i)",
        [8],
        {"r": np.array([[0, 0, 4, 4], [1, 1, 5, 5]], np.float32), "i": ints(0, 0)},
    ),
    "largest of regions": images(
        "g = MaxRoiPool<pooled_shape=[2,2]>(h, r)",
        [8],
        {"r": np.array([[0, 0, 0, 4, 4], [0, 1, 1, 5, 5]], np.float32)},
    ),
    "regions of former channels": images(
        "a = Transpose<perm=[0,2,1,3]>(h)\nb = RoiAlign<output_height=8, output_width=6>(a, r, i)\n"
        "g = Transpose<perm=[0,2,1,3]>(b)",
        [],
        {"r": np.array([[0, 0, 4, 4]], np.float32), "i": ints(0)},
    ),
    "regions by former channels": images(
        "a = ReduceMean(h, space)\nb = Squeeze(a, space)\nc = Transpose(b)\nd = Abs(c)\n"
        "r = Concat<axis=1>(low, low, d, d)\n"
        "e = RoiAlign<output_height=2, output_width=2>(x, r, i)\n"
        "g = Transpose<perm=[1,0,2,3]>(e)",
        [8],
        {"space": ints(2, 3), "low": np.zeros((8, 1), np.float32), "i": ints(*[0] * 8)},
        fixed_batch=True,
    ),
    "blocks": images(
        "a = Reshape(h, flat)\nb = Col2Im(a, image, block)\ng = Relu(b)",
        [2],
        {"flat": ints(0, 8, 36), "image": ints(7, 7), "block": ints(2, 2), "v": (3, 2, 1, 1)},
    ),
    "deformed": images(
        "o = Conv(x, k)\nm = Conv(x, l)\n"
        "g = DeformConv<kernel_shape=[1,1]>(h, d, o, b, m)",
        [6, 8],
        {
            "k": (2, 4, 1, 1), "l": (1, 4, 1, 1), "d": (6, 8, 1, 1), "b": (6,), "v": (3, 6, 1, 1),
        },
        opset=19,
    ),
    "deformed former channels": images(
        "a = Transpose<perm=[1,0,2,3]>(h)\nb = DeformConv<kernel_shape=[1,1]>(a, d, o, , m)\n"
        "g = Transpose<perm=[1,0,2,3]>(b)",
        [8],
        {"d": (1, 1, 1, 1), "o": (8, 2, 6, 6), "m": (8, 1, 6, 6)},
        opset=19,
        fixed_batch=True,
    ),
    "deformed in groups": images(
        "o = Conv(x, k)\ng = DeformConv<kernel_shape=[1,1], group=2>(h, d, o)",
        [2, 3, 4],
        {"k": (2, 4, 1, 1), "d": (6, 4, 1, 1), "v": (3, 6, 1, 1)},
        opset=19,
    ),
    "deformed by groups": images(
        "o = Conv(x, k)\ng = DeformConv<kernel_shape=[1,1], offset_group=2>(h, d, o)",
        [4, 6],
        {"k": (4, 4, 1, 1), "d": (6, 8, 1, 1), "v": (3, 6, 1, 1)},
        opset=19,
    ),
}  # fmt: skip
#: Of operators that onnxruntime has no kernel for.
REFERENCE = {
    "cache": between(
        "c = Relu(h)\nu = Slice(h, zero, two, one)\na = TensorScatter<axis=1>(c, u, i)\n"
        "g = Mul(a, h)",
        [8],
        {"zero": ints(0), "one": ints(1), "two": ints(2), "i": ints(3)},
        opset=24,
        ir_version=10,
    ),
    "cache by default": between(
        "c = Relu(h)\nu = Slice(h, zero, two, one)\na = TensorScatter(c, u, i)\ng = Mul(a, h)",
        [8],
        {"zero": ints(0), "one": ints(1), "two": ints(2), "i": ints(3)},
        opset=24,
        ir_version=10,
    ),
    "cache of heads": between(
        "c0 = Reshape(h, heads)\nc = Relu(c0)\nu = Slice(c0, zero, two, one)\n"
        "a0 = TensorScatter<axis=1>(c, u, i)\na = Reshape(a0, whole)\ng = Mul(a, h)",
        [2, 4],
        {
            "zero": ints(0),
            "one": ints(1),
            "two": ints(2),
            "i": ints(3),
            "heads": ints(0, 5, 2, 4),
            "whole": ints(0, 5, 8),
        },
        opset=24,
        ir_version=10,
    ),
    "cache of columns": between(
        "c = Relu(h)\nu = Slice(h, zero, two, two)\na = TensorScatter<axis=2>(c, u, i)\n"
        "g = Mul(a, h)",
        [],
        {"zero": ints(0), "two": ints(2), "i": ints(3)},
        opset=24,
        ir_version=10,
    ),
    "gated": between(
        "a = MatMul(x, k)\ng = SwiGLU(a, h)", [8], {"k": (6, 8)}, opset=28, ir_version=14
    ),
    "as other numbers": between(
        "a = BitCast<to=6>(h)\nb = BitCast<to=1>(a)\ng = Relu(b)", [8], opset=26, ir_version=13
    ),
    "running product over rows": between(
        "g = CumProd(h, a)", [8], {"a": np.int64(1)}, opset=26, ir_version=13
    ),
    "running product over columns": between(
        "g = CumProd(h, a)", [], {"a": np.int64(-1)}, opset=26, ir_version=13
    ),
    "causal convolution": between(
        "t = Transpose<perm=[0,2,1]>(h)\na, s = CausalConvWithState(t, k, b, p)\n"
        "c = ReduceSum(s, two)\nd = Add(a, c)\ng = Transpose<perm=[0,2,1]>(d)",
        [8],
        {"k": (8, 1, 3), "b": (8,), "p": (1, 8, 2), "two": ints(2)},
        opset=27,
        ir_version=13,
    ),
    "cache of former channels": between(
        "c = Transpose<perm=[2,1,0]>(h)\na = TensorScatter(c, u, i)\n"
        "g = Transpose<perm=[2,1,0]>(a)",
        [],
        {"u": (8, 2, 1), "i": ints(3, 0, 1, 2, 3, 0, 1, 2)},
        opset=24,
        ir_version=10,
        fixed_batch=True,
    ),
    "causal convolution over former channels": between(
        "g, _ = CausalConvWithState(h, k)", [], {"k": (5, 1, 3)}, opset=27, ir_version=13
    ),
    "causal convolution of former channels": between(
        "t = Transpose<perm=[2,0,1]>(h)\na, s = CausalConvWithState(t, k, , p)\n"
        "g = Transpose<perm=[1,2,0]>(a)",
        [8],
        {"k": (1, 1, 3), "p": (8, 1, 2)},
        opset=27,
        ir_version=13,
        fixed_batch=True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    batches = (1,) if case.fixed_batch else (1, 3)
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=batches)


@pytest.mark.parametrize("name", REFERENCE)
def test_rule_without_kernel(name: str) -> None:
    case = REFERENCE[name]
    if case.opset > onnx.defs.onnx_opset_version():
        pytest.skip(f"onnx {onnx.__version__} has no opset {case.opset}")
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=(1,), reference=True)
