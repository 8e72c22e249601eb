"""Dropout: which layers count, in every opset's form, and what the rewritten file holds."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph.dropout import find_dropouts, rewrite_dropouts, rewritten_ratio
from onnxprune.graph.layers import find_layers
from onnxprune.model.model import Model

F = np.float32
W = np.ones((3, 4), F)
V = np.ones((4, 4), F)
HEAD = "g (float[2, 3] x) => (float[2, 4] y)"


def sites(model):
    return find_dropouts(model, find_layers(model).layers)


def feeding(model):
    return [[address.name for address in site.feeding] for site in sites(model)]


def reasons(model):
    return [site.reason for site in sites(model)]


def rewritten(model, *ratios):
    """The model with these ratios, checked; and the ratios that a second look finds."""
    found = sites(model)
    changed = rewrite_dropouts(model, dict(zip(found, ratios, strict=True)))
    onnx.checker.check_model(changed.proto, full_check=True)
    return changed, [site.ratio for site in sites(changed)]


def run(model):
    """Outputs of a model in onnxruntime, on ones."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.proto.SerializeToString())
    feeds = {i.name: np.ones([2, 3], F) for i in session.get_inputs() if i.name == "x"}
    return session.run(None, feeds)


def test_the_formula_by_hand():
    # A quarter of the connections left: the ratio halves.
    assert rewritten_ratio(0.5, 1000, 250) == 0.25
    # 100 of 300 left: 0.6 / sqrt(3).
    assert rewritten_ratio(0.6, 300, 100) == pytest.approx(0.34641016151377546, abs=1e-15)
    assert rewritten_ratio(0.3, 7, 0) == 0.0
    assert rewritten_ratio(0.3, 0, 0) == 0.3


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10**9), st.data())
def test_the_ratio_never_grows_while_connections_shrink(ratio, before, data):
    after = data.draw(st.integers(0, before))
    new = rewritten_ratio(ratio, before, after)
    assert 0 <= new <= ratio
    assert rewritten_ratio(ratio, before, before) == ratio


ATTRIBUTES = [
    (6, "Dropout<ratio = 0.4, is_test = 1>(h)", 0.4),
    (7, "Dropout<ratio = 0.4>(h)", 0.4),
    (7, "Dropout(h)", 0.5),
    (10, "Dropout<ratio = 0.25>(h)", 0.25),
]


@pytest.mark.parametrize(("opset", "line", "ratio"), ATTRIBUTES)
def test_below_opset_12_the_attribute_is_set(build, opset, line, ratio):
    text = f"{HEAD} {{ h = MatMul(x, w) y = {line} }}"
    model = build(text, opset=opset, ir=4, w=W)
    (site,) = sites(model)
    assert site.ratio == pytest.approx(ratio)
    assert [address.name for address in site.feeding] == ["w"]
    changed, ratios = rewritten(model, 0.125)
    assert ratios == [0.125]
    node = changed.proto.graph.node[1]
    assert len(node.input) == 1
    assert {a.name for a in node.attribute} >= {"ratio"}
    assert [a.i for a in node.attribute if a.name == "is_test"] == [1] * (opset == 6)
    if opset >= 7:
        np.testing.assert_array_equal(run(changed)[0], run(model)[0])


@pytest.mark.parametrize("opset", [12, 13, 22])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_from_opset_12_a_ratio_of_its_own_is_changed_in_place(build, opset, kind):
    text = f"{HEAD} {{ h = MatMul(x, w) y = Dropout<seed = 3>(h, r) }}"
    model = build(text, opset=opset, w=W, r=kind(0.5))
    changed, ratios = rewritten(model, 0.25)
    assert ratios == [0.25]
    assert [t.name for t in changed.proto.graph.initializer] == ["w", "r"]
    assert numpy_helper.to_array(changed.proto.graph.initializer[1]).dtype == kind
    assert changed.proto.graph.node == model.proto.graph.node
    np.testing.assert_array_equal(run(changed)[0], run(model)[0])


@pytest.mark.parametrize("opset", [12, 13, 22])
def test_a_missing_ratio_is_one_half_and_is_added(build, opset):
    text = f"{HEAD} {{ h = MatMul(x, w) k = Dropout(h) y = Dropout(k, , t) }}"
    model = build(text, opset=opset, w=W, t=np.array(False))
    assert [site.ratio for site in sites(model)] == [0.5, 0.5]
    changed, ratios = rewritten(model, 0.25, 0.125)
    assert ratios == [0.25, 0.125]
    first, second = changed.proto.graph.node[1:]
    assert len(first.input) == 2
    assert second.input[2] == "t"
    assert first.input[1] != second.input[1]
    np.testing.assert_array_equal(run(changed)[0], run(model)[0])


@pytest.mark.parametrize("opset", [12, 13, 22])
def test_a_shared_ratio_is_unshared(build, opset):
    text = f"""{HEAD} {{ h = MatMul(x, w) a = Dropout(h, r)
        k = MatMul(a, v) b = Dropout(k, r) y = Dropout(b, r) }}"""
    model = build(text, opset=opset, w=W, v=V, r=F(0.5))
    assert feeding(model) == [["w"], ["v"], ["v"]]
    changed, ratios = rewritten(model, 0.25, 0.125, 0.5)
    assert ratios == [0.25, 0.125, 0.5]
    names = [t.name for t in changed.proto.graph.initializer]
    assert len(names) == len(set(names)) == 5
    everything, ratios = rewritten(model, 0.25, 0.125, 0.0625)
    assert ratios == [0.25, 0.125, 0.0625]
    # The last of the sharers keeps the constant, so that none is left over.
    assert len(everything.proto.graph.initializer) == 5
    np.testing.assert_array_equal(run(changed)[0], run(model)[0])


def test_a_ratio_that_something_else_reads_is_left_to_it(build):
    text = f"{HEAD} {{ h = MatMul(x, w) k = Dropout(h, r) y = Mul(k, r) }}"
    model = build(text, w=W, r=F(0.5))
    changed, ratios = rewritten(model, 0.25)
    assert ratios == [0.25]
    assert numpy_helper.to_array(changed.proto.graph.initializer[1]) == 0.5
    np.testing.assert_array_equal(run(changed)[0], run(model)[0])


@pytest.mark.parametrize("held", ["value = float {0.5}", "value_float = 0.5"])
def test_a_ratio_in_a_constant_node(build, held):
    text = f"{HEAD} {{ r = Constant<{held}>() h = MatMul(x, w) y = Dropout(h, r) }}"
    changed, ratios = rewritten(build(text, w=W), 0.25)
    assert ratios == [0.25]
    assert len(changed.proto.graph.node) == 3
    assert len(changed.proto.graph.initializer) == 1


def test_a_ratio_listed_as_graph_input(build):
    text = "g (float[2, 3] x, float r) => (float[2, 4] y) { h = MatMul(x, w) y = Dropout(h, r) }"
    model = build(text, w=W, r=F(0.5))
    changed, ratios = rewritten(model, 0.25)
    assert ratios == [0.25]
    np.testing.assert_array_equal(run(changed)[0], run(model)[0])


def test_before_ir_4_a_new_ratio_is_listed_as_an_input(build):
    text = "g (float[2, 3] x, float[3, 4] w) => (float[2, 4] y) { h = MatMul(x, w) y = Dropout(h) }"
    changed, ratios = rewritten(build(text, opset=12, ir=3, w=W), 0.25)
    assert ratios == [0.25]
    listed = {value.name for value in changed.proto.graph.input}
    assert {t.name for t in changed.proto.graph.initializer} <= listed


def test_an_unchanged_ratio_leaves_the_model_as_it_was(build):
    model = build(f"{HEAD} {{ h = MatMul(x, w) y = Dropout(h, r) }}", w=W, r=F(0.1))
    (site,) = sites(model)
    assert rewrite_dropouts(model, {site: site.ratio}) is model
    # Too small a change for the stored type is no change either.
    assert rewrite_dropouts(model, {site: math.nextafter(site.ratio, 1)}) is model
    assert rewrite_dropouts(model, {}) is model


def test_the_given_model_is_never_changed(build):
    model = build(f"{HEAD} {{ h = MatMul(x, w) y = Dropout(h, r) }}", w=W, r=F(0.5))
    before = model.proto.SerializeToString(deterministic=True)
    rewritten(model, 0.25)
    assert model.proto.SerializeToString(deterministic=True) == before


UP = [
    ("h = MatMul(x, w) a = Relu(h) y = Dropout(a)", ["w"]),
    ("h = Gemm(x, w, b) a = LayerNormalization(h, b) y = Dropout(a)", ["w"]),
    ("h = MatMul(x, w) a = Add(h, b) r = Reshape(a, s) y = Dropout(r)", ["w"]),
    ("h = MatMul(x, w) k = MatMul(h, v) a = Add(h, k) y = Dropout(a)", ["w", "v"]),
    ("h = MatMul(x, w) k = MatMul(h, v) a = Concat<axis = 0>(h, k) y = Dropout(a)", ["w", "v"]),
    ("h = MatMul(x, w) g = Sigmoid(h) a = Mul(h, g) y = Dropout(a)", ["w"]),
    ("h = MatMul(x, w) d = Dropout(h) k = Relu(d) y = Identity(k)", ["w"]),
    ("h, q = LSTM<hidden_size = 4>(x, l, m) k = Squeeze(h) y = Dropout(k)", ["l", "m"]),
    (
        "q = MatMul(x, w) k = MatMul(x, u) t = Transpose(k) p = MatMul(q, t) y = Dropout(p)",
        ["w", "u"],
    ),
]
ARRAYS = {
    "w": W,
    "v": V,
    "u": W,
    "b": np.ones(4, F),
    "s": np.array([2, 4]),
    "l": np.ones((1, 16, 3), F),
    "m": np.ones((1, 16, 4), F),
}


@pytest.mark.parametrize(("body", "expected"), UP)
def test_layers_whose_outputs_are_dropped(build, body, expected):
    assert feeding(build(f"{HEAD} {{ {body} }}", **ARRAYS)) == [expected]


def test_several_feeding_layers_count_with_their_sum(build):
    body = "h = MatMul(x, w) k = MatMul(h, v) a = Add(h, k) y = Dropout<seed = 1>(a, r)"
    model = build(f"{HEAD} {{ {body} }}", **ARRAYS, r=F(0.5))
    (site,) = sites(model)
    # w keeps 3 of its 12 connections, v keeps 4 of its 16: 7 of 28, a quarter.
    before = {"w": 12, "v": 16}
    after = {"w": 3, "v": 4}
    sums = [sum(table[a.name] for a in site.feeding) for table in (before, after)]
    assert rewritten(model, rewritten_ratio(site.ratio, *sums))[1] == [0.25]


def test_dropout_on_the_input_counts_the_layer_that_it_feeds(build):
    model = build(f"{HEAD} {{ d = Dropout(x) a = Relu(d) y = MatMul(a, w) }}", w=W)
    assert feeding(model) == [["w"]]


STAYS = [
    ("y = Dropout(x)", "no layer feeds it or follows it"),
    (
        "k = ConstantOfShape(s) h = Conv(x, k) y = Dropout(h)",
        "the weight of Conv 'Conv_1', which feeds it, is not pruned",
    ),
    (
        "d = Dropout(x) h = MatMul(d, i) y = Relu(h)",
        "the weight of MatMul 'MatMul_1', which it feeds, is not pruned",
    ),
    (
        "h = custom.Debug(x) y = Dropout(h)",
        "what feeds it comes through Debug 'Debug_0', which is not followed",
    ),
    ("r = ReduceMean(x) h = MatMul(x, w) y = Dropout(h, r)", "its ratio is made at run time"),
    ("h = MatMul(x, w) y = Dropout(h, b)", "its ratio is not a single float"),
    ("h = MatMul(x, w) y, z = com.microsoft.BitmaskDropout(h)", "it states no ratio"),
]


@pytest.mark.parametrize(("body", "reason"), STAYS)
def test_why_a_ratio_stays(build, body, reason):
    model = build(f"{HEAD} {{ {body} }}", **ARRAYS, i=np.ones((3, 4), np.int64))
    assert reasons(model) == [reason]
    assert feeding(model) == [[]]
    (site,) = sites(model)
    found = {site: 0.01} if "ratio" in reason else {}
    assert rewrite_dropouts(model, found) is model


@pytest.mark.parametrize(
    "line", ["BiasDropout(h, b, , r)", "BitmaskDropout(h, r)", "BitmaskBiasDropout(h, b, , r)"]
)
def test_fused_dropouts(build, line):
    text = f"{HEAD} {{ h = MatMul(x, w) y, m = com.microsoft.{line} }}"
    model = build(text, **ARRAYS, r=F(0.5))
    (site,) = sites(model)
    assert (site.ratio, [a.name for a in site.feeding]) == (0.5, ["w"])
    changed = rewrite_dropouts(model, {site: 0.25})
    assert [s.ratio for s in sites(changed)] == [0.25]


BODY = """g (float[2, 3] x, bool c) => (float[2, 4] y) {
    h = MatMul(x, w)
    y = If (c) <
        then_branch = t () => (float[2, 4] a) { a = Dropout(h, r) },
        else_branch = e () => (float[2, 4] b) { k = MatMul(h, v) b = Dropout(k) }
    >
}"""


def test_dropouts_in_bodies(build):
    model = build(BODY, w=W, v=V, r=F(0.5))
    assert [site.scope for site in sites(model)] == [("If_1.then_branch",), ("If_1.else_branch",)]
    assert feeding(model) == [["w"], ["v"]]
    changed, ratios = rewritten(model, 0.25, 0.125)
    assert ratios == [0.25, 0.125]
    pytest.importorskip("onnxruntime").InferenceSession(changed.proto.SerializeToString())


FUNCTION = """<domain: "f", opset_import: ["" : 13]>
    Block (x, w) => (y) {{ h = MatMul(x, w) d = Dropout({}) y = Relu(d) }}"""


def test_dropouts_in_functions_count_all_callers_and_get_constant_nodes(build):
    text = f"{HEAD} {{ k = f.Block(x, w) y = f.Block(k, v) }} {FUNCTION.format('h')}"
    model = build(text, opset=13, w=W, v=V)
    assert feeding(model) == [["w", "v"]]
    changed, ratios = rewritten(model, 0.25)
    assert ratios == [0.25]
    body = changed.proto.functions[0].node
    assert [node.op_type for node in body] == ["MatMul", "Constant", "Dropout", "Relu"]
    np.testing.assert_array_equal(run(changed)[0], run(model)[0])


def test_a_function_has_its_own_opset(build):
    text = f"{HEAD} {{ y = f.Block(x, w) }} {FUNCTION.format('h')}"
    model = build(text.replace('"" : 13', '"" : 10'), w=W)
    (site,) = sites(model)
    changed = rewrite_dropouts(model, {site: 0.25})
    assert changed.proto.functions[0].node[1].attribute[0].f == 0.25


def test_a_ratio_that_the_caller_of_a_function_gives(build):
    text = f"""{HEAD} {{ y = f.B(x, w, r) }}
    <domain: "f", opset_import: ["" : 13]>
    B (x, w, r) => (y) {{ h = MatMul(x, w) y = Dropout(h, r) }}"""
    assert reasons(build(text, w=W, r=F(0.5))) == ["its ratio is decided by the function's caller"]


def test_without_any_opset_import_the_attribute_counts():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Dropout", ["h"], ["y"], ratio=0.5),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(W, "w")])
    model = Model(onnx.ModelProto(graph=graph))
    (site,) = sites(model)
    changed = rewrite_dropouts(model, {site: 0.25})
    assert changed.proto.graph.node[1].attribute[0].f == 0.25


def test_bfloat16_ratios(build):
    model = build(f"{HEAD} {{ h = MatMul(x, w) y = Dropout(h, r) }}", opset=22, w=W)
    ratio = model.proto.graph.initializer.add(name="r", data_type=TensorProto.BFLOAT16)
    ratio.raw_data = b"\x00\x3f"
    assert rewritten(model, 0.25)[1] == [0.25]
