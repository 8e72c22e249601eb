"""Fine-tuning through the command line and Python with data and settings that make no sense."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.api import Result
from onnxprune.cli import main
from onnxprune.config import OutputConfig
from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import DataError, ModelError, OutputError, UsageError
from onnxprune.finetune import FineTune
from onnxprune.metrics.automatic import choose_metric
from onnxprune.training.checkpoint_folder import check_folder
from tests.refusal import refused
from tests.training.nets import data, fixed_batch, mlp, model

#: A model of one score: six inputs, one output.
SCORE = """agraph (float[N, 6] x) => (float[N, 1] y) {
    h = Gemm <transB = 1> (x, w1, b1)
    a = Relu (h)
    y = Gemm <transB = 1> (a, w3)
}"""
SCORE_SHAPES = {"w1": (8, 6), "b1": (8,), "w3": (1, 8)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and its training data, as the current one."""
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "mlp.onnx")
    samples = data(24)
    np.savez("train.npz", x=samples["x"], labels=samples["labels"])
    return tmp_path


def command(*more: str) -> list[str]:
    return ["mlp.onnx", "--train", "train.npz", "--epochs", "1", *more]


# ---- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--seed=1.5", 'unable to convert "1.5" into int'),
        ("--rounds=2.0", 'unable to convert "2.0" into int'),
        ("--batch-size=99999999999999999999", "of at least 1 and below 2**63"),
        ("--lr=1e300", "lr is 1e+300: give a number above 0 that float32 holds"),
        ("--lr=1e-320", "that float32 holds"),
        ("--l2=1e39", "l2 is 1e+39: give a number of at least 0 that float32 holds"),
        ("--clip-norm=1e300", "that float32 holds"),
        ("--class-weights=1e300,1,1", "a weight of class-weights is 1e+300"),
        ("--class-weights=1e-300,0,0", "a weight of class-weights is 1e-300"),
        ("--temperature=1e300", "temperature is 1e+300: give a number from 1e-6 to 1e6"),
        ("--temperature=1e-30", "temperature is 1e-30"),
    ],
)
def test_numbers_that_training_cannot_hold(
    folder: Path, capsys: pytest.CaptureFixture[str], flag: str, words: str
) -> None:
    assert words in refused(command(flag), folder, capsys, code=2)


def test_the_limits_of_numbers_train(folder: Path) -> None:
    assert main(command("--distill", "--temperature=1e6", "--dry-run", "--quiet")) == 0
    assert main(command("--distill", "--temperature=1e-6", "--dry-run", "--quiet")) == 0


def test_a_share_of_no_distillation_is_the_loss_by_labels(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("--distill", "--distill-weight=0", "--dry-run", "--json", "-")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["training"]["loss"] == "cross-entropy on output 'y'"


@pytest.mark.parametrize("finetune", ["5 epochs", 3, FineTune])
def test_what_is_no_fine_tuning(finetune: Any) -> None:
    with pytest.raises(UsageError, match=r"give an onnxprune\.FineTune"):
        onnxprune.prune(mlp(), train=data(24), finetune=finetune)


@pytest.mark.parametrize("field", ["class_weights", "train_layers"])
def test_a_lone_number_is_no_sequence(field: str) -> None:
    settings: dict[str, Any] = {field: 3}
    with pytest.raises(UsageError, match="is 3: give a sequence"):
        FineTune(**settings)


# ---- places --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["train", "val"])
@pytest.mark.parametrize("target", ["output", "json"])
def test_no_array_of_the_data_is_replaced(tmp_path: Path, role: str, target: str) -> None:
    places: dict[str, Any] = {role: str(tmp_path), target: tmp_path / "labels.npy"}
    with pytest.raises(UsageError, match=f"would be an array of {role}"):
        OutputConfig(**places)
    OutputConfig(**{**places, target: tmp_path / "model.onnx"})


@pytest.mark.parametrize("flag", ["--train", "--val"])
def test_an_empty_name_is_not_the_current_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    np.save("x.npy", data(24)["x"])
    arguments = [argument for argument in command() if argument not in ("--train", "train.npz")]
    given = ["--train=train.npz", "--val="] if flag == "--val" else ["--train="]
    assert "the name of the data is empty" in refused([*arguments, *given], folder, capsys)


def test_a_checkpoint_nobody_can_write_is_refused_before_training(folder: Path) -> None:
    def hook(_: object) -> None:
        raise AssertionError("a step was done")

    settings = FineTune(checkpoint=folder / "train.npz")
    with pytest.raises(OutputError, match=r"cannot keep checkpoints in '.*train\.npz'"):
        onnxprune.prune(mlp(), train=data(24), finetune=settings, training_progress=hook)


def test_a_checkpoint_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_folder(tmp_path / "deep" / "er")
    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_another_format_resumes_the_same_training(folder: Path) -> None:
    assert main(command("--checkpoint=state", "--quiet", "-o", "one.onnx")) == 0
    more = ["--resume", "--format=dense", "--no-check", "-o", "two.onnx"]
    assert main(command("--checkpoint=state", "--quiet", *more)) == 0


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["onnxprune.step", "onnxprune.seed", "onnxprune.learning_rate", "teacher"]
)
@pytest.mark.parametrize("place", ["input", "output"])
def test_values_named_like_those_of_training(name: str, place: str) -> None:
    proto = mlp()
    if place == "input":
        proto.graph.input[0].name = proto.graph.node[0].input[0] = name
    else:
        proto.graph.output[0].name = proto.graph.node[-1].output[0] = name
    with pytest.raises(ModelError, match=f"already has a value named '{name}'"):
        onnxprune.prune(proto, train=data(24)["x"])


# ---- batches -------------------------------------------------------------------------------


class NoIterator:
    def __iter__(self) -> Any:
        return 3


class NoLength:
    """Batches that fail to say how many they are, as does the iterator over them."""

    def __iter__(self) -> Iterator[Any]:
        return Lengthless(iter([data(24)]))

    def __len__(self) -> int:
        raise TypeError("no length")


class Lengthless:
    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def __len__(self) -> int:
        raise TypeError("no length either")


def ending(error: type[BaseException]) -> Callable[[], Iterator[Any]]:
    def batches() -> Iterator[Any]:
        yield data(24)
        raise error

    return batches


def train(given: Any) -> Result:
    return onnxprune.prune(mlp(), train=given, finetune=FineTune(epochs=2))


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, ValueError])
def test_code_that_ends_is_no_success(error: type[BaseException]) -> None:
    with pytest.raises(DataError, match=f"failed with {error.__name__}"):
        train(ending(error))


def test_a_generator_that_exits_does_not_exit_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "exits_early.py").write_text(
        "def batches():\n    import sys\n    sys.exit(0)\n    yield\n"
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    arguments = ["mlp.onnx", "--train", "exits_early:batches"]
    assert "failed with SystemExit" in refused(arguments, folder, capsys)


def test_what_gives_no_iterator() -> None:
    with pytest.raises(DataError, match="failed with TypeError"):
        train(NoIterator())


def test_lengths_are_not_needed() -> None:
    assert train(NoLength()).report.training is not None


def test_iterators_are_not_started_to_be_known() -> None:
    started: list[int] = []

    class Counted:
        def __iter__(self) -> Iterator[Any]:
            started.append(1)
            return iter([data(24)])

    open_source(Counted(), input_specs(mlp()))
    assert len(started) == 1


def test_tracebacks_of_workers_are_left_out() -> None:
    def batches() -> Iterator[Any]:
        yield data(24)
        raise ValueError("Caught in worker 0.\nTraceback:\n  File 'x'\nValueError: bad sample")

    with pytest.raises(DataError) as caught:
        train(batches)
    assert "(Caught in worker 0. ValueError: bad sample)" in str(caught.value)


def test_labels_of_two_kinds() -> None:
    shares = np.eye(3, dtype=np.float32)[data(24)["labels"]]
    with pytest.raises(DataError, match=r"in batch 1 .*float32 of shape .24, 3. .* int64"):
        train([data(24), {**data(24), "labels": shares}])


def test_a_batch_that_does_not_divide_is_refused_before_training() -> None:
    def hook(_: object) -> None:
        raise AssertionError("a step was done")

    fixed = fixed_batch(mlp(), 4)
    with pytest.raises(DataError, match="a number of samples that 4 divides"):
        onnxprune.prune(fixed, train=data(23), finetune=FineTune(), training_progress=hook)
    parts = [{key: array[:8] for key, array in data(24).items()}]
    done = onnxprune.prune(fixed, train=parts, finetune=FineTune(epochs=1, batch_size=3))
    assert done.report.training is not None, "batches of an iterable have their own size"


# ---- losses and metrics --------------------------------------------------------------------


def test_labels_with_an_axis_of_one_train_and_measure() -> None:
    given = data(24)
    column = {**given, "labels": given["labels"][:, None]}
    flat, tall = (onnxprune.prune(mlp(), train=one, val=one) for one in (given, column))
    assert flat.report.accuracy is not None
    assert tall.report.accuracy == flat.report.accuracy


def test_a_map_of_classes_with_an_axis_of_one() -> None:
    random = np.random.default_rng(0)
    labels, output = random.integers(0, 3, (4, 1, 5, 6)), random.random((4, 3, 5, 6), np.float32)
    metric = choose_metric(labels, output)
    assert metric.name == "pixel accuracy"
    wanted = (output.argmax(axis=1) == labels[:, 0]).mean()
    assert metric.values(output, labels).mean() == wanted


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_whole_numbers_as_targets(loss: Any) -> None:
    given = {"x": data(24)["x"], "labels": np.arange(24) * 5}
    done = onnxprune.prune(
        model(SCORE, SCORE_SHAPES), train=given, val=given, finetune=FineTune(1, loss=loss)
    )
    assert done.report.accuracy is not None
    assert done.report.accuracy.metric == "mean squared error"


@pytest.mark.parametrize(
    ("text", "loss", "words"),
    [
        (SCORE, "cross-entropy", "has no class axis"),
        (
            SCORE.replace("y = Gemm", "s = Gemm").replace("w3)", "w3)\n y = Softmax (s)"),
            "binary-cross-entropy",
            "has shares of a whole",
        ),
    ],
)
def test_losses_that_cannot_imitate(text: str, loss: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        onnxprune.prune(
            model(text, SCORE_SHAPES), train=data(24)["x"], finetune=FineTune(loss=loss)
        )


def test_the_first_loss_is_no_fault_of_the_rate() -> None:
    given = {"x": data(24)["x"], "labels": np.full((24, 1), 1e30, np.float32)}
    with pytest.raises(ModelError, match="before any update") as caught:
        onnxprune.prune(model(SCORE, SCORE_SHAPES), train=given)
    assert "--lr" not in str(caught.value)


def test_a_checkpoint_is_not_overwritten_unasked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("--checkpoint", "state", "-q", "0.5", "--quiet")) == 0
    state = folder / "state" / "state.safetensors"
    before = state.read_bytes()
    capsys.readouterr()
    again = command("--checkpoint", "state", "-q", "0.5", "-o", "other.onnx")
    assert "holds the checkpoint of a training" in refused(again, folder, capsys, code=2)
    assert state.read_bytes() == before
    assert main([*again, "--resume", "--quiet"]) == 0


def test_a_temperature_needs_distillation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(command("--temperature", "2"), folder, capsys, code=2)
    assert "temperature divides class scores when distilling" in said
