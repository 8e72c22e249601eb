"""Dead neurons: which go, where their constants go, what stays, and that outputs are the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from onnxprune.errors import OutputError
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure import dead
from onnxprune.structure.dead import Absorbed, DeadRow, shrink
from tests.builders import arrays, mlp
from tests.structure.dying import damaged, prove_shrunk
from tests.structure.graphs import Case, built, feed, ints

RANDOM = np.random.default_rng(11)
PADDED = "h = Conv(x, w, b)\ng = Sigmoid(h)\n"


def zeroed(values: tuple[int, ...] | np.ndarray, *, axis: int, at: tuple[int, ...]) -> np.ndarray:
    """Weights, random where a shape is given, with zeros at whole indices of an axis."""
    shaped = isinstance(values, tuple)
    array = RANDOM.standard_normal(values).astype(np.float32) if shaped else values.copy()
    array[(slice(None),) * axis + (list(at),)] = 0
    return array


def shrunk(case: Case, align: int = 1, tolerance: float = 1e-5) -> tuple[dead.Shrunk, ModelProto]:
    model = built(case)
    done = prove_shrunk(model, [feed(case, 1), feed(case, 3)], tolerance, align)
    return done, to_proto(done.model)


def shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays(model).items()}


def test_what_nobody_reads_and_what_is_constant() -> None:
    model = mlp((6, 8, 3))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    first = zeroed(arrays(model)["fc0.weight"], axis=0, at=(1, 5))
    second = zeroed(arrays(model)["fc1.weight"], axis=1, at=(2, 3, 7))
    bias = arrays(model)["fc0.bias"].copy()
    bias[[1, 5]] = 0.5, -0.5
    for name, array in (("fc0.weight", first), ("fc1.weight", second), ("fc0.bias", bias)):
        tensors[name].CopyFrom(numpy_helper.from_array(array, name))
    done = shrink(read(model))
    assert done.rows == (DeadRow("fc0.weight out = fc1.weight in", 8, 3, 2, 0),)
    assert (done.rows[0].kept, done.removed) == (3, 5)
    assert done.absorbed == Absorbed(("fc1",), ())
    found, left = arrays(to_proto(done.model)), [0, 4, 6]
    np.testing.assert_array_equal(found["fc0.weight"], first[left])
    np.testing.assert_array_equal(found["fc1.weight"], second[:, left])
    expected = arrays(model)["fc1.bias"] + 0.5 * second[:, 1]
    np.testing.assert_allclose(found["fc1.bias"], expected, rtol=1e-6)


def test_without_dead_neurons_the_model_itself_comes_back() -> None:
    model = read(mlp((6, 8, 3)))
    done = shrink(model)
    assert done.model is model and not done.removed
    assert done.reason == "no neuron or channel is dead"


def test_a_chain_of_dead_neurons_goes_at_once() -> None:
    """What feeds only what nobody reads, and what reads only constants: all in one analysis."""
    case = Case(
        "h = Gemm(x, a, ab)\ni = Relu(h)\nj = Gemm(i, b, bb)\nk = Relu(j)\ny = Gemm(k, c, cb)",
        {
            "a": (6, 8), "ab": (8,), "bb": (8,), "cb": (3,),
            # 0 to 3 of the first layer feed 0 to 3 of the second alone, which nobody reads.
            "b": np.block([[RANDOM.standard_normal((4, 4)), np.zeros((4, 4))],
                           [RANDOM.standard_normal((4, 8))]]).astype(np.float32),
            "c": zeroed((8, 3), axis=0, at=(0, 1, 2, 3)),
        },
        [], sample=(6,),
    )  # fmt: skip
    done, model = shrunk(case)
    assert [row.unread for row in done.rows] == [4, 4]
    assert shapes(model)["b"] == (4, 4)
    case.weights["a"] = zeroed((6, 8), axis=1, at=tuple(range(8)))  # type: ignore[index]
    done, model = shrunk(case)
    assert shapes(model)["b"] == (1, 1) and np.isfinite(arrays(model)["cb"]).all()


def test_what_dies_only_after_others_have_gone_goes_too() -> None:
    nodes = (
        "a = Conv<kernel_shape=[1,1], pads=[0,0,0,0]>(x, w, b)\nc = Conv<group=2>(a, v)\n"
        "d = Relu(c)\ne = GlobalMaxPool(d)\nf = Flatten(e)\ng = Gemm(f, m, n)\nh = Relu(g)\n"
        "k = MatMul(h, p)\ny = Identity(k)"
    )
    sizes: dict[str, tuple[int, ...]] = {
        "w": (6, 4, 1, 1), "b": (6,), "v": (2, 3, 1, 1), "m": (2, 5), "n": (5,), "p": (5, 2),
    }  # fmt: skip
    case = Case(nodes, dict(sizes), [], (4, 8, 8))
    prove_shrunk(damaged(built(case), 1, 0.3), [feed(case, batch) for batch in (1, 3)], align=2)


CHAINS = {
    "convolutions": ("h = Conv(x, a)\ni = Relu(h)\nj = Conv(i, b)\nk = Relu(j)\ny = Conv(k, c)",
        (4, 6, 6), lambda array: array.T[..., None, None]),
    "products": ("h = MatMul(x, a)\ni = Relu(h)\nj = MatMul(i, b)\nk = Relu(j)\ny = MatMul(k, c)",
        (5, 4), lambda array: array),
    "einsums": ('h = Einsum<equation="bpi,ih->bph">(x, a)\ni = Relu(h)\n'
        'j = Einsum<equation="bph,hk->bpk">(i, b)\nk = Relu(j)\n'
        'y = Einsum<equation="bpk,ko->bpo">(k, c)', (5, 4), lambda array: array),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_every_kind(name: str) -> None:
    nodes, sample, laid = CHAINS[name]
    middle = RANDOM.standard_normal((8, 8)).astype(np.float32)
    middle[:4, 4:] = 0  # 0 to 3 of the first layer feed 0 to 3 of the second alone
    weights = {
        "a": laid(RANDOM.standard_normal((4, 8)).astype(np.float32)),
        "b": laid(middle),
        "c": laid(zeroed((8, 3), axis=0, at=(0, 1, 2, 3))),
    }
    step = dead.shrink_once(built(Case(nodes, weights, [], sample)))
    assert [row.unread for row in step.rows] == [4, 4]
    shrunk(Case(nodes, weights, [], sample))


def test_circles_that_only_feed_themselves() -> None:
    """A residual stream of which two channels read and write only each other."""
    inner = RANDOM.standard_normal((8, 8)).astype(np.float32)
    inner[:2, 2:] = 0
    case = Case(
        "s = Gemm(x, a)\nh = Tanh(s)\nr = Gemm(h, b)\nt = Add(s, r)\nu = Tanh(t)\n"
        "v = Gemm(u, d)\nw = Add(t, v)\ny = Gemm(w, c)",
        {"a": (6, 8), "b": inner, "d": inner, "c": zeroed((8, 3), axis=0, at=(0, 1))},
        [], sample=(6,),
    )  # fmt: skip
    done, model = shrunk(case)
    assert done.removed == 2 and shapes(model)["b"] == (6, 6)


def test_one_reader_is_enough() -> None:
    case = Case(
        "h = Conv(x, w)\na = Conv(h, v)\nb = Conv(h, k)\ny = Add(a, b)",
        {
            "w": (8, 4, 1, 1),
            "v": zeroed((3, 8, 1, 1), axis=1, at=(0, 1, 2)),
            "k": zeroed((3, 8, 1, 1), axis=1, at=(2, 3)),
        },
        [],
    )
    done, model = shrunk(case)
    assert done.removed == 1 and shapes(model)["w"] == (7, 4, 1, 1)


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


def test_one_channel_of_an_axis_stays() -> None:
    case = Case(
        "h = Conv(x, w, b)\ng = Relu(h)\ny = Conv(g, v, c)",
        {"w": (8, 4, 1, 1), "b": (8,), "v": np.zeros((3, 8, 1, 1), np.float32), "c": (3,)},
        [],
    )
    done, model = shrunk(case)
    assert done.removed == 7 and shapes(model)["v"] == (3, 1, 1, 1)


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


def test_attention_loses_dimensions_of_heads() -> None:
    """Scores read query times key: one of them zero is enough; values are read by the output."""

    def heads(name: str, perm: str) -> str:
        return (f"{name}1 = MatMul(x, w{name})\n{name}2 = Reshape({name}1, s)\n"
                f"{name}3 = Transpose<perm=[{perm}]>({name}2)\n")  # fmt: skip

    weights = {name: RANDOM.standard_normal((6, 8)).astype(np.float32) for name in "qkv"}
    weights["q"].reshape(6, 2, 4)[:, :, 1] = 0  # dimension 1 of both heads
    weights["k"].reshape(6, 2, 4)[:, 0, 2] = 0  # dimension 2 of one head alone
    output = RANDOM.standard_normal((8, 3)).astype(np.float32)
    output.reshape(2, 4, 3)[:, 3] = 0  # what dimension 3 of both heads gives
    case = Case(
        heads("q", "0,2,1,3") + heads("k", "0,2,3,1") + heads("v", "0,2,1,3")
        + "z = MatMul(q3, k3)\np = Softmax<axis=-1>(z)\no = MatMul(p, v3)\n"
        "t = Transpose<perm=[0,2,1,3]>(o)\nr = Reshape(t, u)\ny = MatMul(r, wo)",
        {**{f"w{name}": array for name, array in weights.items()}, "wo": output,
         "s": ints(0, 0, 2, 4), "u": ints(0, 0, 8)},
        [], sample=(5, 6),
    )  # fmt: skip
    done, model = shrunk(case)
    found = shapes(model)
    assert (found["wq"], found["wk"], found["wv"]) == ((6, 6), (6, 6), (6, 6))
    assert done.removed == 2


EINSUMS = {
    "a layer": ("bph,ho->bpo", "g", "v", {"v": zeroed((8, 3), axis=0, at=(0, 2))}, 2),
    "a layer, implicitly": ("ph,ho", "r", "v", {"v": zeroed((8, 3), axis=0, at=(0, 2))}, 2),
    "only where both are zero": ("bph,kho->bpko", "g", "v",
        {"v": np.stack([zeroed((8, 3), axis=0, at=(0, 2)), zeroed((8, 3), axis=0, at=(2,))])}, 1),
    "three terms": ("bph,h,ho->bpo", "g", "n, v",
        {"v": zeroed((8, 3), axis=0, at=(0, 2)), "n": zeroed((8,), axis=0, at=(2, 5))}, 3),
    "nothing": ("bph,bqh->bpq", "g", "g", {}, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", EINSUMS)
def test_letters_of_an_einsum(name: str) -> None:
    equation, first, others, weights, removed = EINSUMS[name]
    case = Case(
        f"h = MatMul(x, w)\ng = Sigmoid(h)\nr = ReduceMean<axes=[0], keepdims=0>(g)\n"
        f'y = Einsum<equation="{equation}">({first}, {others})',
        {"w": (6, 8), **weights},
        [],
        sample=(5, 6),
    )
    assert shrunk(case)[0].removed == removed


@pytest.mark.parametrize("operator", ["com.microsoft.Strange", "LSTM"])
def test_what_is_not_understood_stays(operator: str) -> None:
    case = Case(
        f"h = MatMul(x, w)\ns = {operator}(h)\ny = MatMul(h, v)",
        {"w": (6, 8), "v": zeroed((8, 3), axis=0, at=(1, 2))},
        [], sample=(5, 6), domains={"com.microsoft": 1},
    )  # fmt: skip
    assert shrink(read(built(case))).reason == "no neuron or channel is dead"


def test_graphs_inside_nodes_keep_what_they_read() -> None:
    case = Case(
        "h = Conv(x, w)\ny = Conv(h, v)",
        {"w": (8, 4, 1, 1), "v": zeroed((3, 8, 1, 1), axis=1, at=(0, 1, 2))},
        [],
    )
    model = built(case)
    assert shrink(read(model), align=1).removed == 3
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    bodies = {
        name: helper.make_graph([parser.parse_node(f"o = {op}(h)")], name, [], [out])
        for name, op in (("then_branch", "Abs"), ("else_branch", "Neg"))
    }
    model.graph.node.extend(
        [
            parser.parse_node("t = Constant<value_int=1>()"),
            parser.parse_node("c = Cast<to=9>(t)"),
            helper.make_node("If", ["c"], ["z"], **bodies),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert shrink(read(model), align=1).reason


ROUND = Case(
    "h = Conv(x, w, b)\ng = Sigmoid(h)\np = GlobalMaxPool(g)\nf = Flatten(p)\n"
    "m = Gemm(f, v, c)\nr = Relu(m)\ny = Gemm(r, k)",
    {
        "w": zeroed((24, 4, 1, 1), axis=0, at=(10, 11)), "b": (24,),
        "v": zeroed((24, 20), axis=0, at=(2, 3, 4, 5, 6, 7, 8)), "c": (20,),
        "k": zeroed((20, 3), axis=0, at=(1, 2, 3)),
    },
    [],
)  # fmt: skip


@pytest.mark.parametrize(("align", "left"), [(1, 15), (4, 16), (8, 16), (12, 24), (16, 16)])
def test_convolutions_keep_round_numbers(align: int, left: int) -> None:
    done, model = shrunk(ROUND, align)
    assert shapes(model)["w"] == (left, 4, 1, 1) and shapes(model)["v"] == (left, 17)
    if left == 16:
        # A constant stays rather than a channel that nobody reads.
        assert done.rows[0] == DeadRow("w out = v in", 24, 7, 1, 0, 1)


def test_round_numbers_count_all_channels_of_groups() -> None:
    kernel = zeroed((4, 8, 1, 1), axis=1, at=(0, 3, 5))
    case = Case("h = Conv(x, w)\ny = Conv<group=2>(h, v)", {"w": (16, 4, 1, 1), "v": kernel}, [])
    _, model = shrunk(case, align=4)
    assert shapes(model)["w"] == (12, 4, 1, 1)


def test_vectors_alone_are_no_channels() -> None:
    """A bias of which nobody reads one half is no layer."""
    case = Case(
        "h = MatMul(x, w)\nc = Slice(b, zero, eight)\nd = Add(h, c)\ny = MatMul(d, v)",
        {"w": (6, 8), "v": (8, 3), "b": (16,), "zero": ints(0), "eight": ints(8)},
        [], sample=(5, 6),
    )  # fmt: skip
    assert shrunk(case)[0].reason


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 1e-2), (np.float64, 1e-12)])
def test_other_precisions(dtype: type, tolerance: float) -> None:
    case = Case(
        "h = Gemm(x, a, ab)\ni = Relu(h)\nj = Gemm(i, b)\nk = Relu(j)\nm = MatMul(k, c)\n"
        "y = Add(m, cb)",
        {
            "a": zeroed((6, 8), axis=1, at=(1, 2)), "ab": (8,),
            "b": zeroed((8, 8), axis=0, at=(5,)), "cb": (3,),
            "c": zeroed((8, 3), axis=0, at=(0, 3)),
        },
        [], sample=(6,),
    )  # fmt: skip
    model, kind = built(case), helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = kind
    feeds = [{"x": feed(case, 3)["x"].astype(dtype)}]
    done = prove_shrunk(model, feeds, tolerance)
    assert done.removed >= 4
    smaller = to_proto(done.model)
    assert {t.data_type for t in smaller.graph.initializer} == {kind}


def test_bfloat16() -> None:
    """onnxruntime has no kernels for it here: the reference implementation compares."""
    model = mlp((6, 8, 3))
    first = zeroed(arrays(model)["fc0.weight"], axis=0, at=(1, 5))
    for tensor in model.graph.initializer:
        array = first if tensor.name == "fc0.weight" else numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            helper.make_tensor(tensor.name, TensorProto.BFLOAT16, array.shape, array.reshape(-1))
        )
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.BFLOAT16
    smaller = to_proto(shrink(read(model)).model)
    onnx.checker.check_model(smaller, full_check=True)
    assert {t.data_type for t in smaller.graph.initializer} == {TensorProto.BFLOAT16}
    assert shapes(smaller)["fc0.weight"] == (6, 6)

    def widened(proto: ModelProto) -> ModelProto:
        copy = ModelProto.FromString(proto.SerializeToString())
        for tensor in copy.graph.initializer:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        for info in (*copy.graph.input, *copy.graph.output):
            info.type.tensor_type.elem_type = TensorProto.FLOAT
        return copy

    x = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}
    expected, found = (
        ReferenceEvaluator(widened(proto)).run(None, x)[0] for proto in (model, smaller)
    )
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_biases_of_old_formats(ir_version: int) -> None:
    case = Case(
        "h = Conv(x, w, b)\ng = Sigmoid(h)\nf = Conv(g, v)\ny = Relu(f)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1,)), "b": (8,), "v": (3, 8, 1, 1)},
        [], opset=8, ir_version=ir_version,
    )  # fmt: skip
    done, model = shrunk(case)
    assert done.absorbed.made == ("node2",)
    assert ("f_bias" in {info.name for info in model.graph.input}) == (ir_version == 3)


def test_weights_and_biases_in_constant_nodes() -> None:
    case = Case(
        f"c = Constant<value_floats=[1.0,2.0,3.0]>()\n{PADDED}"
        "d = Conv<pads=[1,1,1,1]>(g, v, c)\ne = Conv(g, n, c)\ns = Sigmoid(e)\n"
        "o = Conv<pads=[1,1,1,1]>(s, m)\ny = Sum(d, o)",
        {
            "w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4, 6)), "b": (8,), "n": (3, 8, 1, 1),
            "v": (3, 8, 3, 3), "m": (3, 3, 3, 3),
        },
        [],
    )  # fmt: skip
    model = built(case)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in ("v", "n")]
    for tensor in model.graph.initializer:
        if tensor.name in ("v", "n"):
            node = helper.make_node("Constant", [], [tensor.name], value=tensor)
            model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    done = prove_shrunk(model, [feed(case, 1), feed(case, 3)])
    assert done.removed == 2


def test_what_is_said_of_the_model_stays() -> None:
    model = mlp((6, 8, 3))
    model.producer_name, model.graph.doc_string = "maker", "about"
    first = zeroed(arrays(model)["fc0.weight"], axis=0, at=(1, 5))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(first, "fc0.weight"))
    told: list[str] = []
    given = read(model)
    done = shrink(given, progress=lambda what, *_: told.append(what))
    smaller = to_proto(done.model)
    assert smaller.producer_name == "maker" and smaller.graph.doc_string == "about"
    assert done.model.origin == given.origin
    assert told == ["looking for dead channels"]


def test_a_model_over_2_gb_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> ModelProto:
        raise OutputError("the model is over 2 GB")

    monkeypatch.setattr(dead, "to_proto", refuse)
    model = read(mlp())
    done = shrink(model)
    assert done.model is model and done.reason == "not looked for: the model is over 2 GB"
