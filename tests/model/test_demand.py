from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.model.demand import demand_of

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
f (float[N,4] x) => (float[N,4] y) <int64[2] n = {1000000, 4000}>
{
    large = ConstantOfShape(n)
    most = ReduceMax<keepdims=0>(large)
    h = Relu(x)
    y = Add(h, most)
}"""
LARGE = 4 * 1_000_000 * 4000


def without_opsets(model: ModelProto) -> None:
    del model.opset_import[:]


def of_another_spelling(model: ModelProto) -> None:
    model.graph.node[2].domain = "ai.onnx"


def of_another_spelling_throughout(model: ModelProto) -> None:
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"


def of_a_set_that_is_not_imported(model: ModelProto) -> None:
    model.graph.node[2].op_type, model.graph.node[2].domain = "FastGelu", "com.microsoft"


def with_another_rank_stated(model: ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("large", TensorProto.FLOAT, [1]))


def with_another_type_stated(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


@pytest.mark.parametrize(
    "disguise",
    [
        lambda model: None,
        without_opsets,
        of_another_spelling,
        of_another_spelling_throughout,
        of_a_set_that_is_not_imported,
        with_another_rank_stated,
        with_another_type_stated,
    ],
)
def test_a_large_constant_is_found_whatever_the_model_states(
    disguise: Callable[[ModelProto], None],
) -> None:
    model = onnx.parser.parse_model(TEXT)
    disguise(model)
    before = model.SerializeToString()
    for constants in (True, False):
        found = demand_of(model, constants=constants)
        assert (found.value, found.bytes) == ("large", LARGE)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("count", [2**20, 2**40])
def test_what_no_computer_can_hold_counts_in_any_case(count: int) -> None:
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        f (float[N,4] x, bool c) => (float[N,4] y) {{
            y = If (c) <
                then_branch = one () => (float[{count},4] t) {{ t = Relu(x) }},
                else_branch = two () => (float[N,4] e) {{ e = Abs(x) }}>
        }}"""
    model = onnx.parser.parse_model(text)
    assert demand_of(model).value == "t"
    assert demand_of(model, constants=True).value == ("t" if count == 2**40 else "")
