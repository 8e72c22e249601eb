"""Sensitivity scans against pruning by numpy and whole models in onnxruntime."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest
from joblib._parallel_backends import ThreadingBackend
from onnx import ModelProto, TensorProto, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import DataError, ModelError, OnnxPruneError, UsageError
from onnxprune.model.sources import read
from onnxprune.report.sensitivity import SensitivityReport
from onnxprune.search import frontier, scan
from tests.builders import mlp
from tests.refusal import refused
from tests.search import nets

RANDOM = np.random.default_rng(11)
COUNT = 90
X = RANDOM.standard_normal((COUNT, nets.FEATURES)).astype(np.float32)
IMAGES = RANDOM.standard_normal((COUNT, 2, 6, 6)).astype(np.float32)
LABELS = RANDOM.integers(0, nets.CLASSES, COUNT)


def data(model: ModelProto) -> np.ndarray:
    """Inputs of a model."""
    return IMAGES if len(model.graph.input[0].type.tensor_type.shape.dim) == 4 else X


def outputs(model: ModelProto, x: np.ndarray) -> np.ndarray:
    """The first output, sample by sample where the model wants that."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name, batch = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]
    step = batch if isinstance(batch, int) else len(x)
    filled = np.resize(x, (-(-len(x) // step) * step, *x.shape[1:]))
    parts = [filled[i : i + step] for i in range(0, len(x), step)]
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])[: len(x)]


def tensors(model: ModelProto) -> dict[str, TensorProto]:
    """Every weight by the last part of its layer's name."""
    found: dict[str, TensorProto] = {}
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        found.update((t.name, t) for t in getattr(graph, "initializer", ()))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    found[node.output[0]] = attribute.t
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
    return found


def cut(model: ModelProto, layer: str, change: Callable[[np.ndarray], np.ndarray]) -> ModelProto:
    """The model with one weight changed."""
    copy = ModelProto()
    copy.CopyFrom(model)
    tensor = tensors(copy)[layer.rpartition("/")[2]]
    values = change(numpy_helper.to_array(tensor)).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copy


def to_sparsity(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(weights: np.ndarray) -> np.ndarray:
        order = np.argsort(abs(weights).reshape(-1), kind="stable")
        flat = weights.reshape(-1).copy()
        flat[order[: round(share * flat.size)]] = 0
        return flat.reshape(weights.shape)

    return change


def to_quality(quality: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda w: np.where(abs(w) < quality * w.std(dtype=np.float64), 0, w)


MODELS: dict[str, Callable[[], ModelProto]] = {
    "residual": nets.residual,
    "branches": nets.branches,
    "shared": nets.shared,
    "bodies": nets.bodies,
    "function": nets.function,
    "convolutions": nets.convolutions,
    "one at a time": lambda: nets.convolutions(1),
    "fixed": lambda: nets.residual(7),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("by", ["sparsity", "quality"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_cell_is_that_of_a_whole_model(name: str, by: str, jobs: int) -> None:
    model = MODELS[name]()
    x = data(model)
    settings = (0.25, 0.5, 0.75) if by == "sparsity" else (0.5, 1.0)
    how = {"sparsities" if by == "sparsity" else "qualities": settings}
    report = onnxprune.sensitivity(model, val=(x, LABELS), jobs=jobs, **how)  # type: ignore[arg-type]
    assert (report.by, report.settings, report.samples) == (by, settings, COUNT)
    right = outputs(model, x).argmax(1) == LABELS
    assert report.dense == right.mean()
    assert report.dense_error == pytest.approx(right.std(ddof=1) / COUNT**0.5)
    assert len(report.layers) >= 3
    pruned = {"sparsity": to_sparsity, "quality": to_quality}[by]
    for row in report.layers:
        for setting, point in zip(settings, row.points, strict=True):
            other = cut(model, row.layer, pruned(setting))
            weights = numpy_helper.to_array(tensors(other)[row.layer.rpartition("/")[2]])
            assert point.zeros == pytest.approx((weights == 0).mean(), abs=1e-12)
            still = outputs(other, x).argmax(1) == LABELS
            assert point.metric == still.mean(), (row.layer, setting)
            assert point.drop == pytest.approx(right.mean() - still.mean(), abs=1e-12)
            difference = right.astype(float) - still
            assert point.drop_error == pytest.approx(difference.std(ddof=1) / COUNT**0.5)
        assert (row.weights, row.alive) == (weights.size, weights.size)
    assert any(point.drop != 0 for row in report.layers for point in row.points)


@pytest.mark.parametrize("name", ["residual", "branches", "convolutions"])
def test_outputs_are_those_of_a_whole_model(name: str) -> None:
    """Cosines see every number, where classes would hide small mistakes."""
    model = MODELS[name]()
    x = data(model)
    report = onnxprune.sensitivity(model, val=x, metric="cosine", sparsities=(0.5,))
    assert report.dense == pytest.approx(1)
    a = outputs(model, x).astype(np.float64)
    for row in report.layers:
        b = outputs(cut(model, row.layer, to_sparsity(0.5)), x).astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        wanted = ((a * b).sum(1) / norms).mean()
        assert row.points[0].metric == pytest.approx(wanted, abs=1e-6)
        assert row.points[0].drop == pytest.approx(1 - wanted, abs=1e-6)


def test_a_batch_size_that_cannot_be_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.search.dense.working_form", lambda model: model)
    model = nets.residual(7)
    report = onnxprune.sensitivity(model, val=(X, LABELS), sparsities=(0.5,))
    assert report.samples == COUNT
    for row in report.layers:
        right = outputs(cut(model, row.layer, to_sparsity(0.5)), X).argmax(1) == LABELS
        assert row.points[0].metric == right.mean()


def test_a_layer_that_changes_nothing_that_is_measured() -> None:
    report = onnxprune.sensitivity(nets.branches(), val=(X, LABELS), sparsities=(0.5,))
    rows = {row.layer: row for row in report.layers}
    assert rows["d"].note == "does not change what is measured"
    assert rows["d"].points[0].metric == report.dense
    assert rows["d"].points[0].zeros == 0.5

    def both(found: Any, labels: np.ndarray) -> float:
        return float(sum(abs(output).sum() for output in found))

    report = onnxprune.sensitivity(
        nets.branches(), val=(X, LABELS), sparsities=(0.5,), metric=both, metric_better="higher"
    )
    rows = {row.layer: row for row in report.layers}
    assert rows["d"].note == ""
    assert rows["d"].points[0].drop > 0
    assert rows["d"].points[0].drop_error is None
    assert "no standard errors" in report.notes[0]


def test_without_labels_it_is_agreement() -> None:
    model = mlp((12, 30, 5))
    report = onnxprune.sensitivity(model, val=X, sparsities=(0.8,))
    assert report.metric == "agreement with the unpruned model"
    assert (report.dense, report.share) == (1, True)
    wanted = (
        outputs(model, X).argmax(1)
        == outputs(cut(model, "fc0.weight", to_sparsity(0.8)), X).argmax(1)
    ).mean()
    assert report.layers[0].points[0].metric == wanted < 1


def test_lower_may_be_better() -> None:
    model = nets.residual()
    targets = outputs(model, X) + RANDOM.standard_normal((COUNT, 5)).astype(np.float32)
    report = onnxprune.sensitivity(model, val=(X, targets), sparsities=(0.5,))
    assert (report.metric, report.better, report.share) == ("mean squared error", "lower", False)
    other = outputs(cut(model, "b", to_sparsity(0.5)), X)
    wanted = np.square(other - targets, dtype=np.float64).mean()
    point = report.layers[1].points[0]
    assert point.metric == pytest.approx(wanted, rel=1e-6)
    assert point.drop == pytest.approx(wanted - report.dense)
    assert point.drop > 0


def test_only_some_samples() -> None:
    report = onnxprune.sensitivity(nets.residual(), val=(X, LABELS), samples=20, sparsities=(0.5,))
    assert report.samples == 20
    assert report.data == "arrays: 90 samples, labelled"


def test_what_is_left_alone() -> None:
    model = mlp((12, 30, 5))
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0] = np.nan
    spoilt = cut(model, "fc0.weight", lambda _: weight)
    with pytest.raises(ModelError, match="NaN or infinity"):
        onnxprune.sensitivity(spoilt, val=(X, LABELS))
    report = onnxprune.sensitivity(
        spoilt, val=(X, LABELS), allow_nonfinite=True, exclude=["fc1*"], metric="top1"
    )
    first, second = report.layers
    assert (first.points, first.note) == ((), "NaN or infinity in 1 weight")
    assert (second.points, second.note) == ((), "excluded by --exclude 'fc1*'")
    assert "fc1.weight: excluded by" in str(report)


def test_zeros_that_are_there_already_cost_nothing() -> None:
    model = cut(mlp((12, 30, 5)), "fc0.weight", to_sparsity(0.6))
    report = onnxprune.sensitivity(model, val=(X, LABELS), sparsities=(0.5, 0.7))
    first = report.layers[0]
    assert first.points[0].drop == 0
    assert first.points[0].zeros == pytest.approx(0.6, abs=1e-12)
    assert first.alive == 12 * 30 * 0.4


@pytest.mark.parametrize("limit", [0, 2**28])
def test_values_before_a_layer_are_kept_only_within_a_limit(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontier, "FRONTIER_BYTES", limit)
    trials: list[Any] = []
    real = scan.measure

    def watch(trial: Any) -> Any:
        trials.append(trial)
        return real(trial)

    monkeypatch.setattr(scan, "measure", watch)
    report = onnxprune.sensitivity(nets.residual(), val=(X, LABELS), sparsities=(0.5,), jobs=1)
    assert len(trials) == 3
    nodes = [len(onnx.load_from_string(t.model.tobytes()).graph.node) for t in trials]
    assert nodes == ([6, 6, 6] if limit == 0 else [6, 4, 1])
    wanted = outputs(cut(nets.residual(), "c", to_sparsity(0.5)), X).argmax(1) == LABELS
    assert report.layers[2].points[0].metric == wanted.mean()


def test_a_refit_makes_up_for_what_went() -> None:
    model = nets.convolutions()
    plain = onnxprune.sensitivity(model, val=IMAGES, metric="mse", sparsities=(0.7,))
    refitted = onnxprune.sensitivity(
        model, val=IMAGES, metric="mse", sparsities=(0.7,), calibrate=IMAGES
    )
    assert (plain.calibration, refitted.calibration) == (None, "90 samples of arrays")
    for before, after in zip(plain.layers, refitted.layers, strict=True):
        assert after.points[0].metric != before.points[0].metric
        assert after.points[0].zeros == before.points[0].zeros
    # What the last layer gives is what is measured, and what the fit is for.
    assert refitted.layers[-1].points[0].drop < 0.9 * plain.layers[-1].points[0].drop
    assert "refitted on 90 samples" in str(refitted)


def test_a_refit_is_that_of_the_repair() -> None:
    """The last layer alone, pruned and refitted, is what --repair refit makes of it."""
    model = mlp((12, 30, 5))
    report = onnxprune.sensitivity(model, val=X, metric="cosine", sparsities=(0.5,), calibrate=X)
    whole = onnxprune.prune(
        model, sparsity=0.5, scope="layer", exclude=["fc0*"], calibrate=X
    ).to_proto()
    compared = onnxprune.evaluate([model, whole], val=X, metric="cosine", runs=0)
    assert compared.metric is not None
    assert report.layers[1].points[0].metric == pytest.approx(compared.metric.values[1], abs=1e-6)


def test_layers_that_cannot_be_refitted_say_so() -> None:
    report = onnxprune.sensitivity(nets.bodies(), val=X, sparsities=(0.5,), calibrate=X)
    notes = {row.layer: row.note for row in report.layers}
    assert notes["a"] == ""
    assert notes["b"].startswith("not refitted: ")


# ---- parallel ------------------------------------------------------------------------------


class Recording(ThreadingBackend):  # type: ignore[misc]
    """A backend of the user's, which notes that it was asked."""

    asked: list[int] = []  # noqa: RUF012

    def configure(self, n_jobs: int = 1, **more: Any) -> int:
        self.asked.append(n_jobs)
        return int(super().configure(n_jobs, **more))


@pytest.mark.parametrize("backend", ["threading", "loky", "multiprocessing", "recording"])
def test_any_backend_of_joblib_gives_the_same(backend: str) -> None:
    joblib.register_parallel_backend("recording", Recording)
    Recording.asked.clear()
    model, told = nets.residual(), []
    settings: Any = {"val": (X, LABELS), "sparsities": (0.3, 0.6)}
    alone = onnxprune.sensitivity(model, jobs=1, **settings)
    with joblib.parallel_config(backend=backend, n_jobs=2):
        report = onnxprune.sensitivity(
            model, **settings, progress=lambda *state: told.append(state)
        )
    assert report.layers == alone.layers
    assert (alone.jobs, report.jobs) == (1, 2)
    assert told[-1] == ("trying layers (prunings)", 6, 6)
    assert bool(Recording.asked) == (backend == "recording")


def test_a_function_travels_to_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "measure_of.py").write_text(
        "def worst(outputs, labels): return float(abs(outputs).max())\nworst.better = 'lower'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings: Any = {"val": (X, LABELS), "sparsities": (0.5,), "metric": "measure_of:worst"}
    alone = onnxprune.sensitivity(nets.residual(), jobs=1, **settings)
    with joblib.parallel_config(backend="loky"):
        report = onnxprune.sensitivity(nets.residual(), jobs=2, **settings)
    assert report.layers == alone.layers
    assert report.layers[0].points[0].metric == pytest.approx(
        abs(outputs(cut(nets.residual(), "a", to_sparsity(0.5)), X)).max(), rel=1e-6
    )


def test_an_error_of_a_task_is_one_sentence() -> None:
    def wrong(found: np.ndarray, labels: np.ndarray) -> float:
        calls.append(1)
        return 1.0 if len(calls) == 1 else float("nan")

    calls: list[int] = []
    with pytest.raises(DataError, match="returned nan"):
        onnxprune.sensitivity(
            nets.residual(), val=(X, LABELS), metric=wrong, metric_better="higher", jobs=2
        )


# ---- what is refused, and the command ------------------------------------------------------


def unprunable() -> ModelProto:
    return nets.net([nets.node("Relu", "x", "y")], [])


def strange() -> ModelProto:
    model = nets.residual()
    model.graph.node[1].op_type = "Nowhere"
    return model


@pytest.mark.parametrize(
    ("model", "more", "kind", "words"),
    [
        (nets.residual, {"val": (X[:, :3], LABELS)}, DataError, "the model wants float32"),
        (nets.residual, {"val": (X, LABELS + 9)}, DataError, "the model has 5 classes"),
        (nets.residual, {"val": X, "metric": "top1"}, DataError, "has no labels, and top1 needs"),
        (nets.residual, {"val": (X, LABELS), "metric": "top9"}, UsageError, "always right"),
        (nets.residual, {"val": X, "exclude": ["q*"]}, UsageError, "matches no layer"),
        (nets.residual, {"val": X, "sparsities": [2]}, UsageError, "a number of sparsities is 2"),
        (nets.residual, {"val": X, "calibrate": X[:, :3]}, DataError, "the model wants float32"),
        (unprunable, {"val": X}, ModelError, "nothing to prune"),
        (strange, {"val": X}, ModelError, "sensitivity runs the model, and onnxruntime does not"),
    ],
)
def test_refusals(
    model: Callable[[], ModelProto], more: Any, kind: type[OnnxPruneError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        onnxprune.sensitivity(model(), **more)
    assert words in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(mlp((12, 30, 5)), tmp_path / "m.onnx")
    np.savez(tmp_path / "val.npz", x=X, labels=LABELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sensitivity", "m.onnx", "--val", "val.npz", "--sparsities", "0.9,0.5"]
    assert main([*command, "--plot", "p.svg", "--json", "r.json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.isascii()
    report = onnxprune.sensitivity(folder / "m.onnx", val=(X, LABELS), sparsities=(0.5, 0.9))
    line = next(text for text in captured.out.splitlines() if text.startswith("fc1.weight"))
    assert line.split()[-2:] == [f"{point.metric:.2%}" for point in report.layers[1].points]
    facts = json.loads((folder / "r.json").read_text())
    assert (facts["kind"], facts["by"], facts["weights"]) == ("sensitivity", "sparsity", 510)
    assert [row["layer"] for row in facts["layers"]] == ["fc0.weight", "fc1.weight"]
    assert facts["layers"][0]["points"][1]["metric"] == report.layers[0].points[1].metric
    picture = ElementTree.parse(folder / "p.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert main([*command, "--json", "-", "--qualities", "1"]) == 2
    assert main([*command[:-2], "--json", "-", "--qualities", "1", "--calibrate", "val.npz"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["by"], facts["settings"]) == ("quality", [1.0])
    assert facts["calibration"] == "90 samples of val.npz"


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("m.onnx", 2, "sensitivity is measured on samples: name them with --val"),
        ("c.onnx --val val.npz", 1, "cannot read 'c.onnx'"),
        ("m.onnx --val none.npz", 1, "cannot read 'none.npz'"),
        ("m.onnx --val val.npz --calibrate none.npz", 1, "cannot read 'none.npz'"),
        ("m.onnx --val val.npz --sparsities 0.5,x", 2, "'x', which is no number"),
        ("m.onnx --val val.npz --jobs 0", 2, "jobs is 0"),
        ("m.onnx --val val.npz --samples -3", 2, "samples is -3"),
        ("m.onnx --val val.npz --plot p.png", 2, "pictures are drawn as SVG"),
        ("m.onnx --val val.npz --plot no/p.svg", 1, "the folder 'no' does not exist"),
        ("m.onnx --val val.npz --plot old.svg", 1, "the picture 'old.svg' exists"),
        ("m.onnx --val val.npz --plot p.svg --json p.svg", 2, "are both 'p.svg'"),
        ("m.onnx --val val.npz --json m.onnx --overwrite", 1, "would replace the input"),
        ("m.onnx --val val.npz --json val.npz --overwrite", 2, "val"),
    ],
)
def test_the_command_refuses(
    line: str, code: int, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "old.svg").write_text("")
    assert words in refused(["sensitivity", *line.split()], folder, capsys, code)


def test_a_model_in_memory_that_is_not_changed() -> None:
    model = nets.residual()
    before = model.SerializeToString()
    report = onnxprune.sensitivity(read(model), val=(X, LABELS), sparsities=(0.5,))
    assert isinstance(report, SensitivityReport)
    assert report.model == "net"
    assert model.SerializeToString() == before
