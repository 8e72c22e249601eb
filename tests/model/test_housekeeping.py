from __future__ import annotations

import onnx
from onnx import FunctionProto, helper

from onnxprune.model.housekeeping import (
    FreshNames,
    default_opset,
    quoted,
    raise_ir_version,
    remove_inputs,
)

OLD = """<ir_version: 3, opset_import: ["" : 9]>
g (float[1, 2] x, float[2, 3] w, float[3] b) => (float[1, 3] y)
<float[2, 3] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}> {
    h = MatMul(x, w)
    y = Add(h, b)
}"""


def test_default_opset_by_either_of_its_names() -> None:
    model = onnx.parser.parse_model(OLD)
    assert default_opset(model) == 9
    model.opset_import[0].domain = "ai.onnx"
    assert default_opset(model) == 9


def test_default_opset_without_the_default_domain() -> None:
    assert default_opset(FunctionProto(opset_import=[helper.make_opsetid("my", 3)])) == 0


def test_initializers_leave_the_inputs_when_ir_crosses_4() -> None:
    model = onnx.parser.parse_model(OLD)
    notes = raise_ir_version(model, 6)
    assert model.ir_version == 6
    assert [value.name for value in model.graph.input] == ["x"]
    assert notes == (
        "IR version raised from 3 to 6",
        "no longer listed as graph inputs, as they are constants, and from IR 4 on an input could "
        "be overridden: 'w', 'b'",
    )
    onnx.checker.check_model(model, full_check=True)


def test_from_ir_4_on_inputs_stay_as_they_are() -> None:
    model = onnx.parser.parse_model(OLD)
    model.ir_version = 4
    assert raise_ir_version(model, 6) == ("IR version raised from 4 to 6",)
    assert [value.name for value in model.graph.input] == ["x", "w", "b"]


def test_an_ir_version_is_never_lowered() -> None:
    model = onnx.parser.parse_model(OLD)
    model.ir_version = 10
    assert raise_ir_version(model, 6) == ()
    assert model.ir_version == 10


def test_remove_inputs_says_what_it_removed() -> None:
    model = onnx.parser.parse_model(OLD)
    assert remove_inputs(model.graph, {"w", "y"}) == ("w",)
    assert [value.name for value in model.graph.input] == ["x", "b"]


def test_names_are_listed_up_to_three() -> None:
    assert quoted(["a"]) == "'a'"
    assert quoted("abcde") == "'a', 'b', 'c' and 2 more"


def test_fresh_names_avoid_those_of_bodies_too() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (bool c, float[2] x) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] inner) { inner = Relu(x) },
                else_branch = e () => (float[2] other) { other = Neg(x) }
            >
        }"""
    )
    fresh = FreshNames(model.graph)
    assert fresh.make("inner") == "inner_1"
    assert fresh.make("other") == "other_1"
    assert fresh.make("new") == "new"
    assert fresh.make("new") == "new_1"
