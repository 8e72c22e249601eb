"""What a report says, against independent counts of the written file."""

from __future__ import annotations

import gzip
import json
import math
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.config import Format, Scope
from onnxprune.model.load import load
from onnxprune.model.tensors import TensorAddress
from tests.builders import arrays, mlp, saved

FORMATS: tuple[Format, ...] = get_args(Format)
SIZES = (24, 200, 30, 10)
#: Shapes stay: tests/test_shrink_doors.py counts without the neurons that pruning leaves dead.
prune = partial(onnxprune.prune, shrink=False)


def read_back(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Weights of a written file in whatever form."""
    model = load(path)
    return {name: model.array(model.tensors[TensorAddress((), name)]) for name in names}


def written_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_the_report_is_what_is_in_the_file(form: Format, external: bool, tmp_path: Path) -> None:
    model = mlp(SIZES)
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=external)
    report = prune(source, format=form).save(tmp_path / "out.onnx")
    assert report.sizes.file_input == written_bytes(source)
    assert report.sizes.file_output == written_bytes(tmp_path / "out.onnx")
    back = read_back(tmp_path / "out.onnx", [row.layer for row in report.layers])
    for row in report.layers:
        weight = arrays(model)[row.layer]
        assert row.shape == weight.shape
        assert row.weights == row.alive_before == weight.size
        assert row.kept == np.count_nonzero(back[row.layer])
        assert row.std == pytest.approx(weight.std(dtype=np.float64), rel=1e-12)
        assert row.mean == pytest.approx(weight.mean(dtype=np.float64), abs=1e-12)
        assert row.threshold == pytest.approx(row.std, rel=1e-15)
        assert 0 < row.bytes_before - weight.nbytes < 64, "the tensor and its name and shape"
        assert row.bytes_after <= row.bytes_before
        assert (row.stored_as == "dense") == (row.bytes_after == row.bytes_before)
    assert [row.layer for row in report.layers] == ["fc0.weight", "fc1.weight", "fc2.weight"]
    assert report.parameters == sum(values.size for values in arrays(model).values())
    assert report.parameters_kept == report.parameters - report.weights + report.kept
    assert report.parameter_ratio == report.weights / report.kept


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_a_dry_run_says_what_writing_does(form: Format, external: bool, tmp_path: Path) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=external)
    dry = prune(source, format=form).report
    assert dry.dry_run
    assert dry.output is None
    wet = prune(source, format=form).save(tmp_path / "model.onnx")
    assert wet.layers == dry.layers
    assert wet.sizes == dry.sizes
    assert wet.sizes.file_output == written_bytes(tmp_path / "model.onnx")


def test_no_data_file_where_every_tensor_is_sparse(tmp_path: Path) -> None:
    model = mlp((40, 300))
    del model.graph.initializer[1]
    del model.graph.node[0].input[2]
    source = saved(model, tmp_path / "m.onnx", external=True)
    report = prune(source).save(tmp_path / "out.onnx")
    assert report.layers[0].stored_as == "sparse"
    assert [file.name for file in tmp_path.glob("out*")] == ["out.onnx"]


def test_overwriting_with_the_same_gives_the_same_report(tmp_path: Path) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=True)
    result = prune(source)
    first = result.save(tmp_path / "out.onnx")
    assert result.save(tmp_path / "out.onnx", overwrite=True).sizes == first.sizes


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_the_same_command_gives_the_same_bytes(
    form: Format, external: bool, tmp_path: Path
) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=external)
    runs = []
    for _ in range(2):
        arguments = [str(source), "--overwrite", "--quiet", "--format", form]
        assert main(arguments) == 0
        files = sorted(tmp_path.glob("m.pruned*"))
        runs.append({file.name: file.read_bytes() for file in files})
    assert runs[0] == runs[1]
    in_memory = prune(source, format=form)
    assert in_memory.to_proto(form) == in_memory.to_proto(form)


def test_external_data_comes_out_as_external_data(tmp_path: Path) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=True)
    prune(source, format="dense").save(tmp_path / "out.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {
        "m.onnx", "m.onnx.bin", "out.onnx", "out.onnx.data"
    }  # fmt: skip
    model = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert all(
        tensor.data_location == TensorProto.EXTERNAL
        for tensor in model.graph.initializer
        if tensor.name.endswith("weight")
    )
    onnx.checker.check_model(str(tmp_path / "out.onnx"))
    onnxruntime.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])


def test_gzip_bytes_are_those_of_gzip(tmp_path: Path) -> None:
    source = saved(mlp((500, 300, 10)), tmp_path / "m.onnx")
    sizes = prune(source).save(tmp_path / "out.onnx").sizes
    assert not sizes.gzip_estimated
    for have, path in ((sizes.gzip_input, source), (sizes.gzip_output, tmp_path / "out.onnx")):
        assert have == pytest.approx(len(gzip.compress(path.read_bytes())), rel=0.02)


def test_json_says_what_the_report_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx")
    assert main([str(source), "--json", f"{tmp_path / 'r.json'}", "--quiet", "--no-shrink"]) == 0
    facts = json.loads((tmp_path / "r.json").read_text())
    report = prune(source).report
    for key in ("weights", "kept", "parameters", "parameter_ratio", "total_ratio"):
        assert facts[key] == getattr(report, key)
    assert [row["kept"] for row in facts["layers"]] == [row.kept for row in report.layers]
    assert facts["sizes"]["file_output"] == (tmp_path / "m.pruned.onnx").stat().st_size
    assert main([str(source), "--dry-run", "--no-shrink", "--json", "-"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert dry["sizes"] == facts["sizes"]
    assert dry["layers"] == facts["layers"]


@pytest.mark.parametrize("target", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_sparsity_is_reached(target: float, scope: Scope) -> None:
    report = prune(mlp(SIZES), sparsity=target, scope=scope).report
    rows = report.layers if scope == "layer" else [report]
    for row in rows:
        assert row.weights - row.kept == pytest.approx(target * row.weights, abs=1)
    if scope == "global":
        thresholds = {row.threshold for row in report.layers}
        assert len(thresholds) == 1


def test_a_share_that_equal_magnitudes_keep_out_of_reach_is_said() -> None:
    model = mlp(SIZES)
    for tensor in model.graph.initializer:
        signs = np.sign(numpy_helper.to_array(tensor)) if tensor.dims[1:] else np.zeros(tensor.dims)
        tensor.CopyFrom(numpy_helper.from_array(signs.astype(np.float32), tensor.name))
    report = prune(model, sparsity=0.4).report
    assert report.kept == report.weights
    assert [text for text in report.warnings if text.startswith("0.00% of the weights are zero")]
    assert "not the share of 0.4" in str(report)
    # One layer may go its own way: the others are what the share is asked of.
    away = prune(model, sparsity=0.4, layers={"*": 1.0}).report
    assert not away.warnings
    assert not prune(mlp(SIZES), sparsity=0.4).report.warnings


def test_the_smallest_weights_go() -> None:
    model = mlp(SIZES)
    result = prune(model, sparsity=0.7)
    flat = np.concatenate([v.ravel() for k, v in arrays(model).items() if k.endswith("weight")])
    kept = np.concatenate(
        [v.ravel() for k, v in arrays(result.to_proto()).items() if k.endswith("weight")]
    )
    assert np.abs(flat[kept == 0]).max() <= np.abs(flat[kept != 0]).min()


def kept_by(**options: Any) -> dict[str, tuple[float | None, bool]]:
    report = prune(mlp(SIZES), **options).report
    return {row.layer: (row.quality, row.kept < row.weights) for row in report.layers}


def test_layers_set_apart() -> None:
    whole = (None, False)
    assert kept_by(quality=0.5, layers={"fc0*": 2.0, "fc1.weight": None}) == {
        "fc0.weight": (2.0, True), "fc1.weight": whole, "fc2.weight": (0.5, True)
    }  # fmt: skip
    assert kept_by(exclude=["fc[12]*"]) == {
        "fc0.weight": (1.0, True), "fc1.weight": whole, "fc2.weight": whole
    }  # fmt: skip
    assert kept_by(layers={"fc*": 0.3, "*1*": 0.6})["fc1.weight"] == (0.6, True), "the later wins"
    assert kept_by(layers={"fc1": 0.3})["fc1.weight"] == (0.3, True), "by the node's name"
    assert kept_by(quality=0, layers={"fc2*": 1})["fc0.weight"][1] is False


def test_embeddings_are_asked_for() -> None:
    table = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    model = mlp((24, 40))
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    model.graph.node[0].input[0] = "row"
    model.graph.node.insert(0, helper.make_node("Gather", ["table", "ids"], ["row"]))
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"]))
    for embeddings in (False, True):
        result = prune(model, embeddings=embeddings)
        assert ("table" in [row.layer for row in result.report.layers]) == embeddings
        assert (arrays(result.to_proto())["table"] == 0).any() == embeddings
        listed = onnxprune.inspect(model, embeddings=embeddings)
        assert ("table" in [row.layer for row in listed.layers]) == embeddings


def test_each_weight_is_sparse_only_where_that_saves_bytes() -> None:
    for form in FORMATS:
        report = prune(mlp(SIZES), layers={"fc0*": 0.05}, quality=2, format=form).report
        rows = {row.layer: row for row in report.layers}
        assert rows["fc0.weight"].stored_as == "dense", "4 % zeros never pay"
        assert rows["fc1.weight"].stored_as == form
        assert all((row.bytes_after < row.bytes_before) != (row.stored_as == "dense")
                   for row in report.layers)  # fmt: skip


def accuracy(model: ModelProto, inputs: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {"x": inputs})
    return float((scores.argmax(1) == labels).mean())


def test_accuracy_is_measured_on_both(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((150, 24)).astype(np.float32)
    labels = random.integers(0, 10, 150)
    np.savez(tmp_path / "val.npz", x=inputs, labels=labels)
    result = prune(mlp(SIZES), quality=1.5, val=tmp_path / "val.npz")
    measured = result.report.accuracy
    assert measured is not None
    assert measured.samples == 150
    assert measured.before == pytest.approx(accuracy(mlp(SIZES), inputs, labels))
    assert measured.after == pytest.approx(accuracy(result.to_proto(), inputs, labels))
    assert math.isclose(measured.before, measured.after) is False


def test_inspect_counts_what_prune_leaves() -> None:
    listed = onnxprune.inspect(mlp(SIZES))
    for index, quality in enumerate(listed.qualities):
        report = prune(mlp(SIZES), quality=quality).report
        assert [row.kept[index] for row in listed.layers] == [row.kept for row in report.layers]
        assert listed.kept[index] == report.kept
