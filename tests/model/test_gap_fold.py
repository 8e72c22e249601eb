from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.model.load import parse
from onnxprune.model.sources import read
from onnxprune.model.tensors import TensorAddress
from tests.builders import mlp


def constant(name: str, seed: int) -> onnx.NodeProto:
    values = np.random.default_rng(seed).standard_normal((20, 20)).astype(np.float32)
    return helper.make_node(
        "Constant", [], [name], value=numpy_helper.from_array(values, name), name=name
    )


def nested() -> ModelProto:
    """Weights in a body, in a body of that body, and in a function."""
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 20]) for n in "xyz"]

    def body(name: str, seed: int, *more: onnx.NodeProto) -> onnx.GraphProto:
        product = helper.make_node("MatMul", ["x", f"w{seed}"], ["y"])
        weight = numpy_helper.from_array(
            np.random.default_rng(seed).standard_normal((20, 20)).astype(np.float32), f"w{seed}"
        )
        return helper.make_graph([*more, product], name, [], [info[1]], [weight])

    inner = helper.make_node(
        "If", ["flag"], ["unused"], then_branch=body("a", 1), else_branch=body("b", 2)
    )
    outer = helper.make_node(
        "If", ["flag"], ["m"], then_branch=body("c", 3, inner), else_branch=body("d", 4)
    )
    function = helper.make_function(
        "local", "Scale", ["x"], ["y"],
        [constant("w", 5), helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    last = helper.make_node("Scale", ["m"], ["z"], domain="local")
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph([outer, last], "g", [info[0], flag], [info[2]])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function])


@pytest.mark.parametrize("proto", [mlp((24, 300, 10)), nested()], ids=["main graph", "nested"])
def test_a_gap_coded_file_is_read_as_tensors(proto: ModelProto, tmp_path: Path) -> None:
    first = onnxprune.prune(proto, quality=1.0, format="gaps")
    first.save(tmp_path / "gaps.onnx")
    assert {row.stored_as for row in first.report.layers} >= {"gaps"}
    again = read(tmp_path / "gaps.onnx")
    want = read(first.to_proto())
    for address, tensor in want.tensors.items():
        np.testing.assert_array_equal(
            again.array(again.tensors[address]), want.array(tensor), str(address)
        )
    assert again.tensors.keys() == want.tensors.keys()
    assert len(again.proto.graph.node) == len(proto.graph.node)


def test_pruning_again_finds_the_same_layers(tmp_path: Path) -> None:
    once = onnxprune.prune(mlp((24, 300, 10)), quality=1.0, format="gaps")
    once.save(tmp_path / "gaps.onnx")
    twice = onnxprune.prune(tmp_path / "gaps.onnx", quality=0.0).report
    assert [row.kept for row in twice.layers] == [row.kept for row in once.report.layers]


def gap_coded() -> ModelProto:
    return onnxprune.prune(mlp((24, 300)), quality=1.5, format="gaps").to_proto("gaps")


def weight_is_folded(proto: ModelProto) -> bool:
    return TensorAddress((), "fc0.weight") in parse(memoryview(proto.SerializeToString())).tensors


def node_of(proto: ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.op_type == operator)


def test_what_is_not_ours_stays() -> None:
    assert weight_is_folded(gap_coded())

    read_elsewhere = gap_coded()
    positions = node_of(read_elsewhere, "CumSum").output[0]
    read_elsewhere.graph.node.append(helper.make_node("Identity", [positions], ["more"]))
    assert not weight_is_folded(read_elsewhere)

    is_output = gap_coded()
    flat = node_of(is_output, "ScatterElements").output[0]
    is_output.graph.output.append(helper.make_tensor_value_info(flat, TensorProto.FLOAT, None))
    assert not weight_is_folded(is_output)

    other_operator = gap_coded()
    node_of(other_operator, "CumSum").op_type = "Abs"
    assert not weight_is_folded(other_operator)

    renamed = gap_coded()
    gaps = node_of(renamed, "Cast").input[0]
    node_of(renamed, "Cast").input[0] = "distances"
    next(t for t in renamed.graph.initializer if t.name == gaps).name = "distances"
    assert not weight_is_folded(renamed)

    out_of_range = gap_coded()
    size = node_of(out_of_range, "ConstantOfShape").input[0]
    tensor = next(t for t in out_of_range.graph.initializer if t.name == size)
    tensor.raw_data = np.array([10], np.int64).tobytes()
    assert not weight_is_folded(out_of_range)


@pytest.mark.parametrize(
    ("operator", "attribute", "value"),
    [
        ("CumSum", "exclusive", 1),
        ("CumSum", "reverse", 1),
        ("ScatterElements", "axis", 0),
        ("Reshape", "allowzero", 1),
        ("ConstantOfShape", "value", numpy_helper.from_array(np.ones(1, np.float32))),
        ("Cast", "to", TensorProto.FLOAT),
    ],
)
def test_other_attributes_are_not_ours(operator: str, attribute: str, value: object) -> None:
    proto = gap_coded()
    node = node_of(proto, operator)
    kept = [item for item in node.attribute if item.name != attribute]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
    assert not weight_is_folded(proto)


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        ("_size", np.array([2**50])),
        ("_size", np.array(7200)),
        ("_shape", np.array([300.0, 24.0])),
        ("_shape", np.array([3, 6148914691236517206])),
        ("_shape", np.array(["a", "b"])),
        ("_values", np.ones((10, 1), np.float32)),
        ("_gaps", np.zeros(10, np.uint8)),
        ("_axis", np.array(-1)),
    ],
)
def test_other_constants_are_not_ours(suffix: str, values: np.ndarray) -> None:
    proto = gap_coded()
    tensor = next(t for t in proto.graph.initializer if t.name.endswith(suffix))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert not weight_is_folded(proto)
