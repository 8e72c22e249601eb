"""Groups and barriers in words."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, parser

from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_barriers, find_groups
from tests.structure.graphs import Case, built, ints

W = {"w": (8, 4, 1, 1), "v": (3, 8, 1, 1)}


def barriers(case: Case) -> list[str]:
    return [str(barrier) for barrier in find_barriers(analyse(built(case)))]


def test_a_group_names_its_weights() -> None:
    case = Case(
        "h = Conv(x, w)\na = Conv<group=8>(h, k)\nb = Add(a, h)\ny = Conv(b, v)",
        {**W, "k": (8, 1, 1, 1)},
        [],
    )
    (group,) = find_groups(analyse(built(case)))
    assert str(group) == "w out = v in = k out, 8 channels, 3 tensors"
    assert group.size == 8
    assert [(m.tensor, m.axis, m.size, m.repeats) for m in group.members] == [
        ("w", 0, 8, 1), ("v", 1, 8, 1), ("k", 0, 8, 1),
    ]  # fmt: skip


def test_heads_and_sizes_of_heads_are_two_groups() -> None:
    case = Case(
        "h = MatMul(x, w)\na = Reshape(h, s)\nb = Relu(a)\nc = Reshape(b, t)\ny = MatMul(c, v)",
        {"w": (6, 8), "s": ints(0, 2, 4), "t": ints(0, 8), "v": (8, 3)},
        [],
        (6,),
    )
    found = {(g.size, g.members[0].repeats, g.members[0].step) for g in
             find_groups(analyse(built(case)))}  # fmt: skip
    assert found == {(2, 4, 1), (4, 2, 4)}


def test_barriers_name_the_node_and_the_reason() -> None:
    case = Case("h = Conv(x, w)\na = Softmax<axis=1>(h)\ny = Conv(a, v)", W, [])
    found = barriers(case)
    assert "w out: 8 stay, 'node1' (Softmax) normalizes over the axis" in found
    assert "v in: 8 stay, 'node1' (Softmax) normalizes over the axis" in found
    assert "v out: 3 stay, 'y' (output) is an output of the model" in found
    assert "w in: 4 stay, 'x' (input) is an input of the model" in found


#: Nodes that a rule knows it cannot follow, and a part of what is said about them.
REFUSED = {
    "com.microsoft.Attention<num_heads=2, do_rotary=1>(s, ka)": "turns its heads by positions",
    "com.microsoft.MultiHeadAttention<num_heads=2>(s)": "key and value packed in one operand",
    "com.microsoft.MultiHeadAttention<num_heads=2>(s, s)": "key and value packed in one operand",
    "com.microsoft.MultiHeadAttention<num_heads=2>(s, five, s)": "key and value packed in one",
    "com.microsoft.GroupQueryAttention<num_heads=2>(s)": "query, key and value packed in one",
    "com.microsoft.GroupQueryAttention<num_heads=2>(s, s)": "query, key and value packed in one",
    "Attention(s, s, s)": "has operands that are not followed",
    "Attention<q_num_heads=1, kv_num_heads=1>(h5, h5, h5)": "has operands that are not followed",
    "com.microsoft.FusedMatMul<transBatchA=1>(h, h)": "moves its batch axes",
    "com.microsoft.FusedMatMul<transBatchB=1>(h, h)": "moves its batch axes",
    "com.microsoft.FusedMatMul(h, vector)": "its operands are no matrices",
    "MatMul(h, scalar)": "its operands are no matrices",
    "MatMul(scalar, h)": "its operands are no matrices",
    "MatMulInteger(h, h, vector)": "has a zero point for each row",
    **{
        f"QLinearMatMul({operands})": "has a scale for each row"
        for operands in (
            "h, vector, s1, h, s1, s1, s1, s1", "h, s1, vector, h, s1, s1, s1, s1",
            "h, s1, s1, h, s1, s1, vector, s1", "h, s1, s1, h, s1, s1, s1, vector",
        )
    },
    "CumSum(h, computed)": "its axis is only known when it runs",
    "ReduceSum(h, axes)": "its axes are only known when it runs",
    "Slice(h, axes, axes, axes)": "its axes are only known when it runs",
    "Pad(h, axes, , axes)": "its axes are only known when it runs",
    "BatchNormalization<spatial=0>(h, vector, vector, vector, vector)": "every position by itself",
    "DequantizeLinear<block_size=2>(h, h)": "has one scale for several indices",
    'Resize<coordinate_transformation_mode="tf_crop_and_resize">(h, , f4)': "crops while it",
    'Resize<axes=[2,3], keep_aspect_ratio_policy="not_larger">(h, , , s2)': "scales all axes",
    "Loop(h, h)": "has a graph of its own",
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED)
def test_nodes_that_are_refused(call: str) -> None:
    lines = f"""
        h = Conv(x, w)
        s = Reshape(h, three)
        h5 = Reshape(h, fives)
        c0 = ReduceMean<keepdims=0>(x)
        computed = Cast<to=7>(c0)
        a0 = Cast<to=7>(x)
        axes = Reshape(a0, flat)
        a = {call}
        y = Conv(h, v)
    """
    weights = {
        **W, "ka": (36, 24), "five": (1, 5, 2, 3, 4), "three": ints(0, 8, 36),
        "fives": ints(0, 8, 6, 3, 2), "flat": ints(-1), "vector": (8,), "s1": (1,),
        "scalar": np.float32(1), "f4": np.ones(4, np.float32), "s2": ints(3, 4),
    }  # fmt: skip
    case = Case(lines, weights, [], opset=21, ir_version=10, domains={"com.microsoft": 1})
    operator = call.partition("<")[0].partition("(")[0].rpartition(".")[2]
    causes = analyse(built(case)).causes
    assert any(c.operator == operator and REFUSED[call] in c.reason for c in causes), causes


#: Operators that nothing is removed through, and a part of what is said about them.
REASONS = {
    "own.Strange": "is an operator without a rule",
    **{
        f"com.microsoft.{name}": "heads are not separated"
        for name in (
            "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention",
            "LongformerAttention", "PackedAttention", "PackedMultiHeadAttention",
            "SparseAttention",
        )
    },
    **dict.fromkeys(
        ("Bernoulli", "EyeLike", "Multinomial", "RandomNormalLike", "RandomUniformLike"),
        "makes new elements",
    ),
    "DynamicQuantizeLinear": "one scale that depends on all elements",
    **dict.fromkeys(
        ("Compress", "NonMaxSuppression", "NonZero", "Unique"), "picks elements by their values"
    ),
    **{
        f"com.microsoft.{name}": "has packed weights"
        for name in ("DynamicQuantizeLSTM", "MatMulBnb4", "MatMulNBits")
    },
    **dict.fromkeys(("If", "Scan", "SequenceMap"), "has a graph of its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONS)
def test_barriers_of_operators(name: str) -> None:
    domains = {"own": 1, "com.microsoft": 1}
    results = "a, s, z" if name.startswith("Dynamic") else "a"
    line = f"h = Conv(x, w)\n{results} = {name}(h)\ny = Conv(h, v)"
    found = barriers(Case(line, W, [], domains=domains))
    operator = name.rpartition(".")[2]
    assert any(f"w out: 8 stay, 'node1' ({operator})" in b and REASONS[name] in b for b in found)
    assert not find_groups(analyse(built(Case(line, W, [], domains=domains))))


def test_graphs_inside_nodes_keep_what_they_read() -> None:
    case = Case("h = Conv(x, w)\nk = Conv(x, w2)\ny = Conv(h, v)", {**W, "w2": (5, 4, 1, 1)}, [])
    model = built(case)
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    body = helper.make_graph([parser.parse_node("o = Abs(k)")], "body", [], [out])
    other = helper.make_graph([parser.parse_node("o = Neg(k)")], "other", [], [out])
    test = parser.parse_node("t = ReduceMax<keepdims=0>(x)")
    cast = parser.parse_node("c = Cast<to=9>(t)")
    node = helper.make_node("If", ["c"], ["z"], "choice", then_branch=body, else_branch=other)
    model.graph.node.extend([test, cast, node])
    coupling = analyse(model)
    assert [group.size for group in find_groups(coupling)] == [8]
    found = [str(barrier) for barrier in find_barriers(coupling)]
    assert any(b.startswith("w2 out: 5 stay, 'choice' (If) has a graph of its own") for b in found)


def test_sizes_and_indices_are_no_members() -> None:
    case = Case(
        "h = Conv(x, w)\na = Resize(h, , s)\nb = Gather<axis=3>(a, i)\ny = Conv(b, v)",
        {**W, "s": np.array([1, 1, 2, 2], np.float32), "i": ints(0, 2, 1)},
        [],
    )
    (group,) = find_groups(analyse(built(case)))
    assert {member.tensor for member in group.members} == {"w", "v"}


def test_a_thousand_nodes_in_a_moment() -> None:
    """Linear in nodes: ten times as many do not take fifty times as long."""
    from time import process_time

    def seconds(blocks: int) -> float:
        lines = ["h0 = Conv(x, w)"]
        weights: dict[str, tuple[int, ...]] = {"w": (64, 4, 1, 1), "v": (3, 64, 1, 1)}
        for i in range(blocks):
            lines += [f"a{i} = Conv(h{i}, k{i}, b{i})", f"r{i} = Relu(a{i})"]
            lines += [f"h{i + 1} = Add(h{i}, r{i})"]
            weights |= {f"k{i}": (64, 64, 1, 1), f"b{i}": (64,)}
        lines.append(f"y = Conv(h{blocks}, v)")
        model = built(Case("\n".join(lines), weights, []))
        start = process_time()
        coupling = analyse(model)
        assert [group.size for group in find_groups(coupling)] == [64]
        return process_time() - start

    seconds(2)
    small, large = seconds(33), seconds(333)
    assert large < 50 * small


def test_many_long_axes_are_not_followed() -> None:
    """A batch of a million that every result has would fill the memory."""
    chain = "\n".join(f"a{i + 1} = Relu(a{i})" for i in range(60))
    nodes = f"a0 = MatMul(x, w)\n{chain}\ny = MatMul(a60, v)"
    for length, followed in ((1000, True), (150_000, False)):
        case = Case(nodes, {"w": (6, 8), "v": (8, 3)}, [], (length, 6))
        coupling = analyse(built(case))
        assert bool(find_groups(coupling)) == followed
        assert any("too many long axes" in barrier for barrier in barriers(case)) != followed
