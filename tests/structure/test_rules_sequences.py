"""Rules around matrix products, attention and reshapes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

W = {"w": (6, 8), "v": (8, 3)}


def between(lines: str, sizes: list[int], weights: dict | None = None, **options) -> Case:
    """Nodes from h, sequences [N, 5, 8], to g, between two products with matrices."""
    text = f"h = MatMul(x, w)\n{lines.strip()}\ny = MatMul(g, v)"
    options = {"sample": (5, 6), **options}
    return Case(text, {**W, **(weights or {})}, sizes, **options)


CASES = {
    "layer normalization": between(
        "g = LayerNormalization(h, s, t)", [], {"s": (8,), "t": (8,)}
    ),
    "mean of a normalization": between(
        "t = Transpose<perm=[0,2,1]>(h)\na, m, i = LayerNormalization(t, s)\n"
        "c = Mul(t, m)\ng = Transpose<perm=[0,2,1]>(c)",
        [8],
        {"s": (5,)},
    ),
    "softmax of the last axis": between("g = Softmax(h)", [], opset=13),
    "root mean square": between(
        "g = RMSNormalization(h, s)", [], {"s": (8,)}, opset=23, ir_version=10
    ),
    "normalization of the sequence": between(
        "a = Transpose<perm=[0,2,1]>(h)\nb = LayerNormalization(a, s)\n"
        "g = Transpose<perm=[0,2,1]>(b)",
        [8],
        {"s": (5,)},
    ),
    "gemm": Case(
        "a = Gemm(x, w, b)\nh = Relu(a)\nc = Gemm<transB=1>(h, k, d)\ny = Gemm(c, v)",
        {"w": (6, 8), "b": (8,), "k": (7, 8), "d": (1, 7), "v": (7, 3)},
        [7, 8],
        (6,),
    ),
    "gemm of a transposed operand": Case(
        "a = Gemm(x, w)\nh = Transpose(a)\ny = Gemm<transA=1>(h, v)", W, [8], (6,)
    ),
    "a constant on the left": Case(
        "t = Transpose<perm=[0,2,1]>(x)\na = MatMul(k, t)\nb = Relu(a)\ny = MatMul(m, b)",
        {"k": (8, 6), "m": (3, 8)},
        [8],
        (5, 6),
    ),
    "a vector on the right": between("g = Relu(h)", [8], {"v": (8,)}),
    "a vector on the left": Case(
        "t = Transpose<perm=[0,2,1]>(x)\na = MatMul(w, t)\nb = Relu(a)\ny = MatMul(v, b)",
        {"w": (8, 6), "v": (8,)},
        [8],
        (5, 6),
    ),
    "stacks of matrices": Case(
        "a = Unsqueeze(x, i)\nh = MatMul(a, w)\nb = Relu(h)\nc = MatMul(b, v)\n"
        "d = Transpose<perm=[0,2,1,3]>(c)\ne = Reshape(d, s)\ny = MatMul(e, o)",
        {"i": ints(1), "w": (4, 6, 8), "v": (4, 8, 3), "s": ints(0, 5, 12), "o": (12, 2)},
        [3, 4, 8],
        (5, 6),
    ),
    "einsum": Case(
        'h = Einsum<equation="bsi,io->bso">(x, w)\na = Relu(h)\n'
        'y = Einsum<equation="bso, ko -> bsk">(a, v)',
        {"w": (6, 8), "v": (3, 8)},
        [8],
        (5, 6),
    ),
    "einsum without a result": Case(
        'h = MatMul(x, w)\na = Einsum<equation="bso,bto">(h, h)\ny = MatMul(a, v)',
        {"w": (6, 8), "v": (5, 3)},
        [8],
        (5, 6),
    ),
    "einsum with dots": Case(
        'h = MatMul(x, w)\na = Einsum<equation="...o,ko->...k">(h, v)\n'
        'b = Einsum<equation="...k,n...k->n...k">(u, a)\ny = MatMul(b, t)',
        {"w": (6, 8), "v": (7, 8), "u": (5, 7), "t": (7, 3)},
        [7, 8],
        (5, 6),
    ),
    "einsum of a diagonal": Case(
        'h = MatMul(x, w)\na = Transpose<perm=[0,2,1]>(h)\nc = MatMul(a, k)\n'
        'g = Einsum<equation="bii->bi">(c)\ny = MatMul(g, v)',
        {"w": (6, 8), "k": (5, 8), "v": (8, 3)},
        [8],
        (5, 6),
    ),
    "einsum without a result, in order": Case(
        'h = MatMul(x, w)\na = Einsum<equation="bzo,ao">(h, v)\ny = Relu(a)',
        {"w": (6, 8), "v": (7, 8)},
        [8],
        (5, 6),
    ),
    "einsum with dots and no result": Case(
        'h = MatMul(x, w)\na = Einsum<equation="...so,...to">(h, h)\ny = MatMul(a, v)',
        {"w": (6, 8), "v": (5, 3)},
        [8],
        (5, 6),
    ),
    "einsum of two channels": Case(
        'h = MatMul(x, w)\na = Einsum<equation="bso,ko->bsk">(h, v)\ny = Relu(a)',
        {"w": (6, 2), "v": (3, 2)},
        [2],
        (5, 6),
    ),
    "einsum of all samples with one": between(
        'a = Einsum<equation="bso,bko->bsk">(h, u)\ng = Relu(a)',
        [7, 8],
        {"u": (1, 7, 8), "v": (7, 3)},
    ),
    "einsum of one that is repeated": between(
        'a = Einsum<equation="bso,tko->bsk">(h, u)\ng = Relu(a)',
        [7, 8],
        {"u": (1, 7, 8), "v": (7, 3)},
    ),
    "einsum that sums": between('a = Einsum<equation="bso->bs">(h)\nb = Unsqueeze(a, i)\n'
        "g = Mul(h, b)", [], {"i": ints(2)}),
    "embedding": Case(
        "a = Cast<to=7>(x)\nb = Abs(a)\nc = Clip(b, lo, hi)\nh = Gather(t, c)\nd = MatMul(h, w)\n"
        "e = Tanh(d)\ny = MatMul(e, v)",
        {"t": (9, 6), "lo": np.int64(0), "hi": np.int64(8), **W},
        [6, 8],
        (5,),
    ),
    "looked up in a product": between("g = Gather<axis=1>(h, i)", [8], {"i": ints(4, 0)}),
    "picked by a matrix": between(
        "a = Gather<axis=2>(h, i)\ng = ReduceMean<axes=[2], keepdims=0>(a)",
        [4],
        {"i": np.array([[0, 1], [2, 3]]), "v": (2, 3)},
    ),
    "flattened": between("g = Flatten(h)", [8], {"v": (40, 3)}),
    "reshaped to heads": between(
        """
        a = Reshape(h, s)
        b = Transpose<perm=[0,2,3,1]>(a)
        c = Softmax(b)
        d = Transpose<perm=[0,3,1,2]>(c)
        g = Reshape(d, t)
        """,
        [2, 4],
        {"s": ints(0, 0, 2, -1), "t": ints(0, -1, 8)},
    ),
    "heads in the batch": between(
        """
        a = Reshape(h, s)
        b = Transpose<perm=[0,2,1,3]>(a)
        z = Shape(x)
        n = Gather(z, zero)
        m = Mul(n, two)
        i = Unsqueeze(m, first)
        j = Concat<axis=0>(i, rest)
        c = Reshape(b, j)
        d = Relu(c)
        k = Unsqueeze(n, first)
        l = Concat<axis=0>(k, last)
        e = Reshape(d, l)
        f = Transpose<perm=[0,2,1,3]>(e)
        g = Reshape(f, t)
        """,
        [2, 4],
        {
            "s": ints(0, 0, 2, 4), "zero": np.int64(0), "two": np.int64(2), "first": ints(0),
            "rest": ints(5, 4), "last": ints(2, 5, 4), "t": ints(0, 5, -1),
        },
    ),
    "two computed sizes": between(
        """
        z = Shape(x)
        i = Slice(z, first, last)
        j = Concat<axis=0>(i, rest)
        a = Reshape(h, j)
        b = Relu(a)
        k = Concat<axis=0>(i, whole)
        g = Reshape(b, k)
        """,
        [2, 4],
        {"first": ints(0), "last": ints(2), "rest": ints(2, 4), "whole": ints(8)},
        free=(0,),
    ),
    "scaled by a computed size": between(
        """
        z = Shape(h)
        n = Gather(z, two)
        f = Cast<to=1>(n)
        r = Sqrt(f)
        t = Transpose<perm=[0,2,1]>(h)
        a = MatMul(h, t)
        b = Div(a, r)
        c = Softmax(b)
        g = MatMul(c, h)
        """,
        [8],
        {"two": np.int64(2)},
    ),
    "a size that counts channels": between(
        "n = Size(h)\nf = Cast<to=1>(n)\na = Div(h, f)\nz = Shape(a)\ng = Expand(a, z)", [8]
    ),
    "axes that do not fit": between(
        "a = Reshape(h, s)\nb = Relu(a)\ng = Reshape(b, t)",
        [],
        {"s": ints(-1, 8, 5), "t": ints(-1, 20, 2), "v": (2, 3)},
    ),
    "squeezed": between(
        "a = Unsqueeze(h, i)\nb = Relu(a)\nc = Squeeze(b, i)\ng = Tanh(c)", [8], {"i": ints(1, -1)}
    ),
    "squeezed without axes": Case(
        "k = Squeeze(w)\nh = MatMul(x, k)\ny = MatMul(h, v)",
        {"w": (1, 6, 2), "v": (2, 3)},
        [2],
        (5, 6),
    ),
    "squeezed by some of the axes": Case(
        "k = Squeeze(w, i)\nh = MatMul(x, k)\ny = MatMul(h, v)",
        {"w": (1, 1, 6, 2), "v": (2, 3), "i": ints(0)},
        [2],
        (5, 6),
    ),
    **{
        f"squeezed by one of the axes, opset {opset}": Case(
            f"k0 = {squeeze}\nk = Transpose<perm=[1,0,2]>(k0)\nh = MatMul(x, k)\n"
            "y = MatMul(h, v)",
            {"w": (1, 6, 1, 2), "v": (2, 3), "i": ints(0)},
            [2],
            (5, 6),
            opset,
        )
        for opset, squeeze in ((11, "Squeeze<axes=[0]>(w)"), (17, "Squeeze(w, i)"))
    },
    "merged with the samples": between(
        "a = Transpose<perm=[0,2,1]>(h)\nb = Reshape(a, s)\nc = Relu(b)\nd = Reshape(c, t)\n"
        "g = Transpose<perm=[0,2,1]>(d)",
        [8],
        {"s": ints(-1, 5), "t": ints(-1, 8, 5)},
    ),
    **{
        f"squeezed without axes, opset {opset}": Case(
            "k = Squeeze(w)\nh = MatMul(x, k)\ny = MatMul(h, v)",
            {"w": (1, 6, 2), "v": (2, 3)},
            [2],
            (5, 6),
            opset,
        )
        for opset in (12, 13)
    },
    "reshaped by zeros": between(
        "a = Reshape(h, s)\nb = Reshape(a, t)\nc = Relu(b)\ng = Reshape(c, u)",
        [2, 6],
        {
            "w": (6, 16), "v": (16, 3), "s": ints(0, 0, 2, 4, 2), "t": ints(0, 0, 1, 0, 4),
            "u": ints(0, 0, -1),
        },
    ),
    "root mean square of the sequence": between(
        "a = Transpose<perm=[0,2,1]>(h)\nb = RMSNormalization(a, s)\n"
        "g = Transpose<perm=[0,2,1]>(b)",
        [8],
        {"s": (5,)},
        opset=23,
        ir_version=10,
    ),
    "normalization with a scale and a bias by channel": between(
        "a = Transpose<perm=[0,2,1]>(h)\nb = LayerNormalization(a, s, t)\n"
        "g = Transpose<perm=[0,2,1]>(b)",
        [8],
        {"s": (8, 5), "t": (8, 1)},
    ),
    "normalization from behind": between(
        "g = LayerNormalization<axis=-2>(h, s)", [], {"s": (5, 8)}
    ),
    "squeezed without axes, by attribute": Case(
        "k = Squeeze(w)\nh = MatMul(x, k)\ny = MatMul(h, v)",
        {"w": (1, 6, 2), "v": (2, 3)},
        [2],
        (5, 6),
        11,
    ),
    "cumulated": between("g = CumSum(h, a)", [], {"a": np.int64(-1)}),
    "bias and activation in one": between(
        "g = com.microsoft.BiasGelu(h, b)", [8], {"b": (8,)}, domains={"com.microsoft": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    prove(built(case), lambda batch: feed(case, batch), case.sizes)
