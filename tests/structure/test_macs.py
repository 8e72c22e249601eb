"""Operations against formulas written out by hand, and against PyTorch's counter."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_groups
from onnxprune.structure.macs import WorkCounter, count_parameters, count_work
from onnxprune.structure.removal import remove
from tests.structure.graphs import Case, Shape, built, ints
from tests.structure.proof import half

#: Nodes from x [1, ...] to y, weights, shape of a sample, multiplications written out.
FORMULAS: dict[str, tuple[str, dict[str, Shape | np.ndarray], Shape, int]] = {
    "conv": ("y = Conv<strides=[2, 2]>(x, w)", {"w": (8, 4, 3, 3)}, (4, 9, 9), 8 * 4 * 9 * 16),
    "grouped": ("y = Conv<group=2>(x, w)", {"w": (8, 2, 3, 3)}, (4, 6, 6), 8 * 2 * 9 * 16),
    "transposed": (
        "y = ConvTranspose<group=2, strides=[2, 2]>(x, w)",
        {"w": (4, 3, 2, 2)},
        (4, 5, 5),
        4 * 3 * 4 * 25,
    ),
    "gemm": ("y = Gemm<transA=1>(x, w)", {"w": (1, 5)}, (7,), 7 * 5),
    "matmul": ("y = MatMul(x, w)", {"w": (6, 5)}, (7, 6), 7 * 6 * 5),
    "vector": ("y = MatMul(x, w)", {"w": (6,)}, (7, 6), 7 * 6),
    "dynamic": ("t = Transpose<perm=[0, 2, 1]>(x)\ny = MatMul(x, t)", {}, (7, 6), 7 * 6 * 7),
    "einsum": (
        'y = Einsum<equation="bij,jk,kl->bil">(x, w, v)',
        {"w": (6, 5), "v": (5, 4)},
        (7, 6),
        7 * 6 * 5 + 7 * 5 * 4,
    ),
    "einsum with dots": (
        'y = Einsum<equation="...ij,jk->...ik">(x, w)',
        {"w": (6, 5)},
        (3, 7, 6),
        3 * 7 * 6 * 5,
    ),
    "lstm": (
        "y = LSTM<hidden_size=3>(x, w, r)",
        {"w": (1, 12, 6), "r": (1, 12, 3)},
        (2, 6),
        2 * 12 * (6 + 3),
    ),
    "lstm over steps": (
        "t = Transpose<perm=[1, 0, 2]>(x)\ny = LSTM<hidden_size=3>(t, w, r)",
        {"w": (1, 12, 6), "r": (1, 12, 3)},
        (5, 6),
        5 * 12 * (6 + 3),
    ),
    "elementwise": ("a = Relu(x)\ny = MaxPool<kernel_shape=[2, 2]>(a)", {}, (4, 6, 6), 0),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name: str) -> None:
    nodes, weights, sample, expected = FORMULAS[name]
    work = count_work(built(Case(nodes, weights, [], sample)))
    assert work.macs == expected
    assert work.unknown == ()


#: The same of operators of onnxruntime.
FUSED: dict[str, tuple[str, dict[str, Shape | np.ndarray], Shape, int]] = {
    "product": ("y = com.microsoft.FusedMatMul(x, w)", {"w": (6, 5)}, (7, 6), 7 * 6 * 5),
    "turned product": (
        "y = com.microsoft.FusedMatMul<transA=1>(x, w)", {"w": (7, 5)}, (7, 6), 7 * 6 * 5
    ),
    "convolution": (
        'y = com.microsoft.FusedConv<activation="Relu">(x, w)', {"w": (8, 4, 3, 3)}, (4, 6, 6),
        8 * 4 * 9 * 16,
    ),
    "projections and attention": (
        "y = com.microsoft.Attention<num_heads=2>(x, w)", {"w": (6, 24)}, (5, 6),
        5 * 6 * 24 + 2 * 5 * 5 * 8,
    ),
    "attention": (
        "y = com.microsoft.MultiHeadAttention<num_heads=2>(x, k, v)",
        {"k": (1, 7, 6), "v": (1, 7, 10)}, (5, 6), 5 * 7 * (6 + 10),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FUSED)
def test_formulas_of_fused_operators(name: str) -> None:
    nodes, weights, sample, expected = FUSED[name]
    work = count_work(built(Case(nodes, weights, [], sample, domains={"com.microsoft": 1})))
    assert (work.macs, work.unknown) == (expected, ())


def test_a_node_with_a_graph_of_its_own_is_not_counted() -> None:
    model = built(Case("y = MatMul(x, w)", {"w": (6, 5)}, [], (7, 6)))
    choice = parser.parse_node(
        "z = If(c) <then_branch = t () => (float[5] o) { o = Abs(x) }, "
        "else_branch = e () => (float[5] p) { p = Neg(x) }>"
    )
    choice.name = "choice"
    lines = ("m = ReduceMax<keepdims=0>(x)", "c = Cast<to=9>(m)")
    model.graph.node.extend([*map(parser.parse_node, lines), choice])
    assert count_work(model).unknown == ("choice",)


def test_attention() -> None:
    nodes = "y = Attention<q_num_heads=4, kv_num_heads=2>(x, k, v)"
    weights = {"k": (1, 7, 12), "v": (1, 7, 10)}
    model = built(Case(nodes, weights, [], (5, 24), opset=23))
    # 4 heads: queries of size 6 with 7 keys, then 7 scores with values of size 5.
    assert count_work(model).macs == 4 * 5 * 7 * 6 + 4 * 5 * 7 * 5


def test_open_axes_have_size_one_where_the_graph_takes_it() -> None:
    case = Case("y = MatMul(x, w)", {"w": (6, 5)}, [], (7, 6), free=(0,))
    assert (count_work(built(case)).macs, count_work(built(case)).open_size) == (30, 1)
    case = Case("y = Conv(x, w)", {"w": (8, 4, 3, 3)}, [], (4, 6, 6), free=(1, 2))
    work = count_work(built(case))
    assert (work.macs, work.open_size) == (8 * 4 * 9 * 14 * 14, 16)


def test_nodes_that_are_not_counted_are_named() -> None:
    model = built(
        Case("a = own.Strange(x)\ny = MatMul(a, w)", {"w": (6, 5)}, [], domains={"own": 1})
    )
    assert count_work(model).unknown == ("node1",)
    assert count_work(model).macs == 0


def test_parameters_are_no_sizes() -> None:
    case = Case("a = Reshape(x, s)\ny = MatMul(a, w)", {"w": (6, 5), "s": ints(0, 6)}, [], (2, 3))
    assert count_parameters(built(case)) == 30


def test_without_atoms_is_what_the_smaller_model_has() -> None:
    case = Case(
        "h = Conv(x, w)\na = Conv<group=8>(h, k)\nb = Concat<axis=1>(a, x)\nc = Conv(b, v)\n"
        "f = Flatten(c)\nd = MatMul(f, m)\ny = MatMul(d, n)",
        {"w": (8, 4, 3, 3), "k": (8, 1, 1, 1), "v": (6, 12, 1, 1), "m": (96, 10), "n": (10, 3)},
        [],
    )  # fmt: skip
    case = Case(case.nodes.replace("(a, x)", "(a, z)").replace("b = ", "z = Conv(x, u)\nb = "),
                {**case.weights, "u": (4, 4, 3, 3)}, [])  # fmt: skip
    model = built(case)
    coupling = analyse(model)
    counter = WorkCounter(coupling)
    assert counter.without(()) == count_work(model)
    atoms = [atom for group in find_groups(coupling) for atom in half(group)]
    assert counter.without(atoms) == count_work(remove(model, atoms))
    assert counter.without(atoms).macs < counter.without(()).macs


def test_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from tests.structure.test_exports import CASES, exported, samples

    for name in ("resnext", "mobilenet-v2", "densenet", "unet", "vit", "dcgan"):
        make, sample, _ = CASES[name]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            make().eval()(torch.from_numpy(samples(sample, 1)["x"]))
        assert count_work(exported(name, False)).macs == counter.get_total_flops() // 2
