"""Attention in one operator, and rotary positions."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

MS = {"com.microsoft": 1}
APART = {"wq": (6, 12), "wk": (6, 12), "wv": (6, 9), "wo": (9, 2)}
ALIKE = {"wq": (6, 24), "wk": (6, 24), "wv": (6, 24), "wo": (24, 2)}
THREE = "q = MatMul(x, wq)\nk = MatMul(x, wk)\nu = MatMul(x, wv)\n"
APART_HEADS = """
    q0 = Reshape(q, sq)
    q1 = Transpose<perm=[0,2,1,3]>(q0)
    k0 = Reshape(k, sk)
    k1 = Transpose<perm=[0,2,1,3]>(k0)
    u0 = Reshape(u, sk)
    u1 = Transpose<perm=[0,2,1,3]>(u0)
"""


def standard(call: str, weights: dict, sizes: list[int], **options) -> Case:
    return Case(f"{THREE}{call}\ny = MatMul(g, wo)", weights, sizes, (5, 6),
                options.pop("opset", 23), ir_version=10, **options)  # fmt: skip


def contrib(call: str, weights: dict, sizes: list[int], *, three: bool = True) -> Case:
    lines = f"{THREE if three else 'h = MatMul(x, w)'}\n{call}\ny = MatMul(g, wo)"
    return Case(lines, weights, sizes, (5, 6), domains=MS)


def rotary(call: str, sizes: list[int], opset: int = 23, **weights) -> Case:
    """Heads of 8, turned, and summed up by a product."""
    text = f"h = MatMul(x, w)\n{call}\ny = MatMul(g, v)"
    weights = {"w": (6, 24), "cos": (9, 4), "sin": (9, 4), "v": (24, 2), **weights}
    return Case(text, weights, sizes, (5, 6), opset, ir_version=10, domains=MS)


def samples(call: str, sizes: list[int], **weights) -> Case:
    """Nodes from s to g, [8, 5, 4], whose samples are eight groups of four columns of a product."""
    text = (
        "h = MatMul(x, w)\nh1 = Reshape(h, split)\ns = Transpose<perm=[1,0,2]>(h1)\n"
        f"{call}\ng1 = Transpose<perm=[1,0,2]>(g)\ng2 = Reshape(g1, whole)\ny = MatMul(g2, v)"
    )
    weights = {"w": (6, 32), "split": ints(5, 8, 4), "whole": ints(1, 5, 32), "v": (32, 3),
               "k": (8, 5, 4), "u": (8, 5, 4), "pk": (8, 1, 2, 4), "pu": (8, 1, 2, 4),
               **weights}  # fmt: skip
    return Case(text, weights, sizes, (5, 6), 23, ir_version=10, domains=MS, fixed_batch=True)


#: From results a and the caches n, [2, N, heads, steps, size] or without the 2, to g.
READ = (
    "n1 = MatMul(n, size)\nn2 = Squeeze(n1, end)\nn3 = MatMul(heads, n2)\n"
    "n4 = ReduceSum<keepdims=0>(n3)\ng = Mul(a, n4)"
)

PLACES = "z = Shape(x)\nn = Slice(z, i0, i2)\np = Expand(place, n)\n"
PLACED = {"i0": ints(0), "i2": ints(2), "place": np.arange(5).reshape(1, 5)}

CASES = {
    "standard": standard(
        "g = Attention<q_num_heads=3, kv_num_heads=3>(q, k, u)", APART, [3, 3, 4]
    ),
    "standard, mask by head": standard(
        "g = Attention<q_num_heads=3, kv_num_heads=3, scale=0.3>(q, k, u, m)",
        {**APART, "m": (1, 3, 5, 5)},
        [3, 3, 4],
    ),
    "standard, one mask": standard(
        "g = Attention<q_num_heads=3, kv_num_heads=3>(q, k, u, m)",
        {**APART, "m": (5, 5)},
        [3, 3, 4],
    ),
    "standard, mask of one head": standard(
        "g = Attention<q_num_heads=3, kv_num_heads=3, is_causal=1>(q, k, u, m)",
        {**APART, "m": (1, 1, 5, 5)},
        [3, 3, 4],
    ),
    "standard, grouped": standard(
        "g = Attention<q_num_heads=6, kv_num_heads=2>(q, k, u)",
        {"wq": (6, 24), "wk": (6, 8), "wv": (6, 8), "wo": (24, 2)},
        [2, 3, 4, 4],
    ),
    "standard, grouped, heads apart": Case(
        f"""{THREE}{APART_HEADS}
        a = Attention(q1, k1, u1)
        b = Transpose<perm=[0,2,1,3]>(a)
        g = Reshape(b, t)
        y = MatMul(g, wo)""",
        {
            "wq": (6, 24), "wk": (6, 8), "wv": (6, 8), "wo": (24, 2),
            "sq": ints(0, 5, 6, 4), "sk": ints(0, 5, 2, 4), "t": ints(0, 5, 24),
        },
        [2, 3, 4, 4],
        (5, 6),
        23,
        ir_version=10,
    ),
    "standard, caches and scores": standard(
        "z = Shape(x)\nn = Slice(z, i0, i1)\nr = Concat<axis=0>(n, back)\n"
        "ck = Expand(k0, r)\ncv = Expand(u0, r)\n"
        "g0, pk, pv, s = Attention<q_num_heads=3, kv_num_heads=3>(q, k, u, , ck, cv)\n"
        "d = Transpose<perm=[0,2,3,1]>(pv)\nd1 = MatMul(d, vs)\nd2 = ReduceSum<keepdims=0>(d1)\n"
        "e = Transpose<perm=[0,2,3,1]>(pk)\ne1 = MatMul(e, vs)\ne2 = ReduceSum<keepdims=0>(e1)\n"
        "f = Transpose<perm=[0,2,3,1]>(s)\nf1 = MatMul(f, vs)\nf2 = ReduceSum<keepdims=0>(f1)\n"
        "o1 = Add(d2, e2)\no2 = Add(o1, f2)\ng = Mul(g0, o2)",
        {
            "wq": (6, 12), "wk": (6, 12), "wv": (6, 12), "wo": (12, 2), "vs": (3, 1),
            "k0": (3, 2, 4), "u0": (3, 2, 4), "back": ints(3, 2, 4), "i0": ints(0), "i1": ints(1),
        },
        [3],
    ),
    "attends over heads": Case(
        "q = MatMul(x, w)\nr = Reshape(q, s)\nt = Transpose<perm=[0,1,3,2]>(r)\n"
        "a = Attention(t, t, t)\nb = ReduceMean<keepdims=0>(a, i)\ny = MatMul(b, v)",
        {"w": (6, 8), "s": ints(0, 5, 2, 4), "v": (5, 2), "i": ints(2, 3)},
        [],
        (5, 6),
        23,
        ir_version=10,
    ),
    "attention of heads apart": Case(
        """
        h = MatMul(x, w)
        a = Reshape(h, s)
        q, k, u = Split<axis=2, num_outputs=3>(a)
        q1 = Squeeze(q, i)
        k1 = Squeeze(k, i)
        u1 = Squeeze(u, i)
        q2 = Transpose<perm=[0,2,1,3]>(q1)
        k2 = Transpose<perm=[0,2,1,3]>(k1)
        u2 = Transpose<perm=[0,2,1,3]>(u1)
        b = Attention(q2, k2, u2)
        c = Transpose<perm=[0,2,1,3]>(b)
        g = Reshape(c, t)
        y = MatMul(g, v)
        """,
        {"w": (6, 24), "s": ints(0, 5, 3, 2, 4), "i": ints(2), "t": ints(0, 5, 8), "v": (8, 2)},
        [2, 4],
        (5, 6),
        23,
        ir_version=10,
    ),
    "standard, former channels": Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[0,2,1]>(h)\n"
        "a = Attention<q_num_heads=1, kv_num_heads=1>(t, t, t)\n"
        "g = Transpose<perm=[0,2,1]>(a)\ny = MatMul(g, v)",
        {"w": (6, 8), "v": (8, 3)},
        [],
        (5, 6),
        23,
        ir_version=10,
    ),
    "standard, samples": samples(
        "g = Attention<q_num_heads=1, kv_num_heads=1>(s, k, u)", [4, 4, 8]
    ),
    "standard, samples of mask and caches": samples(
        "g, nk, nu = Attention<q_num_heads=1, kv_num_heads=1>(s, k, u, m, pk, pu)",
        [4, 4, 8],
        m=(8, 1, 5, 7),
    ),
    "multi-head, samples": samples(
        "g, nk, nu = com.microsoft.MultiHeadAttention<num_heads=1>(s, k, u, , , m, pk, pu)",
        [4, 8],
        m=(8, 1, 5, 7),
    ),
    "multi-head, samples of padding": samples(
        "g = com.microsoft.MultiHeadAttention<num_heads=1>(s, k, u, , n)",
        [4, 4],
        n=np.tril(np.ones((8, 5), np.int32), 2),
    ),
    "packed projections, samples": samples(
        "g = com.microsoft.Attention<num_heads=1>(s, kw, kb, , , m)",
        [4, 4, 4, 8],
        kw=(4, 12), kb=(12,), m=(8, 1, 5, 5),
    ),
    "packed projections, samples of lengths": samples(
        "g = com.microsoft.Attention<num_heads=1>(s, kw, kb, n)",
        [4, 4, 4],
        kw=(4, 12), kb=(12,), n=np.array([3, 5, 4, 5, 1, 2, 5, 4], np.int32),
    ),
    "packed projections, former channels": Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[0,2,1]>(h)\n"
        "a = com.microsoft.Attention<num_heads=1>(t, k, b)\n"
        "g = Transpose<perm=[0,2,1]>(a)\ny = MatMul(g, v)",
        {"w": (6, 8), "k": (5, 12), "b": (12,), "v": (8, 3)},
        [4],  # of query and key
        (5, 6),
        domains=MS,
    ),
    "packed projections, samples of caches": samples(
        "g, n = com.microsoft.Attention<num_heads=2>(s, kw, kb, , p)",
        [2, 2, 4, 8],
        kw=(4, 12), kb=(12,), p=(2, 8, 2, 3, 2),
    ),
    "multi-head, heads apart": contrib(
        "k0 = Reshape(k, s)\nk1 = Transpose<perm=[0,2,1,3]>(k0)\n"
        "u0 = Reshape(u, s)\nu1 = Transpose<perm=[0,2,1,3]>(u0)\n"
        "g = com.microsoft.MultiHeadAttention<num_heads=3>(q, k1, u1)",
        {**APART, "s": ints(0, 5, 3, 4), "wv": (6, 12), "wo": (12, 2)},
        [3, 4],
    ),
    "multi-head, former channels": Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[0,2,1]>(h)\n"
        "a = com.microsoft.MultiHeadAttention<num_heads=1>(t, t, t)\n"
        "g = Transpose<perm=[0,2,1]>(a)\ny = MatMul(g, v)",
        {"w": (6, 8), "v": (8, 3)},
        [],
        (5, 6),
        domains=MS,
    ),
    "grouped query, samples of lengths": samples(
        "g, nk, nu = com.microsoft.GroupQueryAttention<num_heads=1, kv_num_heads=1>"
        "(s, k, u, , , n, five)",
        [],
        w=(6, 128), split=ints(5, 8, 16), whole=ints(1, 5, 128), v=(128, 3), k=(8, 5, 16),
        u=(8, 5, 16), n=np.full(8, 4, np.int32), five=np.array([5], np.int32),
    ),
    "grouped query, values of samples": Case(
        "h = MatMul(x, w)\nh1 = Reshape(h, split)\ns = Transpose<perm=[1,0,2]>(h1)\n"
        "g, nk, nu = com.microsoft.GroupQueryAttention<num_heads=1, kv_num_heads=1>"
        "(q, k, s, pk, pu, n, three)\n"
        "g1 = Transpose<perm=[1,0,2]>(g)\ng2 = Reshape(g1, whole)\ny = MatMul(g2, v)",
        {
            "w": (6, 128), "split": ints(1, 8, 16), "whole": ints(1, 1, 128), "v": (128, 3),
            "q": (8, 1, 16), "k": (8, 1, 16), "pk": (8, 1, 2, 16), "pu": (8, 1, 2, 16),
            "n": np.full(8, 2, np.int32), "three": np.array([3], np.int32),
        },
        [],
        (1, 6),
        domains=MS,
        fixed_batch=True,
    ),
    "rotary, samples": samples(
        "g = RotaryEmbedding<num_heads=1>(s, cos, sin)", [2, 8], cos=(8, 5, 2), sin=(8, 5, 2)
    ),
    "rotary, samples of positions": samples(
        "g = RotaryEmbedding<num_heads=1>(s, cos, sin, p)",
        [2],
        cos=(9, 2), sin=(9, 2), p=np.arange(40).reshape(8, 5) % 7,
    ),
    "rotary of onnxruntime, samples": samples(
        "g = com.microsoft.RotaryEmbedding<num_heads=1>(s, p, cos, sin)",
        [2],
        cos=(9, 2), sin=(9, 2), p=np.arange(40).reshape(8, 5) % 7,
    ),
    "multi-head": contrib(
        "g = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, u)", APART, [3, 3, 4]
    ),
    "multi-head, bias and mask by head": contrib(
        "g = com.microsoft.MultiHeadAttention<num_heads=3, scale=0.4>(q, k, u, b, , m)",
        {**APART, "b": (33,), "m": (1, 3, 5, 5)},
        [3, 3, 4],
    ),
    "packed projections": contrib(
        "g = com.microsoft.Attention<num_heads=3>(h, k, b)",
        {"w": (6, 8), "k": (8, 36), "b": (36,), "wo": (12, 2)},
        [3, 4, 4, 8],
        three=False,
    ),
    "packed projections without a bias": contrib(
        "g = com.microsoft.Attention<num_heads=3>(h, k)",
        {"w": (6, 8), "k": (8, 36), "wo": (12, 2)},
        [3, 4, 4, 8],
        three=False,
    ),
    "packed projections of two sizes": contrib(
        "g = com.microsoft.Attention<num_heads=3, qkv_hidden_sizes=[12,12,9], scale=0.3>"
        "(h, k, b, , , m)",
        {"w": (6, 8), "k": (8, 33), "b": (33,), "m": (1, 3, 5, 5), "wo": (9, 2)},
        [3, 3, 4, 8],
        three=False,
    ),
    "rotary, heads packed": rotary(
        f"{PLACES}g = RotaryEmbedding<num_heads=3>(h, cos, sin, p)", [3, 4], **PLACED
    ),
    "rotary, neighbours": rotary(
        f"{PLACES}g = RotaryEmbedding<num_heads=3, interleaved=1>(h, cos, sin, p)",
        [3, 4],
        **PLACED,
    ),
    "rotary, a part": rotary(
        f"{PLACES}g = RotaryEmbedding<num_heads=3, rotary_embedding_dim=4>(h, c2, s2, p)",
        [2, 3, 4],
        c2=(9, 2), s2=(9, 2), **PLACED,
    ),
    "rotary, heads apart": rotary(
        "a = Reshape(h, s)\nb = Transpose<perm=[0,2,1,3]>(a)\n"
        f"{PLACES}c = RotaryEmbedding(b, cos, sin, p)\n"
        "d = Transpose<perm=[0,2,1,3]>(c)\ng = Reshape(d, t)",
        [3, 4],
        s=ints(0, 5, 3, 8), t=ints(0, 5, 24), **PLACED,
    ),
    "rotary, heads apart and counted": rotary(
        "a = Reshape(h, s)\nb = Transpose<perm=[0,2,1,3]>(a)\n"
        f"{PLACES}c = RotaryEmbedding<num_heads=3>(b, cos, sin, p)\n"
        "d = Transpose<perm=[0,2,1,3]>(c)\ng = Reshape(d, t)",
        [3, 4],
        s=ints(0, 5, 3, 8), t=ints(0, 5, 24), **PLACED,
    ),
    "rotary, a part, without positions": Case(
        "h = MatMul(x, w)\ng = RotaryEmbedding<num_heads=3, rotary_embedding_dim=4>(h, c, s)\n"
        "y = MatMul(g, v)",
        {"w": (6, 24), "c": (1, 5, 2), "s": (1, 5, 2), "v": (24, 2)},
        [2, 3, 4], (5, 6), 23, ir_version=10, fixed_batch=True,
    ),
    "rotary, steps that are made": Case(
        "a = MatMul(m, x)\nh = MatMul(a, w)\ng = RotaryEmbedding<num_heads=3>(h, c, s)\n"
        "b = MatMul(n, g)\ny = MatMul(b, v)",
        {"m": (7, 5), "n": (2, 7), "w": (6, 24), "c": (1, 7, 4), "s": (1, 7, 4), "v": (24, 2)},
        [3, 4], (5, 6), 23, ir_version=10, fixed_batch=True,
    ),
    "rotary of onnxruntime, a part": rotary(
        f"{PLACES}g = com.microsoft.RotaryEmbedding<num_heads=3, rotary_embedding_dim=4>"
        "(h, p, c2, s2)",
        [2, 3, 4], 17,
        c2=(9, 2), s2=(9, 2), **PLACED,
    ),
    "rotary of onnxruntime": rotary(
        f"{PLACES}g = com.microsoft.RotaryEmbedding(h, p, cos, sin)", [3, 4], 17, **PLACED
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    batches = (1,) if case.fixed_batch else (1, 3)
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=batches)


READ_CACHES = {
    "packed projections": (
        "h = MatMul(x, w)\na, n = com.microsoft.Attention<num_heads=3>(h, k, b)",
        {"w": (6, 8), "k": (8, 36), "b": (36,), "size": (4, 1), "wo": (12, 2)},
        [3, 4, 8],
        [2, "N", 3, 5, 4],
    ),
    "keys": (
        f"{THREE}a, n, _ = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, u)",
        {**APART, "size": (4, 1)},
        [3, 3, 4],
        ["N", 3, 5, 4],
    ),
    "values": (
        f"{THREE}a, _, n = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, u)",
        {**APART, "size": (3, 1)},
        [3, 3, 4],
        ["N", 3, 5, 3],
    ),
}


@pytest.mark.parametrize("name", READ_CACHES)
def test_caches_that_are_read(name: str) -> None:
    """Heads, and what is in them, are summed over in the caches as well."""
    call, weights, sizes, shape = READ_CACHES[name]
    weights = {**weights, "heads": (1, 3), "end": ints(-1)}
    case = Case(f"{call}\n{READ}\ny = MatMul(g, wo)", weights, sizes, (5, 6), domains=MS)
    model = built(case)
    model.graph.value_info.append(helper.make_tensor_value_info("n", TensorProto.FLOAT, shape))
    prove(model, lambda batch: feed(case, batch), case.sizes)


@pytest.mark.parametrize("caches", ["ck, cv", ","])
@pytest.mark.parametrize("more", ["", ", , m", ", , , sink", ", , one"])
def test_grouped_query(more: str, caches: str) -> None:
    """Six heads that share two, with rotary positions and nothing in the caches, or without.

    A mask is for each head of the query, or one for all; and so is what heads may attend to apart.
    """
    text = f"""{THREE}
        z = Shape(x)
        n = Slice(z, i0, i1)
        l0 = Expand(four, n)
        l = Cast<to=6>(l0)
        cs = Concat<axis=0>(n, two, zero, size)
        ck = ConstantOfShape(cs)
        cv = ConstantOfShape(cs)
        g, pk, pv = com.microsoft.GroupQueryAttention
            <num_heads=6, kv_num_heads=2, do_rotary=1>(q, k, u, #, l, five, cos, sin@)
        y = MatMul(g, wo)
    """
    text = text.replace("@", more).replace("#", caches)
    text = text.replace("GroupQueryAttention\n            <", "GroupQueryAttention<")
    case = Case(
        text,
        {
            "wq": (6, 96), "wk": (6, 32), "wv": (6, 32), "wo": (96, 2), "i0": ints(0),
            "i1": ints(1), "four": ints(4), "two": ints(2), "zero": ints(0), "size": ints(16),
            "five": np.array([5], np.int32), "cos": (9, 8), "sin": (9, 8), "m": (1, 6, 5, 5),
            "sink": (6,), "one": (1, 1, 5, 5),
        },
        [2, 3],
        (5, 6),
        domains=MS,
    )  # fmt: skip
    prove(built(case), lambda batch: feed(case, batch), case.sizes)
