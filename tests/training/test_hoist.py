"""Constants as initializers: the model computes the same, every address is right."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from onnxprune.errors import ModelError
from onnxprune.model.tensors import TensorAddress
from onnxprune.training.hoist import hoisted
from tests.training.nets import draw

HEAD = '<ir_version: 8, opset_import: ["": 17, "f": 1]>'
MODEL = """agraph (float[N, 2] x) => (float[N, 2] y) {
    c = Constant <value = float[2] {1.5, -2.0}> ()
    s = Constant <value = float {3.0}> ()
    axes = Constant <value = int64[1] {0}> ()
    p = Add (x, c)
    q = Mul (p, s)
    y = Identity (q)
}"""
TWICE = """agraph (float[N, 2] x) => (float[N, 2] y) {
    h = f.outer (x)
    i = f.layer (h)
    y = f.layer (i)
}"""
LAYER = """<opset_import: ["": 17], domain: "f">
layer (x) => (y) {
    w = Constant <value = float[2, 2] {1.0, 2.0, -3.0, 4.0}> ()
    one = Constant <value = float {1.0}> ()
    h = MatMul (x, w)
    y = Add (h, one)
}"""
OUTER = """<opset_import: ["": 17, "f": 1], domain: "f">
outer (x) => (y) {
    w = Constant <value = float[2] {0.5, 0.25}> ()
    g = f.layer (x)
    h = f.layer (g)
    y = Mul (h, w)
}"""
OPTIONAL = """agraph (float[N, 2] x) => (float[N, 2] y) { y = f.clip (x) }"""
CLIP = """<opset_import: ["": 17], domain: "f">
clip (x, low, high) => (y) {
    w = Constant <value = float[2] {0.5, 0.25}> ()
    h = Mul (x, w)
    y = Clip (h, low, high)
}"""
ITSELF = """<opset_import: ["": 17, "f": 1], domain: "f">
layer (x) => (y) { y = f.layer (x) }"""


def parse(*texts: str) -> ModelProto:
    return parser.parse_model("\n".join((HEAD, *texts)))


def outputs(proto: ModelProto) -> np.ndarray:
    x = draw(np.random.default_rng(1), (3, 2))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize(
    ("texts", "addresses"),
    [
        ((MODEL,), {"c": TensorAddress((), "c"), "s": TensorAddress((), "s")}),
        (
            (TWICE, LAYER, OUTER),
            {
                "function f:layer/w": TensorAddress(("function f:layer",), "w"),
                "function f:outer/w": TensorAddress(("function f:outer",), "w"),
            },
        ),
        (
            (OPTIONAL, CLIP),
            {"function f:clip/w": TensorAddress(("function f:clip",), "w")},
        ),
    ],
    ids=["constants", "functions", "left out inputs"],
)
def test_every_float_tensor_is_an_initializer_with_its_address(
    texts: tuple[str, ...], addresses: dict[str, TensorAddress]
) -> None:
    proto = parse(*texts)
    before = proto.SerializeToString()
    found = hoisted(proto)
    assert proto.SerializeToString() == before
    assert found.addresses == addresses
    assert {tensor.name for tensor in found.proto.graph.initializer} == set(addresses)
    onnx.checker.check_model(found.proto)
    assert np.array_equal(outputs(found.proto), outputs(proto))


def test_a_weight_of_two_calls_is_one_initializer() -> None:
    proto = hoisted(parse(TWICE, LAYER, OUTER)).proto
    calls = [node for node in proto.graph.node if node.op_type == "layer"]
    assert [list(node.input)[1:] for node in calls] == [["function f:layer/w"]] * 2
    (outer,) = (node for node in proto.graph.node if node.op_type == "outer")
    for function in proto.functions:
        assert len(set(function.input)) == len(function.input)
    assert set(outer.input[1:]) == {"function f:layer/w", "function f:outer/w"}


def test_taken_names_are_not_taken_again() -> None:
    proto = parse(TWICE, LAYER, OUTER)
    taken = numpy_helper.from_array(np.ones(2, np.float32), "function f:layer/w")
    proto.graph.initializer.append(taken)
    found = hoisted(proto)
    names = [tensor.name for tensor in found.proto.graph.initializer]
    assert len(set(names)) == len(names) == 3
    onnx.checker.check_model(found.proto)


def test_bodies_keep_their_constants() -> None:
    then = helper.make_graph(
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones(2, "f"))),
            helper.make_node("Add", ["x", "w"], ["t"]),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    proto = parse("agraph (float[N, 2] x, bool c) => (float[N, 2] y) { y = Identity (x) }")
    del proto.graph.node[:]
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=then)
    proto.graph.node.append(node)
    found = hoisted(proto)
    assert not found.addresses
    assert found.proto.graph.node[0] == node


def test_a_function_in_itself_is_refused() -> None:
    with pytest.raises(ModelError, match="'layer' calls itself"):
        hoisted(parse(TWICE.replace("f.outer", "f.layer"), ITSELF))


def test_integers_and_other_forms_of_constants_stay() -> None:
    proto = parse("""agraph (float[N, 2] x) => (float[N, 2] y) {
        k = Constant <value_ints = [1, 2]> ()
        f = Constant <value_float = 2.0> ()
        n = Constant <value = int64[2] {3, 4}> ()
        y = Mul (x, f)
    }""")
    found = hoisted(proto)
    assert not found.addresses
    assert found.proto == proto
