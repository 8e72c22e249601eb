"""Checks that cannot be made are skipped, and the summary says why."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import verify
from onnxprune.cli import main
from onnxprune.config import Format
from onnxprune.report.report import CheckResult
from onnxprune.verify import same_outputs
from tests.builders import arrays, mlp, saved

WEIGHT = np.random.default_rng(0).standard_normal((24, 40)).astype(np.float32)


def behind_a_product(*nodes: onnx.NodeProto, outputs: list[Any], **more: Any) -> ModelProto:
    """x [N, 24] @ w -> h [N, 40], then other nodes."""
    product = helper.make_node("MatMul", ["x", "w"], ["h"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 24])
    tensors = [numpy_helper.from_array(WEIGHT, "w")]
    graph = helper.make_graph([product, *nodes], "g", [x], outputs, tensors)
    domains = [("", 17), *more.get("domains", [])]
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def value(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["A", "B"])


def checks(model: ModelProto | Path, folder: Path) -> dict[str, CheckResult]:
    """The checks of a model written to a folder; its weight is pruned in any case."""
    report = onnxprune.prune(model, format="dense").save(folder / "out.onnx")
    written = arrays(onnx.load(folder / "out.onnx"))
    assert any((values == 0).any() for values in written.values() if values.ndim == 2)
    return {check.name: check for check in report.checks}


def test_custom_operators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Swish", ["h"], ["y"], domain="our.own", beta=2.0)
    model = behind_a_product(node, outputs=[value("y")], domains=[("our.own", 1)])
    found = checks(model, tmp_path)
    assert found["weights"].outcome == found["onnx checker"].outcome == "passed"
    assert found["onnxruntime"].outcome == "skipped"
    assert "our.own" in found["onnxruntime"].detail
    assert main([str(saved(model, tmp_path / "m.onnx"))]) == 0
    shown = capsys.readouterr().out
    assert "onnxruntime: skipped (onnxruntime does not load it:" in shown


def test_random_outputs(tmp_path: Path) -> None:
    drop = helper.make_node("Dropout", ["h", "ratio", "training"], ["y"])
    model = behind_a_product(drop, outputs=[value("y")])
    for name, data in (("ratio", np.float32(0.5)), ("training", np.bool_(True))):
        model.graph.initializer.append(numpy_helper.from_array(np.array(data), name))
    found = checks(model, tmp_path)["onnxruntime"]
    assert (found.outcome, found.detail) == ("skipped", "outputs differ from run to run")


@pytest.mark.parametrize("form", get_args(Format))
def test_random_operators(form: Format, tmp_path: Path) -> None:
    """onnxruntime seeds them by their place in the graph, which a stored form may change."""
    noise = helper.make_node("RandomNormalLike", ["h"], ["n"])
    total = helper.make_node("Add", ["h", "n"], ["y"])
    model = behind_a_product(noise, total, outputs=[value("y")])
    report = onnxprune.prune(model, format=form).save(tmp_path / "out.onnx")
    assert not report.failed


def test_seeded_noise_is_not_random(tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["h"], ["n"], seed=1.0)
    total = helper.make_node("Add", ["h", "n"], ["y"])
    found = checks(behind_a_product(noise, total, outputs=[value("y")]), tmp_path)
    assert found["onnxruntime"].outcome == "passed"


def test_sequences_of_tensors(tmp_path: Path) -> None:
    split = helper.make_node("SplitToSequence", ["h"], ["y"], axis=1, keepdims=1)
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    output = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    found = checks(behind_a_product(split, outputs=[output]), tmp_path)
    assert found["onnxruntime"].outcome == "passed"


def test_sequences_of_maps(tmp_path: Path) -> None:
    node = helper.make_node(
        "ZipMap",
        ["h"],
        ["y"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(40)),
    )
    of_classes = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    output = helper.make_value_info("y", helper.make_sequence_type_proto(of_classes))
    model = behind_a_product(node, outputs=[output], domains=[("ai.onnx.ml", 3)])
    assert checks(model, tmp_path)["onnxruntime"].outcome == "passed"


def test_inputs_that_are_no_tensors(tmp_path: Path) -> None:
    model = behind_a_product(
        helper.make_node("SequenceAt", ["s", "zero"], ["t"]),
        helper.make_node("Add", ["h", "t"], ["y"]),
        outputs=[value("y")],
    )
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    model.graph.input.append(helper.make_value_info("s", helper.make_sequence_type_proto(kind)))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "zero"))
    found = checks(model, tmp_path)["onnxruntime"]
    assert (found.outcome, found.detail) == ("skipped", "input 's' is not a plain tensor")


def test_inputs_that_no_guess_fits(tmp_path: Path) -> None:
    """Reshape to 7 rows of 11 fits no batch that is tried."""
    model = behind_a_product(
        helper.make_node("Reshape", ["h", "shape"], ["y"]), outputs=[value("y")]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 11]), "shape"))
    found = checks(model, tmp_path)["onnxruntime"]
    assert found.outcome == "skipped"
    assert "does not run it" in found.detail


def test_an_input_that_the_checker_refuses(tmp_path: Path) -> None:
    model = mlp((24, 40, 10))
    model.graph.output[0].type.Clear()
    path = saved(model, tmp_path / "m.onnx")
    for source in (path, model):
        found = checks(source, tmp_path)["onnx checker"]
        assert found.outcome == "skipped"
        assert found.detail.startswith("the input itself fails it")
        (tmp_path / "out.onnx").unlink()


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = builtins.__import__

    def refuse(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return really(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    found = checks(mlp((24, 40)), tmp_path)["onnxruntime"]
    assert found.outcome == "skipped"
    assert "not installed" in found.detail


def test_large_models_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "LARGE", 1000)
    found = checks(mlp((24, 40, 10)), tmp_path)
    assert {check.outcome for check in found.values()} == {"passed"}
    assert "structure" in found["onnx checker"].detail
    assert "graph optimization off" in found["onnxruntime"].detail
    monkeypatch.setattr(verify, "HUGE", 1000)
    (tmp_path / "out.onnx").unlink()
    assert "not compared" in checks(mlp((24, 40, 10)), tmp_path)["onnxruntime"].detail


ONE = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("have", "want", "same"),
    [
        (ONE, ONE.copy(), True),
        (ONE, ONE * 2, False),
        (ONE, ONE.astype(np.float64), False),
        (ONE, ONE[:1], False),
        (ONE, ONE[None], False),
        (ONE * np.nan, ONE * np.nan, True),
        (ONE * 0, -ONE * 0, False),
        (np.array(["a"], object), np.array(["a"], object), True),
        (np.array(["a"], object), np.array(["b"], object), False),
        ([ONE, ONE], [ONE, ONE], True),
        ([ONE], [ONE, ONE], False),
        ([{"a": 1.0}], [{"a": 1.0}], True),
        ([{"a": 1.0}], [{"a": 1.5}], False),
        ([{"a": 1.0}], [{"b": 1.0}], False),
        ([{"a": float("nan")}], [{"a": float("nan")}], True),
        (None, None, True),
        (None, ONE, False),
        (ONE, None, False),
        ([ONE], ONE, False),
        (ONE, [ONE], False),
        ({}, [ONE], False),
    ],
)
def test_same_outputs(have: Any, want: Any, same: bool) -> None:
    assert same_outputs(have, want) is same


def test_a_large_model_is_compared_with_a_mapped_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "LARGE", 1000)
    found = checks(mlp((24, 200, 10)), tmp_path)
    assert {check.outcome for check in found.values()} == {"passed"}
    assert "graph optimization off" in found["onnxruntime"].detail
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_no_room_for_the_copy_skips_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verify, "LARGE", 1000)
    monkeypatch.setattr(verify, "write_pair", full)
    found = checks(mlp((24, 200, 10)), tmp_path)
    assert found["onnxruntime"].outcome == "skipped"
    assert "No space left" in found["onnxruntime"].detail
