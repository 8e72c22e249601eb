"""A branch that is always taken stands in the graph itself; what is a choice stays one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, checker, parser

from onnxprune.model.tensors import subgraphs
from onnxprune.structure.branches import take_branches
from tests.structure.proof import run

#: Nodes from x [N, 4] to y, how many Ifs are left anywhere, and constants.
YES, NO = "<bool c = {1}>", "<bool c = {0}>"
BRANCHES = """<
    then_branch = t () => (float[N, 4] o) { a = Relu(x) o = Mul(a, a) },
    else_branch = e () => (float[N, 4] p) { a = Neg(x) p = Exp(a) }
>"""
CHOSEN = """<
    then_branch = t () => (float[N, 4] o) { o = Relu(a) },
    else_branch = e () => (float[N, 4] o) { b = Neg(a) o = Exp(b) }
>"""
CASES = {
    "then": (f"y = If(c) {BRANCHES}", 0, YES),
    "else": (f"y = If(c) {BRANCHES}", 0, NO),
    "by a vector of one": (f"y = If(c) {BRANCHES}", 0, "<bool[1] c = {0}>"),
    "one after the other": (f"z = If(c) {BRANCHES} a = If(c) {BRANCHES} y = Sub(a, z)", 0, YES),
    "by a size": (
        f"s = Shape(x) n = Gather(s, one) c = Less(n, one) y = If(c) {BRANCHES}", 0,
        "<int64 one = {1}>",
    ),
    "by an element": (
        f"m = ReduceMax<keepdims = 0>(x) c = Less(m, zero) y = If(c) {BRANCHES}", 1,
        "<float zero = {0}>",
    ),
    "with tensors of its own": (
        """y = If(c) <
            then_branch = t () => (float[N, 4] o)
                <float[4] w = {1, 2, 3, 4}, float b = {5}> { a = Mul(x, w) o = Add(a, b) },
            else_branch = e () => (float[N, 4] p) { p = Neg(x) }
        >""", 0, YES,
    ),
    "with two results": (
        """z, u = If(c) <
            then_branch = t () => (float[N, 4] o, float[N, 4] a) { a = Neg(x) o = Exp(a) },
            else_branch = e () => (float[N, 4] p, float[N, 4] q) { p = Neg(x) q = Neg(x) }
        > y = Sub(z, u)""", 0, YES,
    ),
    "one inside the other": (
        f"""y = If(c) <
            then_branch = t () => (float[N, 4] o) {{ a = Neg(x) o = If(c) {CHOSEN} }},
            else_branch = e () => (float[N, 4] p) {{ p = Neg(x) }}
        >""", 0, YES,
    ),
    "with a choice inside": (
        f"""z = If(c) <
            then_branch = t () => (float[N, 4] o)
                {{ a = Neg(x) m = ReduceMax<keepdims = 0>(a) d = Less(m, zero)
                   o = If(d) {CHOSEN} }},
            else_branch = e () => (float[N, 4] p) {{ p = Neg(x) }}
        > a = Exp(z) y = Sub(a, z)""", 1, "<bool c = {1}, float zero = {0}>",
    ),
    "with a choice inside a choice": (
        f"""z = If(c) <
            then_branch = t () => (float[N, 4] o)
                {{ a = Neg(x) m = ReduceMax<keepdims = 0>(a) d = Less(m, zero) o = If(d) <
                    then_branch = u () => (float[N, 4] q)
                        {{ g = Less(zero, m) q = If(g) {CHOSEN} }},
                    else_branch = v () => (float[N, 4] q) {{ q = Sin(a) }}
                > }},
            else_branch = e () => (float[N, 4] p) {{ p = Neg(x) }}
        > a = Exp(z) y = Sub(a, z)""", 2, "<bool c = {1}, float zero = {0}>",
    ),
}  # fmt: skip


def model_of(nodes: str, constants: str) -> ModelProto:
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    return parser.parse_model(
        f"{head} g (float[N, 4] x) => (float[N, 4] y) {constants} {{{nodes}}}"
    )


def choices(graph: GraphProto) -> Iterator[str]:
    for index, node in enumerate(graph.node):
        if node.op_type == "If":
            yield node.output[0]
        for _, body in subgraphs(node, index):
            yield from choices(body)


@pytest.mark.parametrize("name", CASES)
def test_branches(name: str) -> None:
    nodes, left, constants = CASES[name]
    model = model_of(nodes, constants)
    whole = ModelProto.FromString(model.SerializeToString())
    sizes = take_branches(model)
    assert len(list(choices(model.graph))) == left
    assert sizes.shape("y") is not None
    checker.check_model(model, full_check=True)
    for sign in (1, -1):
        feeds = {"x": sign * np.arange(1, 13, dtype=np.float32).reshape(3, 4) / 8}
        (expected,), (found,) = run(whole, feeds), run(model, feeds)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_value_from_outside_that_is_the_result() -> None:
    """Older exporters write it; onnxruntime does not read it, but what becomes of it."""
    nodes = """a = Relu(x) z = If(c) <
        then_branch = t () => (float[N, 4] a) { },
        else_branch = e () => (float[N, 4] p) { p = Neg(x) }
    > y = Neg(z)"""
    model = model_of(nodes, YES)
    take_branches(model)
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    (found,) = run(model, {"x": x})
    np.testing.assert_array_equal(found, -np.maximum(x, 0))


def test_a_value_from_outside_that_is_the_result_of_a_choice() -> None:
    nodes = """z = If(c) <
        then_branch = t () => (float[N, 4] o)
            { a = Neg(x) m = ReduceMax<keepdims = 0>(a) d = Less(m, zero) o = If(d) <
                then_branch = u () => (float[N, 4] a) { },
                else_branch = v () => (float[N, 4] q) { q = Exp(a) }
            > },
        else_branch = e () => (float[N, 4] p) { p = Neg(x) }
    > a = Exp(z) y = Sub(a, z)"""
    model = model_of(nodes, "<bool c = {1}, float zero = {0}>")
    take_branches(model)
    for sign in (1, -1):
        x = sign * np.linspace(0.5, 1, 8, dtype=np.float32).reshape(2, 4)
        z = -x if sign == 1 else np.exp(-x)
        (found,) = run(model, {"x": x}, reference=True)
        np.testing.assert_allclose(found, np.exp(z) - z, rtol=1e-6)


def test_an_if_of_another_domain_stays() -> None:
    model = model_of(f"y = If(c) {BRANCHES}", YES)
    model.graph.node[0].domain = "own"
    before = model.SerializeToString()
    take_branches(model)
    assert model.SerializeToString() == before
