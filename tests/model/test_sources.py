from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read, to_graphsurgeon, to_ir, to_program
from tests.builders import mlp, saved

ir = pytest.importorskip("onnx_ir")


def with_body_and_function() -> onnx.ModelProto:
    """Weights in Constant nodes of the graph, of an If body, and of a model-local function."""
    random = np.random.default_rng(0)

    def constant(name: str) -> onnx.NodeProto:
        value = numpy_helper.from_array(random.standard_normal((20, 20)).astype(np.float32), name)
        return helper.make_node("Constant", [], [name], value=value)

    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 20]) for n in ("x", "y", "z")]
    body = helper.make_graph([constant("w"), product], "body", [], [info[1]])
    function = helper.make_function(
        "local", "Scale", ["x"], ["y"], [constant("w"), product], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("If", ["flag"], ["a"], then_branch=body, else_branch=body),
        helper.make_node("Scale", ["a"], ["z"], domain="local"),
    ]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "g", [flag, info[0]], [info[2]])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=[function])


@pytest.mark.parametrize("proto", [mlp((40, 300, 10)), with_body_and_function()])
def test_model_proto_round_trip(proto: onnx.ModelProto) -> None:
    before = proto.SerializeToString()
    model = read(proto)
    assert to_proto(model) == proto
    assert proto.SerializeToString() == before
    assert model.origin.file_bytes == len(before)


@pytest.mark.parametrize("proto", [mlp((40, 300, 10)), with_body_and_function()])
def test_ir_round_trip(proto: onnx.ModelProto) -> None:
    source = ir.from_proto(proto)
    model = read(source)
    assert len(model.payloads) >= 1
    expected = ir.to_proto(source)
    assert to_proto(model) == expected
    assert ir.to_proto(to_ir(model)) == expected
    assert ir.to_proto(source) == expected


def test_ir_external_data_stays_mapped(tmp_path: Path) -> None:
    path = saved(mlp((40, 300, 10)), tmp_path / "m.onnx", external=True)
    model = read(ir.load(path))
    assert to_proto(model).graph.initializer == mlp((40, 300, 10)).graph.initializer


def test_ir_four_bit_tensors() -> None:
    codes = np.arange(3000) % 16
    packed = (codes[0::2] | codes[1::2] << 4).astype(np.uint8)
    tensor = TensorProto(name="w", data_type=TensorProto.UINT4, dims=[3000])
    tensor.raw_data = packed.tobytes()
    output = helper.make_tensor_value_info("y", TensorProto.UINT4, [3000])
    node = helper.make_node("Identity", ["w"], ["y"])
    graph = helper.make_graph([node], "g", [], [output], [tensor])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model = read(ir.from_proto(proto))
    np.testing.assert_array_equal(model.array(model.proto.graph.initializer[0]), codes)
    assert ir.to_proto(to_ir(model)).graph.initializer[0].raw_data == packed.tobytes()


class Program:
    """Stands in for torch.onnx.ONNXProgram: its interface is all that is used."""

    def __init__(self, model: object, exported_program: object) -> None:
        self.model, self.exported_program = model, exported_program


def test_onnx_program_by_its_interface() -> None:
    program = Program(ir.from_proto(mlp((40, 300, 10))), "exported")
    model = read(program)
    again = to_program(model, program)
    assert isinstance(again, Program)
    assert again.exported_program == "exported"
    assert ir.to_proto(again.model) == to_proto(model)
    with pytest.raises(UsageError, match="ONNXProgram"):
        to_program(model, mlp())


def test_graphsurgeon_round_trip() -> None:
    surgeon = pytest.importorskip("onnx_graphsurgeon")
    graph = surgeon.import_onnx(mlp((40, 300, 10)))
    model = read(graph)
    again = to_proto(read(to_graphsurgeon(model)))
    assert again.graph.initializer == to_proto(model).graph.initializer


def test_what_is_no_model_is_refused() -> None:
    for thing in (42, None, object(), [mlp()]):
        with pytest.raises(UsageError, match="cannot read a model from"):
            read(thing)


def test_external_data_in_memory_needs_its_path(tmp_path: Path) -> None:
    path = saved(mlp((40, 300, 10)), tmp_path / "m.onnx", external=True)
    with pytest.raises(ModelError, match="handed over in memory"):
        read(onnx.load(path, load_external_data=False))
