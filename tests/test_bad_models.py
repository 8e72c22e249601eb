"""Well-formed protobuf that makes no sense as a model: refused in one sentence, or kept safe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.cli import main
from tests.builders import arrays, mlp, saved
from tests.refusal import refused, state

Capture = pytest.CaptureFixture[str]


def changed(**fields: object) -> ModelProto:
    """Two layers, the first weight (40x24) with other fields."""
    model = mlp((24, 40, 10))
    tensor = model.graph.initializer[0]
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(tensor, name)[:] = value
        else:
            setattr(tensor, name, value)
    return model


def without_bytes(**fields: object) -> ModelProto:
    """The first weight with typed data in place of raw bytes."""
    model = changed(**fields)
    model.graph.initializer[0].ClearField("raw_data")
    return model


def wired(node: int, field: str, index: int, name: str) -> ModelProto:
    """One value's name at one node changed."""
    model = mlp((24, 40, 10))
    getattr(model.graph.node[node], field)[index] = name
    return model


HUGE = 2**62
REFUSED: dict[str, tuple[ModelProto, str]] = {
    "negative dimension": (changed(dims=[-1, 24]), "negative dimension -1"),
    "two negative dimensions": (changed(dims=[-40, -24]), "negative dimension"),
    "smallest dimension": (changed(dims=[-(2**63), 24]), "negative dimension"),
    "absurd dimensions": (changed(dims=[HUGE, HUGE]), "its shape needs"),
    "product wraps to zero": (changed(dims=[2**32, 2**32]), "its shape needs"),
    "product wraps to the size": (changed(dims=[960, 2**62 + 1]), "its shape needs"),
    "no dimensions": (changed(dims=[]), "its shape needs 4"),
    "too many bytes": (changed(dims=[40, 23]), "its shape needs 3,680"),
    "too few bytes": (changed(raw_data=b"\0" * 3839), "its shape needs 3,840"),
    "no bytes": (without_bytes(), "fc0.weight"),
    "too few floats": (without_bytes(float_data=[1.0] * 300), "fc0.weight"),
    "undefined type": (changed(data_type=TensorProto.UNDEFINED), "unknown element type"),
    "unknown type": (changed(data_type=99), "unknown element type"),
    "negative type": (changed(data_type=-1), "unknown element type"),
    "raw strings": (changed(data_type=TensorProto.STRING), "fc0.weight"),
    "cycle through an input": (wired(0, "input", 0, "y"), "cycle through node"),
    "cycle of one node": (wired(1, "input", 0, "a0"), "cycle through node 'relu0' (Relu)"),
    "NaN": (changed(raw_data=np.full(960, np.nan, np.float32).tobytes()), "'fc0.weight' has NaN"),
    "infinity": (changed(raw_data=np.full(960, np.inf, np.float32).tobytes()), "'fc0.weight' has"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path, capsys: Capture) -> None:
    model, words = REFUSED[case]
    path = saved(model, tmp_path / "m.onnx")
    assert words in refused([str(path)], tmp_path, capsys)


def test_nonfinite_layers_are_left_alone_on_request(tmp_path: Path, capsys: Capture) -> None:
    weights = arrays(mlp((24, 40, 10)))["fc0.weight"].copy()
    weights[3, 5] = np.nan
    path = saved(changed(raw_data=weights.tobytes()), tmp_path / "m.onnx")
    assert main([str(path), "--allow-nonfinite", "--format", "dense"]) == 0
    shown = capsys.readouterr().out
    assert "fc0.weight" in shown
    assert "NaN or infinity" in shown
    written = arrays(onnx.load(tmp_path / "m.pruned.onnx"))
    assert written["fc0.weight"].tobytes() == weights.tobytes()
    assert (written["fc1.weight"] == 0).any()


def string_weights() -> ModelProto:
    model = mlp((24, 40))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_type = TensorProto.STRING
    tensor.string_data.extend([b"w"] * 960)
    return model


def unnamed_weight() -> ModelProto:
    model = mlp((24, 40))
    model.graph.initializer[0].name = ""
    return model


def without(*path: str) -> ModelProto:
    """A model in which a repeated field of the first node or the graph is empty."""
    model = mlp((24, 40))
    owner = model.graph.node[0] if path[0] == "node" else model.graph
    owner.ClearField(path[1])
    return model


def versions(**fields: int) -> ModelProto:
    model = mlp((24, 40))
    model.opset_import[0].version = fields.get("opset", 17)
    model.ir_version = fields.get("ir", 8)
    return model


def transposed(perm: list[int]) -> ModelProto:
    return viewed("Transpose", None, perm=perm)


def viewed(operator: str, argument: object, **attributes: Any) -> ModelProto:
    """x @ view(w), w of shape 24x40."""
    weight = np.arange(24 * 40, dtype=np.float32).reshape(24, 40)
    tensors = [numpy_helper.from_array(weight, "w")]
    inputs = ["w"]
    if argument is not None:
        tensors.append(numpy_helper.from_array(np.array(argument), "a"))
        inputs.append("a")
    nodes = [
        helper.make_node(operator, inputs, ["v"], **attributes),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


#: Whether these are pruned or refused is open; they must not crash, and no garbage may appear.
TOLERATED: dict[str, Callable[[], ModelProto]] = {
    "strings": string_weights,
    "no name": unnamed_weight,
    "100 dimensions": lambda: changed(dims=[40, 24, *[1] * 100]),
    "100 dimensions, floats": lambda: without_bytes(
        dims=[40, 24, *[1] * 100], float_data=list(range(960))
    ),
    "zero and huge": lambda: changed(dims=[HUGE, HUGE, 0], raw_data=b""),
    "complex": lambda: changed(data_type=TensorProto.COMPLEX64, dims=[20, 24]),
    "bool": lambda: changed(data_type=TensorProto.BOOL, dims=[160, 24]),
    "4 bits too few": lambda: without_bytes(data_type=TensorProto.INT4, int32_data=[1]),
    "node without inputs": lambda: without("node", "input"),
    "node without outputs": lambda: without("node", "output"),
    "node without operator": lambda: without("node", "op_type"),
    "graph without outputs": lambda: without("graph", "output"),
    "graph without inputs": lambda: without("graph", "input"),
    "dangling input": lambda: wired(0, "input", 0, "nowhere"),
    "dangling weight": lambda: wired(0, "input", 1, "nowhere"),
    "opset of the future": lambda: versions(opset=2**40),
    "negative opset": lambda: versions(opset=-1),
    "IR of the future": lambda: versions(ir=1000),
    "negative IR": lambda: versions(ir=-1),
    "permutation too large": lambda: transposed([5, 6]),
    "permutation twice the same": lambda: transposed([0, 0]),
    "negative permutation": lambda: transposed([-1, -2]),
    "short permutation": lambda: transposed([0]),
    "huge axis": lambda: viewed("Unsqueeze", [HUGE]),
    "axes of text": lambda: viewed("Unsqueeze", ["one"]),
    "two free sizes": lambda: viewed("Reshape", [-1, -1]),
    "huge sizes": lambda: viewed("Reshape", [HUGE, HUGE]),
    "negative sizes": lambda: viewed("Reshape", [-5, 7]),
    "no sizes": lambda: viewed("Reshape", np.array([], np.int64)),
    "cast to nothing": lambda: viewed("Cast", None, to=99),
    "scale of another size": lambda: viewed("DequantizeLinear", np.ones(7, np.float32), axis=1),
}


@pytest.mark.parametrize("case", TOLERATED)
@pytest.mark.parametrize("options", [[], ["--format", "gaps", "--no-check"], ["-q", "0"]])
def test_pruned_or_refused(case: str, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = saved(TOLERATED[case](), tmp_path / "m.onnx")
    before = state(tmp_path)
    code = main([str(path), *options])
    captured = capsys.readouterr()
    assert code in (0, 1), captured.err
    assert captured.err.count("\n") == code
    assert "report this" not in captured.err
    after = state(tmp_path)
    assert after.keys() == before.keys() | ({"m.pruned.onnx"} if code == 0 else set())
    assert after["m.onnx"] == before["m.onnx"]
    assert main(["inspect", str(path)]) in (0, 1)
