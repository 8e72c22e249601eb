"""Operators of old opsets: what is different in them is followed, or said to stand in the way.

onnxruntime has no kernels of opset 6 for what broadcasts at an axis: both models of a proof are
brought to opset 8 before it compares them.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper

from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_groups
from tests.structure.dying import prove_constants, zeroed
from tests.structure.graphs import Case, Shape, built, feed
from tests.structure.proof import prove

W: dict[str, Shape | np.ndarray] = {"w": (8, 4, 1, 1), "v": (3, 8, 1, 1)}
BROADCASTING = ("Add", "Div", "Gemm", "Mul", "Pow", "Sub")


def modern(model: ModelProto) -> ModelProto:
    """The same network in opset 8."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    infos = (*inferred.value_info, *inferred.input, *inferred.output)
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in infos}
    ranks |= {tensor.name: len(tensor.dims) for tensor in inferred.initializer}
    copy, nodes = ModelProto.FromString(model.SerializeToString()), []
    copy.opset_import[0].version = copy.ir_version = 8
    for node in copy.graph.node:
        behind = _axes_behind(node, ranks)
        if behind:
            name = f"{node.input[1]}_of_{node.name}"
            axes = list(range(ranks[node.input[1]], ranks[node.input[1]] + behind))
            nodes.append(helper.make_node("Unsqueeze", [node.input[1]], [name], axes=axes))
            node.input[1] = name
        gone = ("axis", "broadcast") if node.op_type in BROADCASTING else ("is_test",)
        kept = [attribute for attribute in node.attribute if attribute.name not in gone]
        nodes.append(NodeProto.FromString(node.SerializeToString()))
        del nodes[-1].attribute[:]
        nodes[-1].attribute.extend(kept)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _axes_behind(node: NodeProto, ranks: dict[str, int]) -> int:
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "PRelu":
        return ranks[node.input[0]] - 2 if ranks[node.input[1]] == 1 else 0
    if node.op_type == "Gemm" or not given.get("broadcast"):
        return 0
    first, second = (ranks[name] for name in node.input)
    return first - second - given.get("axis", first - second) % first


FOLLOWED: dict[str, tuple[str, dict[str, Shape], list[int]]] = {
    "at an axis": ("g = Add<broadcast=1, axis=1>(h, s)", {"s": (8,)}, [8]),
    "at an axis from the end": ("g = Sub<broadcast=1, axis=-3>(h, s)", {"s": (8, 6)}, [8]),
    "behind the channels": ("g = Mul<broadcast=1>(h, s)", {"s": (6, 6)}, [8]),
    "with all axes": ("g = Div<broadcast=1>(h, p)", {"p": (8, 6, 6)}, [8]),
    "with one number": ("a = Abs(h)\ng = Pow<broadcast=1, axis=0>(a, p)", {"p": (1,)}, [8]),
    "not at all": ("k = Conv(x, u)\ng = Add(h, k)", {"u": (8, 4, 1, 1)}, [8]),
    "slopes of channels": ("g = PRelu(h, s)", {"s": (8,)}, [8]),
    "slopes of as many channels as columns": (
        "k = Conv(h, u)\na = PRelu(k, s)\ng = Conv(a, t)",
        {"u": (6, 8, 1, 1), "s": (6,), "t": (8, 6, 1, 1)}, [6, 8, 8]),
    "slopes with further axes": ("g = PRelu(h, s)", {"s": (8, 1, 1)}, [8]),
    "gates of products": (
        "m = GlobalMaxPool(h)\nf = Flatten(m)\nk = Gemm<broadcast=1>(f, a, c)\nq = Relu(k)\n"
        "r = Gemm<broadcast=1, transB=1>(q, d, e)\ng = Mul<broadcast=1, axis=0>(h, r)",
        {"a": (8, 5), "c": (5,), "d": (8, 5), "e": (8,)}, [5, 8]),
    "batch normalization": (
        "g = BatchNormalization<is_test=1>(h, s, t, m, p)", {k: (8,) for k in "stmp"}, [8]),
    "dropout": ("g = Dropout<is_test=1>(h)", {}, [8]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_opset_6(name: str) -> None:
    lines, weights, sizes = FOLLOWED[name]
    text = f"h = Conv(x, w)\n{lines}\ny = Conv(g, v)"
    case = Case(text, {**W, **weights}, sizes, opset=6, ir_version=3)
    prove(built(case), lambda batch: feed(case, batch), sizes, via=modern)


@pytest.mark.parametrize(
    ("lines", "constant"),
    [
        ("g = Add<broadcast=1, axis=1>(h, s)", 2),
        ("a = Add<broadcast=1, axis=1>(h, s)\ng = PRelu(a, t)", 2),
        ("g = Dropout<is_test=1>(h)", 2),
        ("g = Dropout(h)", 0),
        ("g = BatchNormalization(h, s, t, s, p)", 0),
    ],
)
def test_constants_of_opset_6(lines: str, constant: int) -> None:
    weights = {"w": zeroed((6, 4, 1, 1), axis=0, at=(1, 4)), "s": (6,), "t": (6,), "p": (6,)}
    case = Case(f"h = Conv(x, w)\n{lines}\ny = Sigmoid(g)", weights, [], opset=6, ir_version=3)
    facts = prove_constants(built(case), [feed(case, 3)], via=modern)
    assert ("g" in facts) == bool(constant)
    assert not constant or facts["g"].mask.reshape(6).sum() == constant


@pytest.mark.parametrize(
    ("given", "sizes"), [("", [8]), ("<across_channels=0>", [8]), ("<across_channels=1>", [])]
)
def test_mean_and_variance_before_opset_9(given: str, sizes: list[int]) -> None:
    """Not in the standard then; the runtime has it."""
    line = f"g = MeanVarianceNormalization{given}(h)"
    case = Case(f"h = Conv(x, w)\n{line}\ny = Conv(g, v)", W, sizes, opset=8)
    prove(built(case), lambda batch: feed(case, batch), sizes)


BARRIERS = {
    "g = Upsample<height_scale=2.0, width_scale=2.0>(h)": (1, "has a result of unknown shape"),
    "g, k = Split<axis=1>(h, parts)": (1, "has a result of unknown shape"),
    "g = Reshape<shape=[0, 8, 6, 6]>(h)": (4, "has a result of unknown shape"),
    "g = Pad<paddings=[0,0,0,0,0,0,0,0]>(h)": (1, "has a result of unknown shape"),
    "g = Tile(h, one, one)": (5, "has a result of unknown shape"),
    "g = BatchNormalization<spatial=0>(h, t, t, t, t)": (6, "normalizes every position by itself"),
}


@pytest.mark.parametrize("line", BARRIERS)
def test_what_stands_in_the_way_is_said(line: str) -> None:
    opset, reason = BARRIERS[line]
    weights = {**W, "parts": np.full(2, 4, np.float32), "one": (1,), "t": (8, 6, 6)}
    text = f"h = Conv(x, w)\n{line}\ny = Conv(h, v)"
    coupling = analyse(built(Case(text, weights, [], opset=opset, ir_version=3)))
    assert not find_groups(coupling)
    assert reason in {cause.reason for cause in coupling.causes}
