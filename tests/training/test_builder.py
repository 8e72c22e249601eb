"""Shared constants, known shapes, folded shape arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, parser

from onnxprune.errors import ModelError
from onnxprune.training.builder import GraphBuilder

F = np.float32


def builder(text):
    head = '<ir_version: 10, opset_import: ["": 23, "com.microsoft": 1]> g'
    return GraphBuilder(parser.parse_model(f"{head} {text}"))


@pytest.fixture
def plain():
    return builder("(float[N,3] x, float[?,4] z) => (float[N,3] y) { y = Relu(x) }")


def test_constants_are_shared_by_value_type_and_shape(plain):
    one = plain.scalar(1, "x")
    assert plain.scalar(1.0, "y") == one
    others = [plain.constant([1]), plain.constant(np.array(1)), plain.constant(np.ones(1, F))]
    assert len({one, *others}) == 4
    assert len(plain.graph.initializer) == 4


def test_shapes_and_types_of_what_is_appended(plain):
    product = plain.op("MatMul", "y", plain.constant(np.ones((3, 5), F)))
    assert plain.shape(product) == ("N", 5)
    assert plain.static_shape(product) is None
    assert plain.rank(product) == 2
    assert plain.dtype(product) == TensorProto.FLOAT
    assert plain.dtype(plain.op("Shape", product)) == TensorProto.INT64


def test_unknown_dimensions_have_names_of_their_own(plain):
    first = plain.shape("z")[0]
    assert isinstance(first, str)
    assert plain.shape(plain.op("Exp", "z")) == (first, 4)


def test_what_is_known_already_appends_nothing(plain):
    before = len(plain.graph.node)
    assert plain.cast("x", "y") == "x"
    assert plain.transpose("x", [0, 1]) == "x"
    assert plain.reshape_like("x", "y") == "x"
    assert plain.unbroadcast("x", "y") == "x"
    assert plain.reduce_sum("x", []) == "x"
    assert plain.total(["x"]) == "x"
    assert plain.shape_of(plain.constant(np.ones((2, 3), F))) == plain.constant([2, 3])
    assert len(plain.graph.node) == before


def test_shape_node_is_appended_once(plain):
    assert plain.shape_of("x") == plain.shape_of("x")
    assert [node.op_type for node in plain.graph.node].count("Shape") == 1


def test_shape_arithmetic_is_folded():
    known = builder(
        "(float[2,3,4] x) => (float[2,12] y) <int64 one = {1}, int64[1] zero = {0}, "
        "int64[1] rest = {-1}> { s = Shape(x) n = Gather(s, zero) t = Concat<axis=0>(n, rest) "
        "y = Reshape(x, t) }"
    )
    assert known.constant_value("t").tolist() == [2, -1]
    assert known.static_shape("y") == (2, 12)
    assert known.constant_value("x") is None
    assert known.constant_value(None) is None


def test_unknown_rank_and_type_are_errors_that_say_so():
    odd = builder("(float[2] x) => (float[2] y) { h = com.microsoft.Unheard(x) y = Relu(x) }")
    with pytest.raises(ModelError, match="the rank of 'h' is unknown"):
        odd.rank("h")
    with pytest.raises(ModelError, match="the element type of 'h' is unknown"):
        odd.dtype("h")


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("Gelu(x)", ("N", 3, 4)),
        ("BiasGelu(x, b)", ("N", 3, 4)),
        ("FusedMatMul<transA = 1>(x, x)", ("N", 4, 4)),
        ("FusedMatMul<transB = 1, alpha = 0.5>(x, x)", ("N", 3, 3)),
        ('FusedConv<activation = "Relu", kernel_shape = [2]>(x, k)', ("N", 5, 3)),
    ],
)
def test_shapes_of_onnxruntime_operators(node, shape):
    known = builder(
        "(float[N,3,4] x, float[4] b, float[5,3,2] k) => (bool[N] y) "
        f"{{ h = com.microsoft.{node} y = IsNaN(h) }}"
    )
    assert known.shape("h")[1:] == shape[1:]
    assert known.dtype("h") == TensorProto.FLOAT


def test_node_names_tell_where_they_belong(plain):
    with plain.within("conv1"):
        name = plain.op("Neg", "x")
    assert name.startswith("grad/conv1/Neg")
    assert plain.op("Neg", "x").startswith("grad/Neg")
