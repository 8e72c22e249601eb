"""Operators of onnxruntime that are several standard ones, and old experimental ones."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, helper

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

MS = {"com.microsoft": 1}
W = {"w": (8, 4, 1, 1), "b": (8,), "v": (3, 8, 1, 1)}
M = {"w": (6, 8), "v": (8, 3)}


def images(lines: str, sizes: list[int], weights: dict | None = None, **options) -> Case:
    text = f"h = Conv(x, w, b)\n{lines}\ny = Conv(g, v)"
    return Case(text, {**W, **(weights or {})}, sizes, domains=MS, **options)


def words(lines: str, sizes: list[int], weights: dict | None = None, **options) -> Case:
    text = f"h = MatMul(x, w)\n{lines}\ny = MatMul(g, v)"
    weights = {**M, **(weights or {})}
    return Case(text, weights, sizes, (5, 6), domains=MS, **options)


CASES = {
    "convolution": images(
        'g = com.microsoft.FusedConv<activation="Relu">(h, k, c)',
        [6, 8],
        {"k": (6, 8, 1, 1), "c": (6,), "v": (3, 6, 1, 1)},
    ),
    "convolution in groups": images(
        'g = com.microsoft.FusedConv<activation="Relu", group=8>(h, k)', [8], {"k": (8, 1, 1, 1)}
    ),
    "convolution and sum": images(
        'a = Conv(x, k)\ng = com.microsoft.FusedConv<activation="Relu">(h, m, c, a)',
        [6, 8],
        {"k": (6, 4, 1, 1), "m": (6, 8, 1, 1), "c": (6,), "v": (3, 6, 1, 1)},
    ),
    "matmul": words(
        "a = com.microsoft.FusedMatMul<alpha=0.5>(h, k)\n"
        "t = Transpose<perm=[0,2,1]>(a)\n"
        "c = com.microsoft.FusedMatMul<transA=1>(t, u)\n"
        "g = com.microsoft.FusedMatMul<transB=1>(c, r)",
        [7, 8, 9, 10],
        {"k": (8, 7), "u": (7, 9), "r": (10, 9), "v": (10, 3)},
    ),
    "matmul that moves its batch": words(
        "a = Reshape(h, s)\nt = com.microsoft.FusedMatMul<transBatchA=1>(a, k)\n"
        "c = ReduceMean<axes=[0], keepdims=0>(t)\ng = Relu(c)",
        [],
        {"k": (1, 5, 8, 8), "s": ints(-1, 1, 5, 8)},
    ),
    "gemm": Case(
        'h = com.microsoft.FusedGemm<activation="Relu", transB=1>(x, w, b)\n'
        "t = Transpose(h)\n"
        'y = com.microsoft.FusedGemm<activation="Relu", transA=1>(t, v, c)',
        {"w": (8, 6), "b": (8,), "v": (8, 3), "c": (3,)},
        [8],
        (6,),
        domains=MS,
    ),
    "bias and activation": words(
        "a = com.microsoft.BiasGelu(h, b)\nc = com.microsoft.FastGelu(a, b)\n"
        "g = com.microsoft.QuickGelu(c)",
        [8],
        {"b": (8,)},
    ),
    "sum and normalization": words(
        "t = Transpose<perm=[0,2,1]>(h)\nr = Relu(t)\n"
        "a, m, i, s = com.microsoft.SkipLayerNormalization(t, r, p, q, u)\n"
        "c = Mul(a, s)\ng = Transpose<perm=[0,2,1]>(c)",
        [8],
        {"p": (5,), "q": (5,), "u": (5,)},
    ),
    "sum and normalization of channels": words(
        "r = Relu(h)\ng = com.microsoft.SkipLayerNormalization(h, r, p)", [], {"p": (8,)}
    ),
    "sum and root mean square": words(
        "t = Transpose<perm=[0,2,1]>(h)\nr = Relu(t)\n"
        "a = com.microsoft.SkipSimplifiedLayerNormalization(t, r, p)\n"
        "g = Transpose<perm=[0,2,1]>(a)",
        [8],
        {"p": (5,)},
    ),
    "root mean square": words(
        "t = Transpose<perm=[0,2,1]>(h)\na = SimplifiedLayerNormalization(t, p)\n"
        "g = Transpose<perm=[0,2,1]>(a)",
        [8],
        {"p": (5,)},
    ),
    "tables and normalization": Case(
        "a = Cast<to=6>(x)\nc = Abs(a)\ni = Min(c, top)\n"
        "h, m = com.microsoft.EmbedLayerNormalization(i, s, t, p, q, r, u)\n"
        "d = MatMul(h, w)\ne = Tanh(d)\ny = MatMul(e, v)",
        {
            "top": np.int32(8), "s": np.zeros((1, 5), np.int32), "t": (9, 6), "p": (7, 6),
            "q": (2, 6), "r": (6,), "u": (6,), **M,
        },
        [8],
        (5,),
        domains=MS,
    ),
    "tables and normalization, without segments": Case(
        "a = Cast<to=6>(x)\nc = Abs(a)\ni = Min(c, top)\n"
        "h, _ = com.microsoft.EmbedLayerNormalization(i, , t, p, , r, u)\n"
        "d = MatMul(h, w)\ne = Tanh(d)\ny = MatMul(e, v)",
        {"top": np.int32(8), "t": (9, 6), "p": (7, 6), "r": (6,), "u": (6,), **M},
        [8],
        (5,),
        domains=MS,
    ),
    "tables by former channels": Case(
        "h0 = MatMul(x, w)\nh1 = Transpose(h0)\na = Cast<to=6>(h1)\nc = Abs(a)\n"
        "i = Min(c, top)\n"
        "h, _ = com.microsoft.EmbedLayerNormalization(i, s, t, p, q, r, u)\n"
        "e = ReduceMean<axes=[1,2], keepdims=0>(h)\ny = Mul(e, half)",
        {
            "top": np.int32(8), "s": np.zeros((8, 1), np.int32), "t": (9, 6), "p": (7, 6),
            "q": (2, 6), "r": (6,), "u": (6,), "w": (6, 8), "half": np.float32(0.5),
        },
        [],
        (6,),
        domains=MS,
        fixed_batch=True,
    ),
    "tables by former channels that have positions": Case(
        "h0 = MatMul(x, w)\na = Cast<to=6>(h0)\nc = Abs(a)\ni = Min(c, top)\n"
        "h, _ = com.microsoft.EmbedLayerNormalization(i, , t, p, , r, u)\n"
        "d = Squeeze(h, zero)\ne = Transpose(d)\ny = MatMul(e, v)",
        {
            "top": np.int32(8), "t": (9, 6), "p": (8, 6), "r": (6,), "u": (6,), "w": (6, 8),
            "zero": ints(0), "v": (8, 3),
        },
        [],
        (6,),
        domains=MS,
        fixed_batch=True,
    ),
    "tables by former channels that have segments": Case(
        "h0 = MatMul(x, w)\nh1 = Transpose(h0)\na = Cast<to=6>(h1)\nc = Abs(a)\n"
        "i = Min(c, top)\n"
        "h, _ = com.microsoft.EmbedLayerNormalization(i, s, t, p, q, r, u)\n"
        "d = Squeeze(h, one)\ne = Transpose(d)\ny = MatMul(e, v)",
        {
            "top": np.int32(8), "s": np.zeros((8, 1), np.int32), "t": (9, 6), "p": (7, 6),
            "q": (2, 6), "r": (6,), "u": (6,), "w": (6, 8), "one": ints(1), "v": (8, 3),
        },
        [],
        (6,),
        domains=MS,
        fixed_batch=True,
    ),
    "sum, bias and normalization left out": words(
        "t = Transpose<perm=[0,2,1]>(h)\nr = Relu(t)\n"
        "a = com.microsoft.SkipLayerNormalization(t, r, p, , u)\n"
        "g = Transpose<perm=[0,2,1]>(a)",
        [8],
        {"p": (5,), "u": (5,)},
    ),
    "old activations": images(
        "a = ScaledTanh<alpha=0.5, beta=0.7>(h)\nc = Affine<alpha=0.5, beta=0.2>(a)\n"
        "g = ParametricSoftplus<alpha=0.5, beta=0.7>(c)",
        [8],
        opset=8,
    ),
    "crop": images("g = Crop<border=[1,2,0,1]>(h)", [8], opset=8),
    "crop to a size": images(
        "a = Crop<border=[1,2,0,1], scale=[2,3]>(h)\nd = Reshape(a, flat)\n"
        "e = MatMul(d, k)\ng = Reshape(e, image)",
        [8, 8],
        {"flat": ints(0, 48), "k": (48, 8), "image": ints(0, 8, 1, 1)},
        opset=8,
    ),
    "crop of former channels": images(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = Crop<border=[0,0,0,0]>(a)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [],
        opset=8,
    ),
    "offsets of rows": images(
        "a = Transpose<perm=[0,2,1,3]>(h)\n"
        "c = ImageScaler<bias=[1.0,2.0,3.0,4.0,5.0,6.0], scale=2.0>(a)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [8],
        opset=8,
    ),
    "offsets of channels": images(
        "g = ImageScaler<bias=[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0], scale=2.0>(h)", [], opset=8
    ),
}  # fmt: skip


def parts_of_products(model: ModelProto) -> ModelProto:
    """Operators that only kernels of other devices know, as what they are made of."""
    copy = ModelProto.FromString(model.SerializeToString())
    for node in [*copy.graph.node]:
        if node.op_type == "TransposeMatMul":
            node.op_type = "FusedMatMul"
        if node.op_type == "GemmFastGelu":
            product = [f"{node.output[0]}_product"]
            activation = helper.make_node(
                "FastGelu", [*product, *node.input[2:]], [*node.output], domain=node.domain
            )
            node.op_type, node.domain, node.output[:] = "MatMul", "", product
            del node.input[2:]
            copy.graph.node.insert([*copy.graph.node].index(node) + 1, activation)
    return copy


def test_products_of_other_devices() -> None:
    case = words(
        "a = com.microsoft.GemmFastGelu(h, k, c)\n"
        "d = com.microsoft.TransposeMatMul<transB=1>(a, u)\ng = Relu(d)",
        [7, 8, 9],
        {"k": (8, 9), "c": (9,), "u": (7, 9), "v": (7, 3)},
    )
    prove(built(case), lambda batch: feed(case, batch), case.sizes, via=parts_of_products)


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    batches = (1,) if "tables" in name or case.fixed_batch else (1, 3)
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=batches)
