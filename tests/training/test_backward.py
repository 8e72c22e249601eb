"""Reverse accumulation: what is on a path, what is summed, what is refused with which words."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, parser

from onnxprune.errors import ModelError
from onnxprune.training.backward import NoGradientError, backward, blocked, pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Check

F = np.float32
HEAD = '<ir_version: 10, opset_import: ["": 23]> g'


def model(text):
    return parser.parse_model(f"{HEAD} {text}")


def gradients(proto, loss, wanted, feeds):
    """Values of the gradients that `backward` appends."""
    found = backward(GraphBuilder(proto), loss, wanted)
    del proto.graph.output[:]
    for name, gradient in found.items():
        proto.graph.node.append(helper.make_node("Identity", [gradient], [f"d {name}"]))
        proto.graph.output.append(helper.make_tensor_value_info(f"d {name}", 1, None))
    results = evaluate(proto, feeds)
    return {name: results[f"d {name}"].tolist() for name in found}


def test_contributions_are_summed():
    proto = model("(float a, float b) => (float y) { p = Mul(a, b) q = Add(p, a) y = Mul(q, a) }")
    feeds = {"a": np.array(3, F), "b": np.array(5, F)}
    # y = a² b + a²
    assert gradients(proto, "y", ["a", "b"], feeds) == {"a": 36, "b": 9}


def test_same_value_as_both_inputs():
    proto = model("(float a) => (float y) { y = Mul(a, a) }")
    assert gradients(proto, "y", ["a"], {"a": np.array(3, F)}) == {"a": 6}


def test_value_in_between_is_wanted_together_with_what_is_before_it():
    proto = model("(float a) => (float y) { h = Mul(a, a) y = Exp(h) }")
    found = gradients(proto, "y", ["a", "h"], {"a": np.array(0.5, F)})
    assert found["h"] == pytest.approx(np.exp(0.25))
    assert found["a"] == pytest.approx(np.exp(0.25))


def test_loss_itself():
    proto = model("(float a) => (float y) { y = Neg(a) }")
    assert gradients(proto, "y", ["y", "a"], {"a": np.array(1, F)}) == {"y": 1, "a": -1}


@pytest.mark.parametrize("shape", ["float[1]", "float[1,1]", "float[N]"])
def test_loss_with_one_element_of_any_rank(shape):
    proto = model(f"({shape} a) => ({shape} y) {{ y = Neg(a) }}")
    feed = np.ones([1] * (2 if "," in shape else 1), F)
    assert gradients(proto, "y", ["a"], {"a": feed}) == {"a": (-feed).tolist()}


def test_values_off_the_path_get_no_gradient():
    proto = model("(float a, float b) => (float y, float z) { y = Neg(a) z = Mul(a, b) }")
    assert set(backward(GraphBuilder(proto), "y", ["a", "b"])) == {"a"}


def test_no_gradient_passes_integers_and_steps():
    proto = model(
        "(float[2] a, float b) => (float[2] y) "
        "{ i = Cast<to=7>(a) f = Cast<to=1>(i) s = Floor(a) t = Add(f, s) y = Mul(t, b) }"
    )
    found = pull_back(GraphBuilder(proto), {"y": "y"}, ["a", "b"])
    assert set(found) == {"b"}


def test_only_nodes_that_serve_wanted_gradients_stay():
    proto = model(
        "(float[2] a, float[2] b) => (float y) "
        "{ p = Mul(a, b) q = Pow(p, b) s = Softmax(q) y = Clip(s) }"
    )
    builder = GraphBuilder(proto)
    first = len(proto.graph.node)
    found = pull_back(builder, {"p": "b"}, ["a"])
    assert [node.op_type for node in proto.graph.node[first:]] == ["Mul"]
    assert not proto.graph.initializer
    assert found["a"] == proto.graph.node[-1].output[0]


def test_a_second_call_does_not_lean_on_what_the_first_removed():
    proto = model("(float[N,M] a, float[K,M] b) => (float[N,M] y) { y = Add(a, b) }")
    builder = GraphBuilder(proto)
    pull_back(builder, {"y": "y"}, ["a"])
    pull_back(builder, {"y": "y"}, ["b"])
    made = {name.name for name in proto.graph.input} | {t.name for t in proto.graph.initializer}
    for node in proto.graph.node:
        assert made.issuperset(node.input)
        made.update(node.output)


def test_names_in_the_model_are_not_taken_again():
    proto = model('(float a) => (float y) { "grad/n/Neg_0" = Neg(a) y = Neg("grad/n/Neg_0") }')
    for node in proto.graph.node:
        node.name = "n"
    backward(GraphBuilder(proto), "y", ["a"])
    names = [name for node in proto.graph.node for name in node.output]
    assert len(names) == len(set(names))
    onnx.checker.check_model(proto)


def test_a_trained_value_is_no_constant():
    """The rule of Pow must not build in an exponent that training changes."""
    proto = model("(float x) => (float y) <float p = {3}> { q = Neg(p) y = Pow(x, q) }")
    assert gradients(proto, "y", ["x", "p"], {"x": np.array(2, F)})["x"] == pytest.approx(-3 / 16)
    proto = model("(float x) => (float y) <float p = {3}> { y = Pow(x, p) }")
    backward(GraphBuilder(proto), "y", ["x", "p"])
    assert "Pow" in [node.op_type for node in proto.graph.node[1:]]


LSTM = (
    "(float[4,2,3] x, float[1,8,3] w, float[1,8,2] r, float v) => (float[4,1,2,2] y) "
    "{ a = Mul(x, v) [recurrent] h = LSTM<hidden_size=2>(a, w, r) y = Mul(h, v) }"
)


def test_operator_without_a_rule_is_named_with_what_is_behind_it():
    with pytest.raises(NoGradientError) as caught:
        pull_back(GraphBuilder(model(LSTM)), {"h": "h"}, ["w", "v"])
    assert str(caught.value) == (
        "no gradient passes LSTM 'recurrent' (in front of 'w', 'v'); "
        "keep these weights frozen and train the others"
    )
    assert isinstance(caught.value, ModelError)
    assert caught.value.nodes[0].wanted == ("w", "v")


def test_operator_without_a_rule_does_not_matter_off_the_path():
    """In front of the LSTM nothing is wanted; behind it v is."""
    proto = model("(float[4,2,3] x, float[1,8,3] w, float[1,8,2] r, float v) => (float y) "
                  "{ h = LSTM<hidden_size=2>(x, w, r) y = Mul(h, v) }")  # fmt: skip
    assert set(pull_back(GraphBuilder(proto), {"y": "y"}, ["v"])) == {"v"}


def test_body_that_captures_a_wanted_value_is_refused():
    proto = model(
        "(bool c, float w) => (float y) { [choice] y = If(c) <"
        "then_branch = t () => (float p) { p = Neg(w) },"
        "else_branch = e () => (float q) { q = Exp(w) }> }"
    )
    (found,) = blocked(GraphBuilder(proto), "y", ["w"])
    assert (found.label, found.op_type, found.wanted) == ("choice", "If", ("w",))


def test_body_that_captures_nothing_wanted_is_a_constant():
    proto = model(
        "(bool c, float u, float w) => (float y) { h = If(c) <"
        "then_branch = t () => (float p) { p = Neg(u) },"
        "else_branch = e () => (float q) { w = Exp(u) q = Neg(w) }> y = Mul(h, w) }"
    )
    assert set(backward(GraphBuilder(proto), "y", ["w"])) == {"w"}


def test_old_opset_is_refused():
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) { y = Neg(x) }'
    )
    with pytest.raises(ModelError, match="opset 17 and training needs 23"):
        GraphBuilder(proto)


@pytest.mark.parametrize("mode", ["static", "symbolic"])
def test_graph_with_branches_against_finite_differences(mode):
    nodes = parser.parse_graph(
        "g (float[3,4] x0, float[4,5] x1, float[5] x2, float[5,4] x3) => (float[3,4] y0) {"
        "h = MatMul(x0, x1) k = Add(h, x2) a = Gelu<approximate=\"tanh\">(k) g = Sigmoid(k)"
        "m = Mul(a, g) o = Gemm(m, x3) r = Add(o, x0) n = Tanh(r) s = Softmax(n) y0 = Mul(s, r) }"
    ).node  # fmt: skip
    random = np.random.default_rng(1)
    shapes = [(3, 4), (4, 5), (5,), (5, 4)]
    values = {f"x{i}": random.standard_normal(s).astype(F) for i, s in enumerate(shapes)}

    def by_torch(t, x, w, b, v):
        k = x @ w + b
        r = (t.nn.functional.gelu(k, approximate="tanh") * k.sigmoid()) @ v + x
        return r.tanh().softmax(-1) * r

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def by_numpy(x, w, b, v):
        k = x @ w + b
        gelu = k / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (k + 0.044715 * k**3)))
        r = (gelu * sigmoid(k)) @ v + x
        e = np.exp(np.tanh(r))
        return e / e.sum(-1, keepdims=True) * r

    check = Check(nodes, values, ["y0"], torch=by_torch, reference=by_numpy, modes=(mode,))
    check.finite_differences()
    if mode == "static":
        check.pytorch()
