"""Calibration through the command line and Python: what is repaired, what the report says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import UsageError
from tests.builders import arrays, mlp, saved
from tests.repair.cases import CASES, Case
from tests.repair.test_repair import INPUTS, branching, normalized, samples

SIZES = (INPUTS, 64, 48, 10)


def outputs(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def error(dense: ModelProto, pruned: ModelProto, x: np.ndarray) -> float:
    apart = outputs(dense, x).astype(np.float64) - outputs(pruned, x)
    return float((apart**2).mean())


def weight(proto: ModelProto, name: str) -> np.ndarray:
    """A stored tensor, whether an initializer or in a Constant node."""
    held = [a.t for node in proto.graph.node for a in node.attribute if a.name == "value"]
    tensors = {t.name: t for t in (*proto.graph.initializer, *held)}
    return numpy_helper.to_array(tensors[name])


def fresh(count: int = 300, width: int = INPUTS) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((count, width)).astype(np.float32)


# ---- both doors ------------------------------------------------------------------------------


def test_both_doors_give_the_same_file(tmp_path: Path) -> None:
    path = saved(mlp(SIZES), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples())
    line = [str(path), "--sparsity", "0.8", "--calibrate", str(tmp_path / "x.npz")]
    assert main([*line, "-o", str(tmp_path / "a.onnx"), "--samples", "150", "--quiet"]) == 0
    result = onnxprune.prune(path, sparsity=0.8, calibrate={"x": samples()}, samples=150)
    result.save(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert result.report.repair is not None and result.report.repair.samples == 150


@pytest.mark.parametrize(
    ("options", "better"),
    [
        ({"sparsity": 0.8}, 0.5),
        ({"sparsity": 0.5, "scope": "layer"}, 0.6),
        ({"sparsity": 0.5, "repair": "match"}, 0.98),
        ({"quality": 0.7}, 0.6),
        ({"quality": 0.7, "layers": {"fc1*": 0.3}, "repair": "match"}, 1.0),
    ],
)
def test_outputs_come_back_on_unseen_samples(options: dict[str, Any], better: float) -> None:
    dense = mlp(SIZES)
    calibrated = onnxprune.prune(dense, calibrate={"x": samples(512)}, shrink=False, **options)
    options.pop("repair", None)
    plain = onnxprune.prune(dense, **options, shrink=False)
    apart = [error(dense, r.to_proto(), fresh()) for r in (calibrated, plain)]
    assert apart[0] < better * apart[1]
    assert calibrated.report.kept == pytest.approx(plain.report.kept, abs=2)


def test_statistics_of_batch_normalization() -> None:
    dense = normalized()
    x = np.random.default_rng(1).standard_normal((70, 3, 8, 8)).astype(np.float32)
    result = onnxprune.prune(dense, sparsity=0.6, calibrate=x, repair="bn")
    y = outputs(result.to_proto(), x)
    np.testing.assert_allclose(y.mean((0, 2, 3)), arrays(dense)["shift1"], atol=1e-3)
    assert [row.method for row in result.report.repair.rows] == ["bn", "bn"]


def test_no_repair_is_plain_pruning() -> None:
    dense = mlp(SIZES)
    plain = onnxprune.prune(dense, sparsity=0.8).to_proto()
    result = onnxprune.prune(dense, sparsity=0.8, calibrate={"x": samples()}, repair="none")
    assert result.to_proto() == plain
    assert result.report.layers[0].threshold is not None
    assert {row.reason for row in result.report.repair.rows} == {"no repair was asked for"}
    assert not any(line.startswith("repair ") for line in str(result.report).splitlines())


@pytest.mark.parametrize("options", [{"quality": 0.0}, {"sparsity": 0.0}, {"sparsity": 0.3}])
@pytest.mark.parametrize("repair", ["refit", "match", "bn"])
def test_where_nothing_goes_nothing_changes(repair: Any, options: dict[str, Any]) -> None:
    dense = normalized()
    if options == {"sparsity": 0.3}:  # the zeros that are there already are enough
        for tensor in dense.graph.initializer[:2]:
            array = numpy_helper.to_array(tensor).copy()
            array[np.abs(array) < np.quantile(np.abs(array), 0.5)] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = np.random.default_rng(1).standard_normal((70, 3, 8, 8)).astype(np.float32)
    result = onnxprune.prune(dense, calibrate=x, repair=repair, **options)
    assert result.to_proto() == dense
    assert {row.reason for row in result.report.repair.rows} == {"no weight went"}


# ---- layouts and types -----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_layout(case: Case) -> None:
    """One layer: the report's errors are those of the outputs, and only a refit lowers them."""
    dense, x = case.proto(), case.samples()
    options: dict[str, Any] = {"quality": 0.7, "check": False}
    plain = onnxprune.prune(dense, **options).to_proto()
    result = onnxprune.prune(dense, calibrate={"x": x}, **options)
    proto, row = result.to_proto(), result.report.layers[0]
    assert np.array_equal(weight(proto, "w") == 0, weight(plain, "w") == 0)
    assert row.kept == np.count_nonzero(weight(proto, "w")) < row.weights
    found = result.report.repair.rows[0]
    assert found.method == "refit" and found.error_after < found.error_before
    ratio = error(dense, proto, x) / error(dense, plain, x)
    assert ratio == pytest.approx(found.error_after / found.error_before, rel=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_layout_reaches_a_sparsity(case: Case) -> None:
    result = onnxprune.prune(case.proto(), sparsity=0.5, calibrate=case.samples(), check=False)
    row = result.report.layers[0]
    zeros = int((weight(result.to_proto(), "w") == 0).sum())
    assert row.weights - row.kept == zeros == pytest.approx(row.weights / 2, abs=1)
    assert row.threshold is None
    assert result.report.repair.rows[0].method == "refit"


@pytest.mark.parametrize("repair", ["refit", "match"])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_halves(kind: int, repair: Any) -> None:
    dtype = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}[kind]
    dense = mlp(SIZES)
    wide = onnxprune.prune(dense, sparsity=0.8, calibrate=samples(512), repair=repair)
    for t in dense.graph.initializer:
        t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(dtype), t.name))
    for info in (*dense.graph.input, *dense.graph.output):
        info.type.tensor_type.elem_type = kind
    x = samples(512).astype(dtype)
    result = onnxprune.prune(dense, sparsity=0.8, calibrate=x, repair=repair, check=False)
    found = weight(result.to_proto(), "fc2.weight")
    assert found.dtype == dtype
    for row, same in zip(result.report.repair.rows, wide.report.repair.rows, strict=True):
        np.testing.assert_allclose(row.error_after, same.error_after, rtol=0.1)
    assert sum(row.kept for row in result.report.layers) == sum(
        np.count_nonzero(weight(result.to_proto(), f"fc{i}.weight")) for i in range(3)
    )


def test_a_bias_is_added_and_the_file_passes_its_checks(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "conv without bias")
    proto = case.proto()
    proto.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 5, 6])
    )
    result = onnxprune.prune(proto, sparsity=0.7, calibrate=case.samples())
    report = result.save(tmp_path / "m.onnx")
    assert [check.outcome for check in report.checks] == ["passed"] * 3
    assert "w.bias" in arrays(onnx.load(tmp_path / "m.onnx"))


def test_what_cannot_be_repaired_is_pruned_and_listed() -> None:
    result = onnxprune.prune(branching(), sparsity=0.6, calibrate=samples(100, 8), check=False)
    reasons = {row.layer: row.reason for row in result.report.repair.rows}
    assert reasons["first"] is None and reasons["last"] is None
    assert "RNN" in reasons["rnn"]
    assert sum("body" in str(reason) for reason in reasons.values()) == 2
    assert all(row.kept < row.weights for row in result.report.layers)
    assert "not repaired" in str(result.report) and "RNN cannot be repaired" in str(result.report)


def test_a_repair_that_nothing_takes_is_a_warning() -> None:
    result = onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=samples(), repair="bn")
    (warning,) = result.report.warnings
    assert warning.startswith("no layer could be repaired (the model has no BatchNormalization")


def test_quantised_layers_are_pruned_without_repair() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(-127, 127, (INPUTS, 32)).astype(np.int8)
    last = (random.standard_normal((32, 10)) * 50).astype(np.float32)
    tensors = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(last, "last"),
               numpy_helper.from_array(np.float32(0.5), "scale"),
               numpy_helper.from_array(np.int8(0), "zero")]  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "last"], ["y"]),
    ]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", s])
        for n, s in (("x", INPUTS), ("y", 10))
    ]
    graph = helper.make_graph(nodes, "q", infos[:1], infos[1:], tensors)
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(dense, sparsity=0.6, calibrate=samples())
    rows = {row.layer: row for row in result.report.layers}
    assert rows["codes"].kept < rows["codes"].weights and rows["last"].kept < rows["last"].weights
    assert rows["codes"].threshold is not None and rows["last"].threshold is None
    reasons = {row.layer: row.reason for row in result.report.repair.rows}
    assert reasons == {"codes": "its weights are quantised", "last": None}


def test_excluded_layers_keep_their_bytes() -> None:
    dense = mlp(SIZES)
    result = onnxprune.prune(
        dense,
        sparsity=0.8,
        calibrate=samples(),
        exclude=["fc1*"],
        layers={"fc2*": None},
        shrink=False,
    )
    for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
        assert np.array_equal(weight(result.to_proto(), name), weight(dense, name))
    assert result.report.layers[0].kept < result.report.layers[0].weights


def test_an_old_operator_set_with_a_fixed_batch() -> None:
    """Pad has its pads in an attribute: how its batch axis could be freed is not known."""
    random = np.random.default_rng(0)
    w = random.standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Pad", ["x"], ["p"], pads=[0, 0, 1, 1, 0, 0, 1, 1]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 6, 6])
        for n, c in (("x", 3), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "old", infos[:1], infos[1:], [numpy_helper.from_array(w, "w")])
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    x = random.standard_normal((70, 3, 6, 6)).astype(np.float32)
    row = onnxprune.prune(dense, sparsity=0.5, calibrate=x).report.repair.rows[0]
    assert row.method == "refit" and row.error_after < row.error_before


# ---- the report ------------------------------------------------------------------------------


def test_counts_are_those_of_the_final_weights() -> None:
    result = onnxprune.prune(
        mlp(SIZES), sparsity=0.9, calibrate=samples(), format="dense", shrink=False
    )
    proto = result.to_proto()
    for row in result.report.layers:
        assert row.kept == np.count_nonzero(weight(proto, row.layer))
        assert row.threshold is None
    share = 1 - result.report.kept / result.report.weights
    assert share == pytest.approx(0.9, abs=1e-3)


def test_text_and_json_tell_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(mlp(SIZES), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples(), labels=np.zeros(200, np.int64))
    line = [str(path), "--sparsity", "0.8", "--calibrate", str(tmp_path / "x.npz"), "--dry-run"]
    assert main(line) == 0
    shown = capsys.readouterr().out
    assert main([*line, "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)["repair"]
    assert (facts["method"], facts["samples"], facts["data"]) == (
        "refit",
        200,
        "x.npz: 200 samples",
    )
    assert f"chosen by      {facts['choice']}" in shown
    assert [row["layer"] for row in facts["rows"]] == [f"fc{i}.weight" for i in range(3)]
    assert all(0 < row["error_after"] < row["error_before"] for row in facts["rows"])
    assert (
        "repair         least-squares refit: 3 layers on 200 samples (x.npz: 200 samples)" in shown
    )
    assert "error pruned  error repaired" in shown
    assert f"{facts['rows'][0]['error_after']:.3g}" in shown


def test_choices_are_named() -> None:
    def choice(**options: Any) -> str:
        return onnxprune.prune(mlp(SIZES), calibrate=samples(), **options).report.repair.choice

    assert choice(quality=0.5) == "magnitude under 0.5 x standard deviation"
    assert choice(sparsity=0.5, scope="layer") == "least magnitude in every layer"
    assert choice(sparsity=0.5, repair="match") == "least magnitude over all layers"
    assert "deviation of its input" in choice(sparsity=0.8)


def test_progress_tells_of_layers(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    onnxprune.prune(
        mlp(SIZES), quality=0.7, calibrate=samples(), progress=lambda *a: told.append(a)
    )
    repairs = [entry for entry in told if entry[0] == "repair (layers)"]
    assert repairs[-1][1:] == (3, 3)


def test_dropout_ratios_follow_the_final_connections() -> None:
    dense = mlp(SIZES, opset=11)
    dense.graph.node.insert(2, helper.make_node("Dropout", ["a0"], ["d0"], name="drop", ratio=0.5))
    dense.graph.node[3].input[0] = "d0"
    report = onnxprune.prune(dense, sparsity=0.8, calibrate=samples(), shrink=False).report
    kept = report.layers[0].kept / report.layers[0].weights
    assert report.dropouts[0].after == pytest.approx(0.5 * kept**0.5, rel=1e-3)


# ---- with training ---------------------------------------------------------------------------


def test_repair_comes_before_the_training_of_every_round() -> None:
    dense, x = mlp(SIZES), samples(256)
    given: dict[str, Any] = {"train": {"x": x}, "val": {"x": fresh()}, "shrink": False}
    settings = onnxprune.FineTune(rounds=2, epochs=1, lr=1e-5)

    def trained(**more: Any) -> onnxprune.Report:
        return onnxprune.prune(dense, sparsity=0.8, finetune=settings, **given, **more).report

    plain, repaired = trained(), trained(calibrate={"x": x})
    for before, after in zip(plain.training.rounds, repaired.training.rounds, strict=True):
        assert after.zeros == pytest.approx(before.zeros, abs=1e-3)
        assert after.metric_pruned > before.metric_pruned + 0.15  # agreement
    assert repaired.repair is not None and repaired.repair.rows[0].method == "refit"
    for row in repaired.layers:
        assert row.threshold is None
    assert 1 - repaired.kept / repaired.weights == pytest.approx(0.8, abs=1e-3)


def test_a_stream_calibrates_every_round() -> None:
    x = samples(256)
    batches = iter([{"x": x[:100]}, {"x": x[100:]}])
    report = onnxprune.prune(
        mlp(SIZES),
        sparsity=0.8,
        train={"x": x},
        calibrate=batches,
        finetune=onnxprune.FineTune(rounds=3, epochs=1),
    ).report
    assert report.repair.samples == 256


# ---- settings without sense ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repair": "refit"}, "repair says how to repair: give the samples"),
        ({"samples": 5}, "samples says how to repair"),
        ({"calibrate": samples(), "repair": "magic"}, "repair 'magic' is unknown: choose one of"),
        ({"calibrate": samples(), "samples": 0}, "samples is 0: give a whole number of at least 1"),
        ({"calibrate": samples(), "samples": 1.5}, "samples is 1.5"),
    ],
)
def test_python_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        onnxprune.prune(mlp(), **options)
