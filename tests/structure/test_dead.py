"""Dead neurons: which go, what stays, and that outputs are the same."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure import dead
from onnxprune.structure.dead import Absorbed, DeadRow, shrink
from tests.builders import arrays, mlp
from tests.structure.dying import RANDOM, damaged, prove_shrunk, shapes, shrunk, zeroed
from tests.structure.graphs import Case, built, feed, ints


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


def test_one_channel_of_an_axis_stays() -> None:
    case = Case(
        "h = Conv(x, w, b)\ng = Relu(h)\ny = Conv(g, v, c)",
        {"w": (8, 4, 1, 1), "b": (8,), "v": np.zeros((3, 8, 1, 1), np.float32), "c": (3,)},
        [],
    )
    done, model = shrunk(case)
    assert done.removed == 7 and shapes(model)["v"] == (3, 1, 1, 1)


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


@pytest.mark.parametrize(("one", "two", "left"), [(4, 3, (12, 16)), (3, 4, (16, 12))])
def test_every_convolution_keeps_a_round_number(one: int, two: int, left: tuple[int, int]) -> None:
    weights = {
        "w": (16, 4, 1, 1), "v": zeroed((16, 16, 1, 1), axis=1, at=tuple(range(one))),
        "k": zeroed((3, 16, 1, 1), axis=1, at=tuple(range(two))),
    }  # fmt: skip
    case = Case(
        "h = Conv(x, w)\na = Relu(h)\ng = Conv(a, v)\nb = Relu(g)\ny = Conv(b, k)", weights, []
    )
    _, model = shrunk(case, align=4)
    assert (shapes(model)["w"][0], shapes(model)["v"][0]) == left


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose", "com.microsoft.FusedConv"])
def test_convolutions_of_every_kind_keep_round_numbers(name: str) -> None:
    turned = name == "ConvTranspose"
    kernel = zeroed((3, 24, 1, 1), axis=1, at=(0, 1, 2, 3, 4, 5, 6))
    case = Case(
        f"h = {name}(x, w)\na = Relu(h)\ny = {name}(a, v)",
        {
            "w": (4, 24, 1, 1) if turned else (24, 4, 1, 1),
            "v": kernel.swapaxes(0, 1).copy() if turned else kernel,
        },
        [],
        domains={"com.microsoft": 1},
    )
    _, model = shrunk(case, align=4)
    assert sorted(shapes(model)["v"]) == [1, 1, 3, 20]


def test_round_numbers_count_all_channels_of_groups() -> None:
    kernel = zeroed((4, 8, 1, 1), axis=1, at=(0, 3, 5))
    case = Case("h = Conv(x, w)\ny = Conv<group=2>(h, v)", {"w": (16, 4, 1, 1), "v": kernel}, [])
    _, model = shrunk(case, align=4)
    assert shapes(model)["w"] == (12, 4, 1, 1)


def test_constants_go_into_a_bias_that_a_node_lists() -> None:
    case = Case(
        "h = Conv(x, w, b)\nc = Constant<value_floats=[1.0,2.0,3.0]>()\ny = Conv(h, v, c)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(2, 5)), "b": (8,), "v": (3, 8, 1, 1)},
        [],
    )
    assert shapes(shrunk(case)[1])["w"] == (6, 4, 1, 1)


def test_vectors_alone_are_no_channels() -> None:
    """A bias of which nobody reads one half is no layer."""
    case = Case(
        "h = MatMul(x, w)\nc = Slice(b, zero, eight)\nd = Add(h, c)\ny = MatMul(d, v)",
        {"w": (6, 8), "v": (8, 3), "b": (16,), "zero": ints(0), "eight": ints(8)},
        [], sample=(5, 6),
    )  # fmt: skip
    assert shrunk(case)[0].reason


def test_a_recurrent_layer_that_is_read_for_its_last_state_alone() -> None:
    model = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[5, n, 6] x) => (float[n, 3] y) {
            unread, h = LSTM <hidden_size = 4> (x, w, r)
            zero = Constant <value = int64 {0}> () s = Gather (h, zero)
            a = Gemm <transB = 1> (s, w1, b1) p = Relu (a) y = Gemm <transB = 1> (p, w2) }""")
    model.graph.node[0].output[0] = ""
    random = np.random.default_rng(0)
    shapes = {"w": (1, 16, 6), "r": (1, 16, 4), "w1": (10, 4), "b1": (10,), "w2": (3, 10)}
    for name, shape in shapes.items():
        array = random.standard_normal(shape).astype(np.float32)
        if name == "w2":
            array[:, ::2] = 0
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    x = random.standard_normal((5, 2, 6)).astype(np.float32)
    assert prove_shrunk(model, [{"x": x}], align=1).removed == 5
