"""The most pruning within a bound, from both doors, against files measured in onnxruntime."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import DataError, OnnxPruneError, OutputError, UsageError
from onnxprune.finetune import FineTune
from onnxprune.report.search import Search
from tests.builders import mlp
from tests.refusal import refused
from tests.search import nets

MODELS = Path(__file__).resolve().parents[2] / "models"
RANDOM = np.random.default_rng(2)
SIZES = (12, 60, 40, 5)
X = RANDOM.standard_normal((300, 12)).astype(np.float32)


def run(model: ModelProto | str, x: np.ndarray = X) -> np.ndarray:
    source = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


MODEL = mlp(SIZES)
LABELS = run(MODEL).argmax(1)
LABELS[:15] = (LABELS[:15] + 1) % 5


def accuracy(model: ModelProto | str, labels: np.ndarray = LABELS) -> float:
    return float((run(model).argmax(1) == labels).mean())


def nonzero(model: ModelProto) -> int:
    return sum(
        np.count_nonzero(numpy_helper.to_array(t))
        for t in model.graph.initializer
        if t.name.endswith("weight")
    )


def search_of(result: Any) -> Search:
    found = result.report.search
    assert isinstance(found, Search)
    return found


@pytest.mark.parametrize("max_drop", [0.0, 0.5, 2, 10, 100])
def test_the_bound_holds_on_the_file_that_is_written(max_drop: float, tmp_path: Path) -> None:
    result = onnxprune.prune(MODEL, max_drop=max_drop, val=(X, LABELS))
    report = result.save(tmp_path / "m.onnx")
    search = search_of(result)
    dense, found = accuracy(MODEL), accuracy(str(tmp_path / "m.onnx"))
    assert dense - found <= max_drop / 100 + 1e-12
    assert (search.dense, search.bound, search.unit) == (dense, max_drop / 100, "points")
    assert search.drop == pytest.approx(dense - found, abs=1e-12)
    assert report.accuracy is not None
    assert (report.accuracy.before, report.accuracy.after) == (dense, found)
    assert [check.name for check in report.checks][-1] == "max-drop"
    assert report.checks[-1].outcome == "passed"
    assert report.kept == nonzero(result.to_proto())


def test_the_trials_are_true_and_the_best_is_chosen() -> None:
    result = onnxprune.prune(MODEL, max_drop=3, val=(X, LABELS))
    search = search_of(result)
    assert 5 <= len(search.trials) <= 24
    within = [row for row in search.trials if row.within]
    for row in search.trials:
        assert row.drop == pytest.approx(search.dense - row.metric)
        assert row.within == (row.drop <= 0.03 + 1e-12)
        assert row.zeros == pytest.approx(1 - row.kept / (12 * 60 + 60 * 40 + 40 * 5))
    least = min(row.kept for row in within)
    chosen = next(row for row in search.trials if row.trial == search.chosen)
    assert chosen.kept == least == nonzero(result.to_proto())
    assert chosen.trial == min(row.trial for row in within if row.kept == least)
    assert {row.way for row in search.trials} >= {"over all layers", "sensitivity"}
    assert not any(row.retrained for row in search.trials)
    assert (search.samples, search.scanned) == (300, 300)


def test_a_trial_by_sparsity_is_what_sparsity_gives() -> None:
    search = search_of(onnxprune.prune(MODEL, max_drop=3, val=(X, LABELS), trials=4))
    assert len(search.trials) == 4
    row = search.trials[1]
    share = float(row.setting.removeprefix("sparsity "))
    again = onnxprune.prune(MODEL, sparsity=share, val=(X, LABELS), shrink=False).report
    assert again.accuracy is not None
    assert again.accuracy.after == row.metric
    assert again.kept == pytest.approx(row.kept, abs=2)


def test_few_trials_are_said_to_be_few() -> None:
    few = search_of(onnxprune.prune(MODEL, max_drop=0.5, val=(X, LABELS), trials=3))
    assert len(few.trials) == 3
    assert few.notes == ("all 3 trials were used: --trials with a larger number may find more",)
    assert search_of(onnxprune.prune(MODEL, max_drop=0.5, val=(X, LABELS))).notes == ()


def test_a_wider_bound_gives_no_larger_model() -> None:
    kept = [
        onnxprune.prune(MODEL, max_drop=drop, val=(X, LABELS)).report.kept for drop in (1, 5, 20)
    ]
    assert kept[0] >= kept[1] >= kept[2]
    assert kept[0] > kept[2]


def test_the_same_again() -> None:
    def facts() -> Any:
        result = onnxprune.prune(MODEL, max_drop=2, val=(X, LABELS), calibrate=X, trials=8)
        found = asdict(search_of(result))
        trials = [{**row, "seconds": 0} for row in found.pop("trials")]
        return trials, {**found, "seconds": 0}, result.to_proto().SerializeToString()

    assert facts() == facts()


def test_nothing_can_go(tmp_path: Path) -> None:
    """The model is written as it is, and the report says so."""
    result = onnxprune.prune(MODEL, max_drop=1e-9, val=X, metric="mse")
    report = result.save(tmp_path / "m.onnx")
    search = search_of(result)
    assert (search.chosen, search.drop, search.drop_error) == (None, 0.0, None)
    assert not any(row.within for row in search.trials)
    assert min(row.zeros for row in search.trials) < 0.03
    assert report.kept == report.weights
    np.testing.assert_array_equal(run(str(tmp_path / "m.onnx")), run(MODEL))
    text = " ".join(str(report).split())
    assert "at most 1e-09% of the variance of the unpruned model's outputs lost" in text
    assert re.search(r"nothing pruned, for even [12]\.\d% zeros lose", text)
    with pytest.raises(OnnxPruneError):  # it is there
        result.save(tmp_path / "m.onnx")


def test_layers_that_nothing_measures_stay() -> None:
    model = nets.branches()
    labels = run(model).argmax(1)
    result = onnxprune.prune(model, max_drop=20, val=(X, labels))
    rows = {row.layer: row for row in result.report.layers}
    assert rows["d"].kept == rows["d"].weights
    assert rows["a"].kept + rows["b"].kept < rows["a"].weights + rows["b"].weights
    assert result.report.warnings[-1] == (
        "not pruned, since nothing that is measured depends on it: 'd'"
    )


def test_layers_set_apart_stay_set_apart() -> None:
    result = onnxprune.prune(
        MODEL, max_drop=5, val=(X, LABELS), layers={"fc1*": 0.2}, exclude=["fc2*"]
    )
    rows = {row.layer: row for row in result.report.layers}
    assert rows["fc1.weight"].quality == 0.2
    assert rows["fc2.weight"].kept == rows["fc2.weight"].weights
    assert rows["fc0.weight"].kept < rows["fc0.weight"].weights


def test_every_layer_alike() -> None:
    result = onnxprune.prune(MODEL, max_drop=5, val=(X, LABELS), scope="layer", trials=6)
    search = search_of(result)
    assert search.trials[0].way == "in every layer"
    assert accuracy(MODEL) - accuracy(result.to_proto()) <= 0.05


@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt"])
def test_criteria_have_one_target(criterion: Any) -> None:
    result = onnxprune.prune(
        MODEL, max_drop=5, val=(X, LABELS), criterion=criterion, calibrate=X, trials=12
    )
    search = search_of(result)
    assert {row.way for row in search.trials} == {"over all layers"}
    assert search.scanned == 0
    assert f"criterion {criterion} has one target" in search.notes[0]
    assert accuracy(MODEL) - accuracy(result.to_proto()) <= 0.05 + 1e-12
    hopeless = onnxprune.prune(
        MODEL, max_drop=0, val=X, metric="mse", criterion=criterion, calibrate=X, trials=3
    )
    assert search_of(hopeless).chosen is None
    assert hopeless.report.kept == hopeless.report.weights


def in_groups(weight: np.ndarray, keep: int, of: int) -> bool:
    """Whether a Gemm weight [outputs, inputs] keeps so many of every group of inputs."""
    groups = weight.reshape(len(weight), -1, of)
    return bool((np.count_nonzero(groups, axis=2) <= keep).all())


@pytest.mark.parametrize(("max_drop", "pattern"), [(100, "2:4"), (3, "2:4"), (12, "1:4")])
def test_which_layers_take_a_pattern(max_drop: float, pattern: str) -> None:
    result = onnxprune.prune(MODEL, max_drop=max_drop, val=(X, LABELS), pattern=pattern)
    search = search_of(result)
    keep = int(pattern[0])
    taken = [
        in_groups(numpy_helper.to_array(tensor), keep, 4)
        for tensor in result.to_proto().graph.initializer
        if tensor.name.endswith("weight")
    ]
    assert accuracy(MODEL) - accuracy(result.to_proto()) <= max_drop / 100 + 1e-12
    assert all(row.setting == pattern for row in search.trials)
    assert search.trials[0].way == "3 of 3 layers"
    if max_drop == 100:
        assert taken == [True] * 3
        assert len(search.trials) == 1
    elif search.chosen is None:
        assert not any(taken)
    else:
        chosen = search.trials[search.chosen - 1]
        assert chosen.way == f"{sum(taken)} of 3 layers"
        assert chosen.kept == min(row.kept for row in search.trials if row.within)


def test_a_pattern_that_retraining_makes_hold() -> None:
    with np.load(MODELS / "digits_train.npz") as data:
        train = {"image": data["image"], "labels": data["labels"]}
    result = onnxprune.prune(
        MODELS / "digits_mlp.onnx",
        max_drop=1,
        val=MODELS / "digits_test.npz",
        pattern="1:4",
        train=train,
        finetune=FineTune(epochs=20, lr=2e-3),
        trials=12,
    )
    search = search_of(result)
    plain = [row for row in search.trials if row.within and not row.retrained]
    retrained = [row for row in search.trials if row.within and row.retrained]
    assert retrained[0].kept < min(row.kept for row in plain)
    assert search.trials[(search.chosen or 0) - 1].retrained


def test_blocks() -> None:
    result = onnxprune.prune(MODEL, max_drop=10, val=(X, LABELS), pattern="4x1")
    search = search_of(result)
    assert search.chosen is not None
    assert accuracy(MODEL) - accuracy(result.to_proto()) <= 0.1 + 1e-12
    weight = numpy_helper.to_array(result.to_proto().graph.initializer[0])
    whole = (weight.reshape(-1, 4, weight.shape[1]) != 0).any(axis=1)
    assert (whole == (weight.reshape(-1, 4, weight.shape[1]) != 0).all(axis=1)).all()
    assert not whole.all()


def test_calibration_finds_more() -> None:
    plain = onnxprune.prune(MODEL, max_drop=2, val=(X, LABELS))
    repaired = onnxprune.prune(MODEL, max_drop=2, val=(X, LABELS), calibrate=X)
    assert repaired.report.kept < plain.report.kept
    assert repaired.report.repair is not None
    assert accuracy(MODEL) - accuracy(repaired.to_proto()) <= 0.02 + 1e-12


def test_retraining_finds_more() -> None:
    with np.load(MODELS / "digits_train.npz") as data:
        train = {"image": data["image"], "labels": data["labels"]}
    settings: Any = {
        "max_drop": 2,
        "val": MODELS / "digits_test.npz",
        "train": train,
        "finetune": FineTune(epochs=15, lr=2e-3),
        "trials": 15,
    }
    result = onnxprune.prune(MODELS / "digits_mlp.onnx", **settings)
    search = search_of(result)
    retrained = [row for row in search.trials if row.retrained]
    plain = [row for row in search.trials if not row.retrained]
    assert 1 <= len(retrained) <= 5
    assert [row.trial for row in plain] == list(range(1, len(plain) + 1)), "retrained ones last"
    chosen = search.trials[(search.chosen or 0) - 1]
    assert chosen.retrained
    assert chosen.kept < 0.6 * min(row.kept for row in plain if row.within)
    assert result.report.training is not None
    assert result.report.accuracy is not None
    assert result.report.accuracy.pruned is not None
    assert result.report.accuracy.before - result.report.accuracy.after <= 0.02 + 1e-12
    compared = onnxprune.evaluate(
        [MODELS / "digits_mlp.onnx", result.to_proto()], val=settings["val"], runs=0
    )
    assert compared.metric is not None
    assert compared.metric.values[0] - compared.metric.values[1] <= 0.02 + 1e-12


def test_values_are_bounded_in_percent() -> None:
    targets = run(MODEL) + RANDOM.standard_normal((300, 5)).astype(np.float32)
    result = onnxprune.prune(MODEL, max_drop=10, val=(X, targets))
    search = search_of(result)
    dense = np.square(run(MODEL).astype(float) - targets).mean()
    found = np.square(run(result.to_proto()).astype(float) - targets).mean()
    assert dense < found <= 1.1 * dense + 1e-9
    assert search.unit == "% of the unpruned model's value"
    assert search.better == "lower"


def test_a_function_of_the_users() -> None:
    def recall(outputs: np.ndarray, labels: np.ndarray) -> float:
        return float((outputs.argmax(1)[labels == 0] == 0).mean())

    recall.better, recall.share = "higher", True  # type: ignore[attr-defined]
    result = onnxprune.prune(MODEL, max_drop=5, val=(X, LABELS), metric=recall)
    search = search_of(result)
    assert (search.unit, search.drop_error) == ("points", None)
    assert recall(run(MODEL), LABELS) - recall(run(result.to_proto()), LABELS) <= 0.05 + 1e-12


def test_classes_as_outputs() -> None:
    """Where outputs are no floats, layers are tried by the metric itself."""
    model = mlp(SIZES)
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["y"], ["class"], axis=1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, ["N"])
    )
    result = onnxprune.prune(model, max_drop=3, val=(X, LABELS))
    assert (run(model) == LABELS).mean() - (run(result.to_proto()) == LABELS).mean() <= 0.03 + 1e-9
    assert result.report.kept < result.report.weights


def test_a_file_that_measures_worse_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = onnxprune.prune(MODEL, max_drop=2, val=(X, LABELS), trials=4)
    broken = mlp(SIZES, seed=9).SerializeToString()
    from onnxprune.runtime import open_session

    monkeypatch.setattr("onnxprune.search.bound.open_session", lambda path: open_session(broken))
    with pytest.raises(OutputError, match="the written file is beyond --max-drop"):
        result.save(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"val": None}, UsageError, "give val too"),
        ({"quality": 1.0}, UsageError, "max-drop finds out how hard to prune"),
        ({"sparsity": 0.5}, UsageError, "leave out quality and sparsity"),
        ({"max_drop": -1}, UsageError, "max-drop is -1"),
        ({"max_drop": float("nan")}, UsageError, "max-drop is nan"),
        ({"trials": 2}, UsageError, "trials is 2: give a whole number of at least 3"),
        ({"max_drop": None, "trials": 9}, UsageError, "give max-drop too"),
        ({"val": iter([(X, LABELS)])}, DataError, "only once"),
        (
            {"train": X, "finetune": FineTune(checkpoint=Path("state"))},
            UsageError,
            "a checkpoint holds one",
        ),
        ({"exclude": ["nothing*"]}, UsageError, "matches no layer"),
    ],
)
def test_refusals(more: Any, kind: type[OnnxPruneError], words: str) -> None:
    settings: Any = {"max_drop": 1, "val": (X, LABELS), **more}
    with pytest.raises(kind) as caught:
        onnxprune.prune(MODEL, **settings)
    assert words in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(MODEL, tmp_path / "m.onnx")
    np.savez(tmp_path / "val.npz", x=X, labels=LABELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["m.onnx", "--max-drop", "1", "--val", "val.npz", "--trials", "9", "--json", "r.json"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "m.onnx -> m.pruned.onnx (at most 1 point lost)" in captured.out
    assert accuracy("m.onnx") - accuracy("m.pruned.onnx") <= 0.01 + 1e-12
    search = json.loads((folder / "r.json").read_text())["search"]
    assert len(search["trials"]) <= 9
    chosen = search["trials"][search["chosen"] - 1]
    row = next(line for line in captured.out.splitlines() if line.endswith("  chosen"))
    assert row.split()[0] == str(search["chosen"])
    assert f"{chosen['kept']:,}" in row
    done = "lost" if search["drop"] >= 0 else "gained"
    said = f"max-drop    at most 1 point lost: {done} {abs(100 * search['drop']):.2f} points on 300"
    assert said in captured.out
    assert "measured again on the written file" in captured.out
    assert main([*command[:-2], "--dry-run", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("m.onnx --max-drop 1", "give val too"),
        ("m.onnx --max-drop 1 --val val.npz -q 0.5", "leave out quality and sparsity"),
        ("m.onnx --max-drop 1 --val val.npz --sparsity 0", "leave out quality and sparsity"),
        ("m.onnx --max-drop x --val val.npz", "unable to convert"),
        ("m.onnx --max-drop 1 --val val.npz --trials 1", "trials is 1"),
        ("m.onnx --trials 5 --val val.npz", "give max-drop too"),
        (
            "m.onnx --max-drop 1 --val val.npz --train val.npz --checkpoint c",
            "a checkpoint holds one",
        ),
    ],
)
def test_the_command_refuses(
    line: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(line.split(), folder, capsys, 2)
