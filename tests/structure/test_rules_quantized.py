"""Quantized operators: scales and zero points by channel follow the channels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

MS = {"com.microsoft": 1}
RANDOM = np.random.default_rng(0)


def codes(*shape: int, dtype: type = np.int8) -> np.ndarray:
    """Codes of 7 bits: where the processor has no VNNI, sums of longer ones are cut off."""
    low = 0 if dtype is np.uint8 else -60
    return RANDOM.integers(low, 60, shape, dtype=dtype)


def scales(count: int) -> np.ndarray:
    return RANDOM.uniform(0.01, 0.02, count).astype(np.float32)


S, Z, ZW = np.float32(0.05), np.uint8(120), np.int8(3)
ONE = {"s": S, "z": Z, "sw": np.float32(0.01), "zw": ZW}


def images(lines: str, sizes: list[int], weights: dict, **options) -> Case:
    """Nodes from codes q of 8 channels to codes r, between two convolutions."""
    text = f"h = Conv(x, w)\nq = QuantizeLinear(h, s, z)\n{lines.strip()}\n"
    text += "g = DequantizeLinear(r, s, z)\ny = Conv(g, v)"
    weights = {"w": (8, 4, 1, 1), "v": (3, 8, 1, 1), **ONE, **weights}
    return Case(text, weights, sizes, domains=MS, **options)


def words(lines: str, sizes: list[int], weights: dict, **options) -> Case:
    """Nodes from codes q, [N, 5, 8], to g, between two products."""
    text = f"h = MatMul(x, w)\nq = QuantizeLinear(h, s, z)\n{lines.strip()}\ny = MatMul(g, v)"
    weights = {"w": (6, 8), "v": (7, 3), **ONE, **weights}
    return Case(text, weights, sizes, (5, 6), domains=MS, **options)


KERNEL = {"k": codes(8, 8, 3, 3), "b": np.arange(8, dtype=np.int32)}
MATRIX = {"k": codes(8, 7)}
ONE_IN_VECTORS = {
    "s1": np.full(1, S), "z1": np.full(1, Z), "sw1": np.full(1, ONE["sw"]), "zw1": np.full(1, ZW),
}  # fmt: skip
CASES = {
    "convolution": images(
        "r = QLinearConv<pads=[1,1,1,1]>(q, s, z, k, sw, zw, s, z, b)", [8, 8], KERNEL
    ),
    "convolution, by channel": images(
        "r = QLinearConv<pads=[1,1,1,1]>(q, s, z, k, sk, zk, s, z, b)",
        [8, 8],
        {**KERNEL, "sk": scales(8), "zk": np.zeros(8, np.int8)},
    ),
    "convolution in groups": images(
        "r = QLinearConv<group=2>(q, s, z, k, sw, zw, s, z, b)",
        [2, 4, 4],
        {**KERNEL, "k": codes(8, 4, 1, 1)},
    ),
    "convolution to whole numbers": images(
        "i = ConvInteger(q, k, z, zw)\nf = Cast<to=1>(i)\nt = Mul(f, tiny)\n"
        "r = QuantizeLinear(t, s, z)",
        [8, 8],
        {"k": codes(8, 8, 1, 1), "tiny": np.float32(1e-4)},
    ),
    "convolution in groups to whole numbers": images(
        "i = ConvInteger<group=2>(q, k, z, zw)\nf = Cast<to=1>(i)\nt = Mul(f, tiny)\n"
        "r = QuantizeLinear(t, s, z)",
        [2, 4, 4],
        {"k": codes(8, 4, 1, 1), "tiny": np.float32(1e-4)},
    ),
    "sum and product": images(
        "a = com.microsoft.QLinearAdd(q, s, z, c, s, z, s, z)\n"
        "r = com.microsoft.QLinearMul(a, s, z, c, s, z, s, z)",
        [8],
        {"c": codes(8, 1, 1, dtype=np.uint8)},
    ),
    "activations": images(
        "a = com.microsoft.QLinearLeakyRelu<alpha=0.1>(q, s, z, s, z)\n"
        "r = com.microsoft.QLinearSigmoid(a, s, z, s, z)",
        [8],
        {},
    ),
    "pools": images(
        "a = com.microsoft.QLinearAveragePool<kernel_shape=[2,2]>(q, s, z, s, z)\n"
        "r = com.microsoft.QLinearGlobalAveragePool(a, s, z, s, z)",
        [8],
        {},
    ),
    "pool of channels at the end": images(
        "a = Transpose<perm=[0,2,3,1]>(q)\n"
        "b = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(a, s, z, s, z)\n"
        "r = Transpose<perm=[0,3,1,2]>(b)",
        [8],
        {},
    ),
    "pool of former channels": images(
        "a = Transpose<perm=[0,2,1,3]>(q)\n"
        "b = com.microsoft.QLinearGlobalAveragePool(a, s, z, s, z)\n"
        "c = DequantizeLinear(b, s, z)\nr = QuantizeLinear(c, s, z)",
        [],
        {"v": (3, 6, 1, 1)},
    ),
    "joined": images(
        "a = com.microsoft.QLinearConcat<axis=1>(s, z, q, s, z, c, s, z)\n"
        "d = com.microsoft.QLinearConcat<axis=-2>(s, z, a, s, z, a, s, z)\nr = Identity(d)",
        [2, 8],
        {"c": np.zeros((1, 2, 6, 6), np.uint8), "v": (3, 10, 1, 1)},
        fixed_batch=True,
    ),
    "product": words(
        "r = QLinearMatMul(q, s, z, k, sw, zw, s, z)\ng = DequantizeLinear(r, s, z)", [7, 8], MATRIX
    ),
    "product, by column": words(
        "r = QLinearMatMul(q, s, z, k, sk, zk, s, z)\ng = DequantizeLinear(r, s, z)",
        [7, 8],
        {**MATRIX, "sk": scales(7), "zk": np.zeros(7, np.int8)},
    ),
    "product of whole numbers": words(
        "r = MatMulInteger(q, k, z, zk)\ng = Cast<to=1>(r)",
        [7, 8],
        {**MATRIX, "zk": codes(7)},
    ),
    "product to fractions": words(
        "g = com.microsoft.MatMulIntegerToFloat(q, k, s, sk, z, zk, b)",
        [7, 8],
        {**MATRIX, "sk": scales(7), "zk": codes(7), "b": (7,)},
    ),
    "product of a dynamic scale": words(
        "g = com.microsoft.DynamicQuantizeMatMul(h, k, sk, zk, b)",
        [7],
        {**MATRIX, "sk": scales(7), "zk": codes(7), "b": (7,)},
    ),
    "gemm of a turned operand": words(
        "f = Reshape(q, flat)\nt = Transpose(f)\n"
        "d = com.microsoft.QGemm<transA=1>(t, s, z, k, sw, zw)\ng = Reshape(d, back)",
        [7, 8],
        {"k": codes(8, 7), "flat": ints(-1, 8), "back": ints(-1, 5, 7)},
    ),
    "gemm": words(
        "f = Reshape(q, flat)\n"
        "r = com.microsoft.QGemm<transB=1>(f, s, z, k, sk, zk, b, s, z)\n"
        "d = DequantizeLinear(r, s, z)\ng = Reshape(d, back)",
        [7, 8],
        {
            "k": codes(7, 8), "sk": scales(7), "zk": np.zeros(7, np.int8), "flat": ints(-1, 8),
            "b": np.arange(7, dtype=np.int32), "back": ints(-1, 5, 7),
        },
    ),
    "attention": words(
        "g = com.microsoft.QAttention<num_heads=3>(q, k, b, s, sk, , z, zk)",
        [3, 4, 8],
        {
            "k": codes(8, 36), "b": (36,), "sk": scales(36), "zk": np.zeros(36, np.int8),
            "v": (12, 3),
        },
    ),
    "attention, samples of caches": words(
        "h1 = Reshape(h, split)\nh2 = Transpose<perm=[1,0,2]>(h1)\nh3 = QuantizeLinear(h2, s, z)\n"
        "a, n = com.microsoft.QAttention<num_heads=2>(h3, k, b, s, sw, , z, zw, p)\n"
        "a1 = Transpose<perm=[1,0,2]>(a)\ng = Reshape(a1, whole)",
        [2, 2, 4, 8],
        {
            "w": (6, 32), "v": (32, 3), "split": ints(5, 8, 4), "whole": ints(1, 5, 32),
            "k": codes(4, 12), "b": (12,), "p": (2, 8, 2, 3, 2),
        },
        fixed_batch=True,
    ),
    "attention, samples of lengths": words(
        "h1 = Reshape(h, split)\nh2 = Transpose<perm=[1,0,2]>(h1)\nh3 = QuantizeLinear(h2, s, z)\n"
        "a = com.microsoft.QAttention<num_heads=1>(h3, k, b, s, sw, n, z, zw)\n"
        "a1 = Transpose<perm=[1,0,2]>(a)\ng = Reshape(a1, whole)",
        [4, 4],
        {
            "w": (6, 32), "v": (32, 3), "split": ints(5, 8, 4), "whole": ints(1, 5, 32),
            "k": codes(4, 12), "b": (12,), "n": np.array([3, 5, 4, 5, 1, 2, 5, 4], np.int32),
        },
        fixed_batch=True,
    ),
    "attention, one scale": words(
        "g = com.microsoft.QAttention<num_heads=3>(q, k, b, s, sw, , z, zw)",
        [3, 4, 8],
        {"k": codes(8, 36), "b": (36,), "v": (12, 3)},
    ),
    "attention, one scale as a vector": words(
        "g = com.microsoft.QAttention<num_heads=3>(q, k, b, s, sw1, , z, zw1)",
        [3, 4, 8],
        {"k": codes(8, 36), "b": (36,), "v": (12, 3), **ONE_IN_VECTORS},
    ),
    "attention, codes around zero": words(
        "g = com.microsoft.QAttention<num_heads=3>(q, k, b, s, sw, , z)",
        [3, 4, 8],
        {"k": codes(8, 36), "b": (36,), "v": (12, 3)},
    ),
    "pairs around a weight": Case(
        """
        q = QuantizeLinear(x, p, z)
        a = DequantizeLinear<axis=-3>(q, p, z)
        k = DequantizeLinear<axis=0>(kq, ps, kz)
        c = DequantizeLinear<axis=0>(cq, cs)
        h = Conv(a, k, c)
        y = Conv(h, v)
        """,
        {
            "p": scales(4), "z": codes(4), "ps": scales(5), "kz": np.zeros(5, np.int8),
            "kq": codes(5, 4, 1, 1), "cq": np.arange(5, dtype=np.int32), "cs": scales(5),
            "v": (3, 5, 1, 1),
        },
        [5],
    ),
    "pairs by the default axis": Case(
        "h = Conv(x, w)\nq = QuantizeLinear(h, p, z)\ng = DequantizeLinear(q, p, z)\n"
        "y = Conv(g, v)",
        {"w": (2, 4, 1, 1), "p": scales(2), "z": codes(2), "v": (3, 2, 1, 1)},
        [2],
    ),
    "one scale and zero point as vectors": images(
        "r = QLinearConv<pads=[1,1,1,1]>(q, s1, z1, k, s1, zw1, s1, z1, b)",
        [8, 8],
        {**KERNEL, **ONE_IN_VECTORS},
    ),
    "products of one scale and zero point as vectors": words(
        "a = QLinearMatMul(q, s1, z1, k, s1, zw1, s1, z1)\nc = MatMulInteger(a, u, z1, zw1)\n"
        "g = Cast<to=1>(c)",
        [7, 8, 9],
        {"k": codes(8, 9), "u": codes(9, 7), **ONE_IN_VECTORS},
    ),
    "products without zero points": words(
        "a = MatMulInteger(q, k)\ng = Cast<to=1>(a)", [7, 8], MATRIX
    ),
    "products with stacks, by column": words(
        "a = QLinearMatMul(q, s, z, k, sk, zk, s, z)\nc = MatMulInteger(a, u, z, zu)\n"
        "g = Cast<to=1>(c)",
        [7, 8, 9],
        {
            "k": codes(1, 8, 9), "sk": scales(9).reshape(1, 1, 9), "zk": codes(1, 1, 9),
            "u": codes(1, 9, 7), "zu": codes(1, 1, 7),
        },
    ),
    "products with stacks to fractions, by column": words(
        "a = com.microsoft.MatMulIntegerToFloat(q, k, s, sk, z, zk, b)\n"
        "g = com.microsoft.DynamicQuantizeMatMul(a, u, su, zu)",
        [7, 8],
        {
            "k": codes(1, 8, 9), "sk": scales(9).reshape(1, 1, 9), "zk": codes(1, 1, 9), "b": (9,),
            "u": codes(1, 9, 7), "su": scales(7).reshape(1, 1, 7), "zu": codes(1, 1, 7),
        },
    ),
    "pairs of onnxruntime": Case(
        "h = MatMul(x, w)\nq = com.microsoft.QuantizeLinear<axis=2>(h, p, z)\n"
        "g = com.microsoft.DequantizeLinear<axis=2>(q, p, z)\ny = MatMul(g, v)",
        {"w": (6, 8), "v": (8, 3), "p": scales(8), "z": codes(8)},
        [8],
        (5, 6),
        domains=MS,
    ),
    "pairs in blocks": Case(
        "h = MatMul(x, w)\nk = DequantizeLinear<axis=0, block_size=2>(kq, ps)\n"
        "g = MatMul(h, k)\ny = MatMul(g, v)",
        {"w": (6, 8), "kq": codes(8, 7), "ps": np.full((4, 7), 0.1, np.float32), "v": (7, 3)},
        [],
        (5, 6),
        21,
        ir_version=10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    batches = (1,) if case.fixed_batch else (1, 3)
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=batches)


def test_whole_numbers_by_channel() -> None:
    """No runtime here has a kernel for it: onnx's own evaluator computes the values."""
    case = images(
        "i = ConvInteger(q, k, z, zk)\nf = Cast<to=1>(i)\nt = Mul(f, tiny)\n"
        "r = QuantizeLinear(t, s, z)",
        [8, 8],
        {"k": codes(8, 8, 1, 1), "zk": codes(8), "tiny": np.float32(1e-4)},
        opset=21,
        ir_version=10,
    )
    prove(built(case), lambda batch: feed(case, batch), case.sizes, reference=True)
