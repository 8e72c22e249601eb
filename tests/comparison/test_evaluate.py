"""`evaluate` against counts, files and numpy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.comparison import timings
from onnxprune.errors import DataError, UsageError
from onnxprune.report.evaluation import EvaluationReport
from onnxprune.runtime import CannotRun
from tests.builders import arrays, mlp, saved
from tests.refusal import refused

RANDOM = np.random.default_rng(0)
SIZES = (24, 40, 7)
X = RANDOM.standard_normal((130, 24)).astype(np.float32)
LABELS = RANDOM.integers(0, 7, 130)


def scores(model: ModelProto, x: np.ndarray = X) -> np.ndarray:
    """What a model of `mlp` with one hidden layer gives, by numpy."""
    weights = arrays(model)
    hidden = np.maximum(x @ weights["fc0.weight"].T + weights["fc0.bias"], 0)
    return np.asarray(hidden @ weights["fc1.weight"].T + weights["fc1.bias"])


def thinner(model: ModelProto, share: float) -> ModelProto:
    """A copy with some of its first weights at zero."""
    copy = ModelProto()
    copy.CopyFrom(model)
    weight = numpy_helper.to_array(copy.graph.initializer[0]).copy()
    weight[RANDOM.random(weight.shape) < share] = 0
    copy.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "fc0.weight"))
    return copy


A = mlp(SIZES)
B = thinner(A, 0.5)


def one_node(operator: str, shape: list[Any], name: str = "x", kind: int = 1) -> ModelProto:
    x = helper.make_tensor_value_info(name, kind, shape)
    y = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph([helper.make_node(operator, [name], ["y"])], operator, [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quickly(*models: Any, **more: Any) -> EvaluationReport:
    return onnxprune.evaluate(models, **{"runs": 0, **more})


def test_metric_and_agreement_are_those_of_numpy() -> None:
    report = quickly(A, B, val=(X, LABELS))
    assert report.metric is not None
    assert report.agreement is not None
    guesses = [scores(model).argmax(1) for model in (A, B)]
    shares = [(guess == LABELS).mean() for guess in guesses]
    assert report.metric.values == tuple(shares)
    wanted = [(share * (1 - share) / 129) ** 0.5 for share in shares]
    assert report.metric.errors == pytest.approx(wanted)
    assert report.agreement.values == (1, (guesses[0] == guesses[1]).mean())
    assert report.agreement.values[1] < 1
    assert (report.metric.name, report.metric.better) == ("top-1 accuracy", "higher")
    assert report.agreement.name == "agreement with the first model"
    assert report.samples == 130
    assert report.data == "arrays: 130 samples, labelled"
    assert report.conditions is None


@pytest.mark.parametrize("external", [False, True])
def test_bytes_and_weights_are_counted(external: bool, tmp_path: Path) -> None:
    dense = saved(mlp(SIZES), tmp_path / "a.onnx", external=external)
    pruned = onnxprune.prune(dense, quality=1.0, shrink=False)
    pruned.save(tmp_path / "b.onnx")
    report = quickly(dense, tmp_path / "b.onnx", pruned.to_proto())
    for row, name in zip(report.models, "ab", strict=False):
        files = [file for file in tmp_path.iterdir() if file.name.startswith(f"{name}.onnx")]
        assert row.model == str(tmp_path / f"{name}.onnx")
        assert row.file_bytes == sum(file.stat().st_size for file in files)
        assert 0 < row.gzip_bytes <= row.file_bytes
    weights = {name: x for name, x in arrays(mlp(SIZES)).items() if name.endswith("weight")}
    alive = sum(np.count_nonzero(abs(x) >= x.std(dtype=np.float64)) for x in weights.values())
    sizes = sum(x.size for x in weights.values())
    everything = sum(x.size for x in arrays(mlp(SIZES)).values())
    for row, kept in zip(report.models, (sizes, alive, alive), strict=True):
        assert (row.weights, row.kept, row.parameters) == (sizes, kept, everything)
        assert row.kept_share == kept / sizes
    assert report.models[2].file_bytes == pruned.to_proto().ByteSize()
    assert (report.metric, report.agreement, report.data) == (None, None, None)


def test_latency_is_of_runs_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = np.array([[2, 4, 6, 8, 10], [1, 2, 3, 8, 40]]) / 1000
    fed: list[Any] = []

    def measured(sessions: Any, feeds: Any, **more: Any) -> np.ndarray:
        fed.append((feeds, more["runs"]))
        return seconds

    monkeypatch.setattr(timings, "interleaved_seconds", measured)
    report = quickly(A, B, runs=5, threads=2, batch_size=3, val=(X, LABELS))
    feeds, runs = fed[0]
    assert runs == 5
    for each in feeds:
        np.testing.assert_array_equal(each["x"], X[:3])
    first, second = (row.latency for row in report.models)
    assert first is not None
    assert second is not None
    assert (first.median_ms, first.speed) == (6, 1)
    assert second.median_ms == 3
    assert second.p90_ms == pytest.approx(np.percentile(seconds[1] * 1000, 90))
    assert second.speed == 2, "the median of 2, 2, 2, 1, 0.25: neighbours are compared"
    conditions = report.conditions
    assert conditions is not None
    assert conditions.runtime.startswith("onnxruntime ")
    assert (conditions.threads, conditions.batch, conditions.runs) == (2, 3, 5)
    assert conditions.inputs == "arrays"


def test_latency_without_data_and_over_few_samples() -> None:
    report = onnxprune.evaluate([A, B], runs=2, batch_size=5)
    assert report.conditions is not None
    assert (report.conditions.inputs, report.conditions.batch) == ("random inputs", 5)
    assert all(row.latency is not None and row.latency.median_ms > 0 for row in report.models)
    few = onnxprune.evaluate([A], runs=2, batch_size=5, val=(X[:3], LABELS[:3]))
    assert few.conditions is not None
    assert few.conditions.batch == 5


def test_a_batch_size_that_models_insist_on() -> None:
    fixed, free = one_node("Relu", [4, 24]), one_node("Relu", ["N", 24])
    report = onnxprune.evaluate([free, fixed], runs=1, val=(X, X))
    assert report.conditions is not None
    assert report.conditions.batch == 4
    assert report.metric is not None
    wanted = np.square(np.minimum(X, 0)).mean()
    assert report.metric.values == pytest.approx((wanted, wanted))


def test_without_labels_the_first_model_counts() -> None:
    report = quickly(A, B, val=X)
    assert report.metric is not None
    assert report.metric.name == "agreement with the first model"
    same = (scores(A).argmax(1) == scores(B).argmax(1)).mean()
    assert report.metric.values == (1, same)
    assert report.agreement is None, "it is the metric"
    report = quickly(A, B, val=X, metric="cosine")
    assert report.metric is not None
    assert report.agreement is not None
    assert report.metric.values[0] == 1
    assert report.metric.values[1] < 1
    assert report.agreement.values == (1, same)


def test_one_model_without_labels_is_not_measured() -> None:
    report = quickly(A, val=X)
    assert (report.metric, report.agreement, report.samples) == (None, None, 0)
    assert "name a second one" in report.notes[0]
    assert "not measured: see the note" in str(report)
    timed = onnxprune.evaluate(A, runs=1, val=iter([X[:5]]))
    assert timed.conditions is not None
    assert timed.conditions.inputs == "list_iterator"


def test_data_that_can_be_read_only_once() -> None:
    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, 130, 50):
            yield X[start : start + 50], LABELS[start : start + 50]

    report = onnxprune.evaluate([A, B], val=batches(), runs=1)
    assert report.metric is not None
    assert report.metric.values[0] == (scores(A).argmax(1) == LABELS).mean()
    assert report.samples == 130


def test_floats_of_another_width() -> None:
    wide, narrow = one_node("Relu", ["N", 24]), one_node("Relu", ["N", 24], kind=10)
    report = onnxprune.evaluate([wide, narrow], val=X, runs=1)
    assert report.metric is not None
    assert report.metric.values[0] == 1
    assert report.metric.values[1] > 0.9
    assert all(row.latency for row in report.models)


def test_values_have_a_distance() -> None:
    x = RANDOM.standard_normal((30, 1)).astype(np.float32)
    report = quickly(one_node("Identity", ["N", 1]), one_node("Abs", ["N", 1]), val=(x, x))
    assert report.agreement is not None
    assert report.agreement.values == pytest.approx((0, np.square(abs(x) - x).mean()))
    text = str(report)
    assert "distance" in text
    assert "mean squared error against the first model, lower is better" in text


def test_outputs_of_other_shapes_have_no_agreement() -> None:
    wider = mlp((24, 40, 9))
    report = quickly(A, wider, val=(X, LABELS))
    assert report.agreement is not None
    assert report.agreement.values == (1, None)
    assert report.metric is not None
    assert report.metric.values[1] == (scores(wider).argmax(1) == LABELS).mean()
    assert "agreement of 'mlp' was not measured: the first output" in report.notes[0]


def test_sigmoid_and_logits_side_by_side() -> None:
    x = RANDOM.standard_normal((30, 1)).astype(np.float32)
    models = one_node("Identity", ["N", 1]), one_node("Sigmoid", ["N", 1])
    report = quickly(*models, val=(x, (x[:, 0] > 0.3).astype(int)))
    assert report.metric is not None
    assert report.metric.values[0] == report.metric.values[1] < 1
    assert report.metric.name == "accuracy at logit 0 or accuracy at 0.5"
    assert report.agreement is not None
    assert report.agreement.values == (0, None)
    assert "its outputs are of another kind" in report.notes[0]


def test_a_function_of_the_users() -> None:
    def worst(outputs: np.ndarray, labels: np.ndarray) -> float:
        return float(outputs.max())

    report = quickly(A, B, val=(X, LABELS), metric=worst, metric_better="lower")
    assert report.metric is not None
    assert report.metric.values == pytest.approx((scores(A).max(), scores(B).max()))
    assert report.metric.errors == (None, None)


def strange(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.node[0].op_type = "Nowhere"
    return copy


@pytest.mark.parametrize(
    ("models", "more", "kind", "words"),
    [
        ([], {}, UsageError, "there is no model to evaluate"),
        ([A, one_node("Relu", ["N", 24], "z")], {}, UsageError, "its inputs are 'z', not 'x'"),
        ([A, one_node("Relu", ["N", 9])], {}, UsageError, "has the shape ?x9, not ?x24"),
        ([A, one_node("Relu", ["N", 24, 1])], {}, UsageError, "has the shape ?x24x1"),
        ([A, one_node("Neg", ["N", 24], kind=TensorProto.INT64)], {}, UsageError, "is int64, not"),
        (
            [one_node("Relu", [4, 24]), one_node("Relu", [5, 24])],
            {"runs": 1},
            UsageError,
            "'Relu' takes batches of 5 only, not of 4 as 'Relu' says: --runs 0 times none",
        ),
        (
            [one_node("Relu", [4, 24])],
            {"runs": 1, "batch_size": 2},
            UsageError,
            "'Relu' takes batches of 4 only, not of 2 as batch-size says: leave batch-size out",
        ),
        ([A], {"metric": "top1"}, UsageError, "give val too"),
        ([A], {"metric": "cosine", "val": X}, UsageError, "name a second model"),
        ([A], {"metric": max, "metric_better": "lower", "val": X}, UsageError, "has no labels"),
        ([A, B], {"metric": "top1", "val": X}, DataError, "has no labels, and top1 needs them"),
        ([A], {"val": (X, LABELS + 5)}, DataError, "the model has 7 classes"),
        ([A], {"val": X[:, :3]}, DataError, "the model wants float32 of shape ?x24"),
        ([A, strange(B)], {"val": X}, CannotRun, "'mlp': onnxruntime does not load it"),
        ([A, strange(B)], {"runs": 1}, CannotRun, "'mlp': onnxruntime does not load it"),
        (
            [A, one_node("ReduceSum", ["N", 24])],
            {"val": X},
            DataError,
            "'ReduceSum': the model's first output has 1 rows for 64 samples",
        ),
    ],
)
def test_refusals(models: Any, more: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        quickly(*models, **more)
    assert words in str(caught.value)


def test_models_of_different_kinds() -> None:
    x = RANDOM.integers(0, 2, (30, 3)).astype(np.float32)
    logits, classes = one_node("Identity", ["N", 3]), one_node("Identity", ["N", 3])
    classes.graph.node[0].op_type = "ArgMax"
    classes.graph.node[0].attribute.append(helper.make_attribute("keepdims", 0))
    classes.graph.node[0].attribute.append(helper.make_attribute("axis", 1))
    classes.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    report = quickly(logits, classes, val=(x, x.argmax(1)))
    assert report.metric is not None
    assert report.metric.values == (1, 1)
    assert report.agreement is not None
    assert report.agreement.values == (1, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, model in (("a", A), ("b", B)):
        onnx.save(model, tmp_path / f"{name}.onnx")
    np.savez(tmp_path / "val.npz", x=X, labels=LABELS)
    return tmp_path


def test_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    command = ["evaluate", "a.onnx", "b.onnx", "--val", "val.npz", "--runs", "3"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[1] == "a.onnx, b.onnx"
    share = (scores(B).argmax(1) == LABELS).mean()
    assert next(line for line in lines if line.startswith("b.onnx ")).split()[1] == f"{share:.2%}"
    assert "1 thread, batches of 1: median and 90th percentile of 3 runs" in captured.out
    assert captured.out.isascii()
    assert main([*command, "--json", "-", "--metric", "top3"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["schema"], facts["kind"], facts["samples"]) == (1, "evaluate", 130)
    assert facts["metric"]["name"] == "top-3 accuracy"
    assert facts["models"][1]["kept_share"] == pytest.approx(
        sum(np.count_nonzero(arrays(B)[f"fc{i}.weight"]) for i in (0, 1)) / (24 * 40 + 40 * 7)
    )
    assert main([*command, "--json", "r.json"]) == 0
    assert json.loads((folder / "r.json").read_text())["kind"] == "evaluate"


def test_the_command_refuses(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for line, code, words in (
        ("a.onnx c.onnx", 1, "cannot read 'c.onnx'"),
        ("a.onnx --val missing.npz", 1, "cannot read 'missing.npz'"),
        ("a.onnx b.onnx --val val.npz --json b.onnx --overwrite", 1, "would replace the input"),
        ("a.onnx --val val.npz --json val.npz --overwrite", 2, "val"),
        ("a.onnx --val val.npz --metric nowhere:f", 1, "cannot import 'nowhere'"),
        ("a.onnx --val val.npz --metric os.path:join", 2, "does not say which way is up"),
    ):
        assert words in refused(["evaluate", *line.split()], folder, capsys, code)
