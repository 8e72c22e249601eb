"""Dead neurons that are constants: where these go, and when they stay."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.structure.dead import Absorbed
from tests.builders import arrays
from tests.structure.dying import PADDED, shapes, shrunk, zeroed
from tests.structure.graphs import Case, ints

#: Consumers of the constants that h has in channels 1 and 4: nodes, weights, where the share went.
CONSUMERS = {
    "a convolution with a bias": ("y = Conv(g, v, c)", {"v": (3, 8, 3, 3), "c": (3,)}, (1, 0)),
    "one without": ("y = Conv(g, v)", {"v": (3, 8, 3, 3)}, (0, 1)),
    "one without padding": ("y = Conv<pads=[0,0,0,0]>(g, v)", {"v": (3, 8, 3, 3)}, (0, 1)),
    "automatic padding of single taps": (
        'y = Conv<auto_pad="SAME_UPPER">(g, v)', {"v": (3, 8, 1, 1)}, (0, 1)),
    "a fused convolution": (
        'y = com.microsoft.FusedConv<activation="Relu">(g, v, c)',
        {"v": (3, 8, 3, 3), "c": (3,)}, (1, 0)),
    "a computed bias": (
        "d = Abs(c)\ne = ReduceMax<axes=[0,1,2,3]>(x)\nf = Mul(d, e)\n"
        "i = Reshape(f, s)\ny = Conv(g, v, i)",
        {"v": (3, 8, 3, 3), "c": (3,), "s": ints(3)}, (0, 1)),
    "Gemm": ("p = GlobalMaxPool(g)\nf = Flatten(p)\ny = Gemm(f, v, c)",
        {"v": (8, 3), "c": (3,)}, (1, 0)),
    "Gemm with factors": (
        "p = GlobalMaxPool(g)\nf = Flatten(p)\ny = Gemm<alpha=0.5, beta=3.0, transB=1>(f, v, c)",
        {"v": (3, 8), "c": (3,)}, (1, 0)),
    "Gemm with one bias for all": (
        "p = GlobalMaxPool(g)\nf = Flatten(p)\ny = Gemm(f, v, c)",
        {"v": (8, 3), "c": (1,)}, (1, 0)),
    "Gemm without a bias": (
        "p = GlobalMaxPool(g)\nf = Flatten(p)\ny = Gemm<beta=2.0>(f, v)", {"v": (8, 3)}, (0, 1)),
    "Gemm with an unused bias": (
        "p = GlobalMaxPool(g)\nf = Flatten(p)\ny = Gemm<beta=0.0>(f, v, c)",
        {"v": (8, 3), "c": (3,)}, (0, 1)),
    "Gemm with a bias of rows": (
        "p = GlobalMaxPool(g)\nf = Flatten(p)\nt = Transpose(f)\ny = Gemm<transA=1>(t, v, c)",
        {"v": (8, 3), "c": (1, 3)}, (1, 0)),
    "a product and a bias": ("t = Transpose<perm=[0,2,3,1]>(g)\nm = MatMul(t, v)\ny = Add(c, m)",
        {"v": (8, 3), "c": (3,)}, (1, 0)),
    "a product that two read": (
        "t = Transpose<perm=[0,2,3,1]>(g)\nm = MatMul(t, v)\ne = Add(m, c)\ny = Mul(e, m)",
        {"v": (8, 3), "c": (3,)}, (0, 1)),
    "a product and a shift of positions": (
        "t = Transpose<perm=[0,2,3,1]>(g)\nm = MatMul(t, v)\ny = Add(m, c)",
        {"v": (8, 3), "c": (6, 3)}, (1, 0)),
    "a product alone": (
        "t = Transpose<perm=[0,2,3,1]>(g)\ny = MatMul(t, v)", {"v": (8, 3)}, (0, 1)),
    "a product from the left": (
        "r = Reshape(g, s)\nm = MatMul(v, r)\ny = Add(m, c)",
        {"s": ints(0, 8, -1), "v": (3, 8), "c": (3, 1)}, (1, 0)),
    "products of a batch": (
        "r = Reshape(g, s)\nt = Transpose<perm=[0,2,1]>(r)\nq = Unsqueeze(t, one)\n"
        "y = MatMul(q, v)",
        {"s": ints(0, 8, -1), "one": ints(1), "v": (2, 8, 3)}, (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSUMERS)
def test_constants_become_biases(name: str) -> None:
    lines, weights, (existing, made) = CONSUMERS[name]
    case = Case(
        f"h = Conv(x, w, b)\ng = Sigmoid(h)\n{lines}",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4)), "b": (8,), **weights},
        [],
        domains={"com.microsoft": 1},
    )
    done, model = shrunk(case, tolerance=2e-6)
    assert (len(done.absorbed.existing), len(done.absorbed.made)) == (existing, made)
    assert [(row.size, row.constant) for row in done.rows] == [(8, 2)]
    assert shapes(model)["w"] == (6, 4, 1, 1)


def test_channels_of_groups_go_with_their_like() -> None:
    case = Case(
        "h = Conv(x, w, b)\ng = Relu(h)\ny = Conv<group=2>(g, v, c)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1, 5)), "b": (8,), "v": (4, 4, 3, 3), "c": (4,)},
        [],
    )
    done, model = shrunk(case)
    assert done.removed == 1 and shapes(model)["v"] == (4, 3, 3, 3)
    assert done.absorbed.existing == ("node2",)


def test_a_bias_that_others_read_stays_theirs() -> None:
    case = Case(
        f"{PADDED}f = Conv(g, v, c)\nk = Softmax<axis=0>(c)\nq = Reshape(k, s)\ny = Add(f, q)",
        {
            "w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4)), "b": (8,), "v": (3, 8, 1, 1),
            "c": (3,), "s": ints(3, 1, 1),
        },
        [],
    )  # fmt: skip
    done, model = shrunk(case)
    assert done.removed == 2 and {"c", "f_bias"} <= set(arrays(model))


@pytest.mark.parametrize("consumer", ["Conv<pads=[1,1,1,1]>", "ConvTranspose<strides=[2,2]>"])
def test_padded_constants_become_one(consumer: str) -> None:
    kernel = (3, 8, 3, 3) if consumer.startswith("Conv<") else (8, 3, 3, 3)
    case = Case(
        f"{PADDED}y = {consumer}(g, v)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4, 6)), "b": (8,), "v": kernel},
        [],
    )
    done, model = shrunk(case)
    assert [(row.constant, row.merged) for row in done.rows] == [(0, 2)]
    assert shapes(model)["w"] == (6, 4, 1, 1) and "b" in arrays(model)


def test_a_single_padded_constant_stays() -> None:
    case = Case(
        f"{PADDED}y = Conv<pads=[1,1,1,1]>(g, v)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1,)), "b": (8,), "v": (3, 8, 3, 3)},
        [],
    )
    assert shrunk(case)[0].reason


def test_padded_zeros_go() -> None:
    bias = np.array([1, -1, 1, 1, -2, 1, 1, 1], np.float32)
    case = Case(
        "h = Conv(x, w, b)\ng = Relu(h)\ny = Conv<pads=[1,1,1,1]>(g, v)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4)), "b": bias, "v": (3, 8, 3, 3)},
        [],
    )
    done, _ = shrunk(case)
    assert [(row.constant, row.merged) for row in done.rows] == [(2, 0)]
    assert done.absorbed == Absorbed()


def test_two_padded_readers_share_the_one_that_stays() -> None:
    case = Case(
        f"{PADDED}d = Conv<pads=[1,1,1,1]>(g, v)\ni = Sigmoid(g)\n"
        "e = Conv<pads=[1,1,1,1]>(i, k)\nf = Conv(g, n)\no = Pad(f, p)\ny = Sum(d, e, o)",
        {
            "w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4, 6, 7)), "b": (8,), "v": (3, 8, 3, 3),
            "k": (3, 8, 3, 3), "n": (3, 8, 3, 3), "p": ints(0, 0, 1, 1, 0, 0, 1, 1),
        },
        [],
    )  # fmt: skip
    done, _ = shrunk(case)
    assert [(row.constant, row.merged) for row in done.rows] == [(0, 3)]
    assert done.absorbed.made == ("node5",)


def test_constants_of_very_different_size_are_not_merged() -> None:
    """A weight would be a thousand times larger than those beside it."""
    bias = np.array([1, 1e-3, 1, 1, 2, 1, 1, 1], np.float32)
    case = Case(
        "g = Conv(x, w, b)\ny = Conv<pads=[1,1,1,1]>(g, v)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4)), "b": bias, "v": (3, 8, 3, 3)},
        [],
    )
    done, model = shrunk(case)
    assert done.removed == 1
    assert 2 in arrays(model)["b"]  # the small one goes into the large one


def test_constants_are_merged_only_where_that_is_harmless_everywhere() -> None:
    """Each of two readers sees another constant large: neither channel can stand for the other."""
    scale = np.ones((8, 1, 1), np.float32)
    scale[1], scale[4] = 1e-3, 1e3
    case = Case(
        "g = Conv(x, w, b)\nd = Conv<pads=[1,1,1,1]>(g, v)\ni = Mul(g, s)\n"
        "e = Conv<pads=[1,1,1,1]>(i, k)\ny = Add(d, e)",
        {
            "w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4)),
            "b": np.array([1, 1, 1, 1, 2e-2, 1, 1, 1], np.float32),
            "s": scale, "v": (3, 8, 3, 3), "k": (3, 8, 3, 3),
        },
        [],
    )  # fmt: skip
    assert shrunk(case)[0].reason


def test_a_merge_does_not_touch_weights_that_others_read() -> None:
    case = Case(
        f"{PADDED}i = Tanh(h)\nd = Conv<pads=[1,1,1,1]>(g, v)\ne = Conv<pads=[1,1,1,1]>(i, v)\n"
        "y = Add(d, e)",
        {"w": zeroed((4, 4, 1, 1), axis=0, at=(1, 3)), "b": (4,), "v": (3, 4, 3, 3)},
        [],
    )
    assert shrunk(case)[0].reason


def test_shared_weights_of_two_branches() -> None:
    """The same layer twice: each of them has its own constants, and its own bias."""
    case = Case(
        "a = MatMul(x, w)\nb = Add(a, s)\nc = Sigmoid(b)\nd = MatMul(c, v)\n"
        "e = MatMul(x, k)\nf = Add(e, t)\ng = MatMul(f, v)\ny = Sub(d, g)",
        {
            "w": zeroed((6, 8), axis=1, at=(1, 4, 5)), "k": zeroed((6, 8), axis=1, at=(1, 4, 6)),
            "s": (8,), "t": (8,), "v": (8, 3),
        },
        [], sample=(6,),
    )  # fmt: skip
    done, model = shrunk(case)
    assert done.removed == 2 and len(done.absorbed.made) == 2
    assert [node.op_type for node in model.graph.node].count("Add") == 4
