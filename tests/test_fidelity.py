"""What pruning must not touch: everything around the weights, and everything around the output."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.config import Format
from tests.builders import mlp, saved

BIG = np.random.default_rng(1).standard_normal(600).astype(np.float32)


def with_training() -> ModelProto:
    """Large tensors where no inference looks: training graphs and defaults of functions."""
    model = mlp((24, 40, 10), opset=18)
    for graph in (model.training_info.add().algorithm, model.training_info[0].initialization):
        graph.name = "training"
        constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(BIG, "c"))
        graph.node.append(constant)
        graph.initializer.append(numpy_helper.from_array(BIG, "rate"))
        body = helper.make_graph([constant], "body", [], [helper.make_empty_tensor_value_info("c")])
        graph.node.append(helper.make_node("If", ["b"], ["d"], then_branch=body, else_branch=body))
        graph.sparse_initializer.add(
            values=numpy_helper.from_array(BIG, "s"),
            indices=numpy_helper.from_array(np.arange(600) * 2),
            dims=[1200],
        )
    return model


def with_function() -> ModelProto:
    model = mlp((24, 40, 10), opset=18)
    opsets = [helper.make_opsetid("", 18)]
    node = helper.make_node("Identity", ["a"], ["b"])
    default = helper.make_attribute("table", numpy_helper.from_array(BIG, "table"))
    model.functions.append(
        helper.make_function("my", "F", ["a"], ["b"], [node], opsets, attribute_protos=[default])
    )
    model.opset_import.append(helper.make_opsetid("my", 1))
    return model


def with_lists() -> ModelProto:
    """Tensors in attributes of a custom operator, single and in lists."""
    model = mlp((24, 40, 10))
    tensor = numpy_helper.from_array(BIG, "t")
    node = helper.make_node("Own", ["y"], ["z"], domain="own", one=tensor, many=[tensor, tensor])
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def with_everything_else() -> ModelProto:
    model = mlp((24, 40, 10))
    model.doc_string, model.producer_name, model.model_version = "a\0doc", "me", 7
    model.metadata_props.add(key="license", value="mine")
    model.graph.doc_string = "onnxprune-payload:0"
    model.graph.initializer[0].doc_string = "weights of a layer"
    model.graph.quantization_annotation.add(tensor_name="x")
    model.graph.value_info.append(helper.make_tensor_value_info("h0", 1, ["N", 40]))
    model.MergeFromString(b"\xfa\x3f\x03new")  # a field that this onnx does not know
    return model


MODELS = [with_training, with_function, with_lists, with_everything_else]


@pytest.mark.parametrize("make", MODELS)
def test_only_weights_change(make: Callable[[], ModelProto], tmp_path: Path) -> None:
    source, target = saved(make(), tmp_path / "m.onnx"), tmp_path / "out.onnx"
    onnxprune.prune(source, quality=0, format="dense").save(target)
    assert onnx.load(target).SerializeToString() == make().SerializeToString()
    onnxprune.prune(source, quality=1, format="dense").save(target, overwrite=True)
    pruned, before = onnx.load(target), make()
    for tensor, original in zip(pruned.graph.initializer, before.graph.initializer, strict=True):
        changed = tensor.name in ("fc0.weight", "fc1.weight")
        assert (tensor.raw_data != original.raw_data) == changed
        tensor.raw_data = original.raw_data
    assert pruned.SerializeToString() == before.SerializeToString()
    for form in get_args(Format):
        onnxprune.prune(source, format=form).save(target, overwrite=True)
        in_docs = int(make is with_everything_else)
        assert target.read_bytes().count(b"onnxprune-payload") == in_docs, "no reference is left"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    source, target = saved(mlp((24, 40)), tmp_path / "m.onnx"), tmp_path / "out.onnx"
    target.write_bytes(b"old")
    target.chmod(mode)
    assert main([str(source), "-o", str(target), "--overwrite", "--quiet"]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_old_data_in_a_subfolder(tmp_path: Path) -> None:
    """The same bytes are there already, but not where a new model would look."""
    source, target = saved(mlp((24, 40)), tmp_path / "m.onnx", external=True), tmp_path / "o.onnx"
    arguments = [str(source), "-o", str(target), "--quiet", "--format", "dense", "--overwrite"]
    assert main(arguments) == 0
    model = onnx.load(target, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = f"sub/{entry.value}" if entry.key == "location" else entry.value
    target.write_bytes(model.SerializeToString())
    (tmp_path / "sub").mkdir()
    (tmp_path / "o.onnx.data").rename(tmp_path / "sub" / "o.onnx.data")
    assert main(arguments) == 0
    onnx.load(target)
    assert (tmp_path / "sub" / "o.onnx.data").exists(), "nothing outside the folder is removed"


def gap_coded() -> ModelProto:
    return onnxprune.prune(mlp((24, 40, 10)), quality=2).to_proto("gaps")


def node(model: ModelProto, operator: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


CHANGED_CHAINS: dict[str, tuple[str, str, Any]] = {
    "exclusive": ("CumSum", "exclusive", 1),
    "reverse": ("CumSum", "reverse", 1),
    "not zeros": ("ConstantOfShape", "value", numpy_helper.from_array(np.ones(1, np.float32))),
    "added": ("ScatterElements", "reduction", "add"),
}


@pytest.mark.parametrize("case", CHANGED_CHAINS)
def test_what_only_looks_like_a_gap_code_is_not_read_as_one(case: str) -> None:
    operator, name, value = CHANGED_CHAINS[case]
    model = gap_coded()
    changed = node(model, operator)
    kept = [attribute for attribute in changed.attribute if attribute.name != name]
    del changed.attribute[:]
    changed.attribute.extend([*kept, helper.make_attribute(name, value)])
    x = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
    outputs = []
    for proto in (model, onnxprune.prune(model, quality=0).to_proto()):
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        outputs.append(session.run(None, {"x": x})[0])
    assert outputs[0].tobytes() == outputs[1].tobytes()


BAD_PARTS: dict[str, tuple[str, Any]] = {
    "shape of fractions": ("shape", np.array([40.0, 24.0])),
    "shape of text": ("shape", np.array(["a", "b"])),
    "size of text": ("size", np.array(["a"])),
    "size of fractions": ("size", np.array([960.0])),
    "shape that wraps": ("shape", np.array([3, 6148914691236517206])),
    "negative shape": ("shape", np.array([-40, -24])),
    "no shape": ("shape", np.array(960)),
    "no gaps": ("gaps", np.zeros(0, np.uint8)),
    "values of text": ("values", np.array(["a"] * 10)),
    "too few values": ("values", np.ones(3, np.float32)),
}


@pytest.mark.parametrize("case", BAD_PARTS)
def test_a_damaged_gap_code_is_no_crash(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, value = BAD_PARTS[case]
    model = gap_coded()
    tensor = next(t for t in model.graph.initializer if t.name == f"fc0.weight_{part}")
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    path = saved(model, tmp_path / "m.onnx")
    assert main([str(path), "--no-check"]) in (0, 1)
    assert "internal error" not in capsys.readouterr().err


def test_an_absurd_gap_code_takes_no_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = gap_coded()
    for name, value in (("size", [2**50]), ("shape", [2**25, 2**25])):
        tensor = next(t for t in model.graph.initializer if t.name == f"fc0.weight_{name}")
        tensor.CopyFrom(numpy_helper.from_array(np.array(value), tensor.name))
    path = saved(model, tmp_path / "m.onnx")
    assert main([str(path), "--no-check", "--quiet"]) in (0, 1)
    assert "out of memory" not in capsys.readouterr().err
