"""The command line: what it hands to the API, what it prints, how it fails, how fast it starts."""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.cli import build_app, main
from onnxprune.config import PruneConfig
from onnxprune.errors import Interrupted, ModelError, UsageError
from onnxprune.finetune import FineTune
from onnxprune.metrics.request import MetricRequest
from onnxprune.report.progress import TrainingState
from onnxprune.report.report import (
    CheckResult,
    InspectReport,
    ModelFacts,
    Report,
    Sizes,
    tool_version,
)
from onnxprune.search.goal import DropGoal
from onnxprune.structure.config import StructureConfig


def make_report(**more: Any) -> Report:
    """A report without layers."""
    facts: dict[str, Any] = {
        "version": "1.2.3",
        "model": "m.onnx",
        "output": "m.pruned.onnx",
        "dry_run": False,
        "quality": 1.0,
        "sparsity": None,
        "scope": "global",
        "criterion": None,
        "pattern": None,
        "format": "sparse",
        "readers": "",
        "layers": (),
        "unprunable": (),
        "dropouts": (),
        "parameters": 10,
        "sizes": Sizes(100, 50),
        "seconds": 0.1,
    }
    return Report(**{**facts, **more})


class FakeApi(types.ModuleType):
    """Stands in for `onnxprune.api`: remembers calls, answers with a report or an error."""

    def __init__(self) -> None:
        super().__init__("onnxprune.api")
        self.calls: list[tuple[Any, ...]] = []
        self.keywords: dict[str, Any] = {}
        self.answer: Callable[[], Any] = make_report
        self.states: tuple[TrainingState, ...] = ()

    def prune_file(
        self, source: Path, output: Path | None, config: PruneConfig, **more: Any
    ) -> Any:
        self.calls.append((source, output, config))
        self.keywords = more
        for state in self.states:
            if more["training_progress"] is not None:
                more["training_progress"](state)
        return self.answer()

    def inspect_file(self, source: Path, **more: Any) -> InspectReport:
        self.calls.append((source,))
        self.keywords = more
        facts = ModelFacts(8, (("", 17),), "", 10, 1, 100)
        return InspectReport("1.2.3", str(source), facts, (), (), (), (), 0.1)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """The API replaced, so that no model is needed."""
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "onnxprune.api", fake)
    monkeypatch.setattr(onnxprune, "api", fake, raising=False)
    monkeypatch.delenv("ONNXPRUNE_DEBUG", raising=False)
    return fake


def raising(error: BaseException) -> Callable[[], Any]:
    """An answer that is an error."""

    def answer() -> Any:
        raise error

    return answer


def test_defaults(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["m.onnx"]) == 0
    assert api.calls == [(Path("m.onnx"), None, PruneConfig())]
    assert callable(api.keywords.pop("training_progress"))
    assert api.keywords == {
        "overwrite": False,
        "dry_run": False,
        "structure": StructureConfig(),
        "val": None,
        "metric": MetricRequest(),
        "calibrate": None,
        "calibration": None,
        "train": None,
        "finetune": None,
        "goal": None,
        "progress": None,
        "report": None,
    }
    captured = capsys.readouterr()
    assert captured.out == str(make_report())
    assert captured.err == ""


def test_every_flag(api: FakeApi) -> None:
    line = (
        "m.onnx -q 0.5 -o s.onnx --layer conv*=0.4 --layer a=b=off --exclude x* --exclude y"
        " --embeddings --allow-nonfinite --no-check --format gaps --overwrite --dry-run"
        " --val v.npz --metric m:f --metric-better lower --quiet"
    )
    assert main(line.split()) == 0
    config = PruneConfig(
        quality=0.5,
        layers=(("conv*", 0.4), ("a=b", None)),
        exclude=("x*", "y"),
        embeddings=True,
        allow_nonfinite=True,
        check=False,
        format="gaps",
    )
    assert api.calls == [(Path("m.onnx"), Path("s.onnx"), config)]
    assert api.keywords["overwrite"]
    assert api.keywords["dry_run"]
    assert api.keywords["val"] == "v.npz"
    assert api.keywords["metric"] == MetricRequest("m:f", "lower")
    assert (api.keywords["train"], api.keywords["finetune"]) == (None, None)
    assert api.keywords["training_progress"] is None, "quiet"


EVERY_TRAINING_FLAG = {
    "epochs": ("--epochs 7", 7),
    "method": ("--method iterative", "iterative"),
    "saliency": ("--saliency magnitude", "magnitude"),
    "rounds": ("--rounds 3", 3),
    "rounds_schedule": ("--rounds-schedule linear", "linear"),
    "ramp": ("--ramp 0.5", 0.5),
    "settle": ("--settle 0.25", 0.25),
    "lr": ("--lr 0.5", 0.5),
    "lr_schedule": ("--lr-schedule step", "step"),
    "optimizer": ("--optimizer sgd", "sgd"),
    "momentum": ("--momentum 0.5", 0.5),
    "nesterov": ("--nesterov", True),
    "l2": ("--l2 0", 0.0),
    "batch_size": ("--batch-size 16", 16),
    "clip_norm": ("--clip-norm 2", 2.0),
    "seed": ("--seed 9", 9),
    "train_layers": ("--train-layers conv* --train-layers fc", ("conv*", "fc")),
    "patience": ("--patience 2", 2),
    "checkpoint": ("--checkpoint state", Path("state")),
    "resume": ("--resume", True),
    "distill": ("--distill", True),
    "distill_weight": ("--distill-weight 0", 0.0),
    "temperature": ("--temperature 2", 2.0),
    "loss": ("--loss mse", "mse"),
    "class_weights": ("--class-weights 1,2 --class-weights 0.5", (1.0, 2.0, 0.5)),
    "label_smoothing": ("--label-smoothing 0.1", 0.1),
    "bn": ("--bn train", "train"),
    "engine": ("--engine onnxruntime-training", "onnxruntime-training"),
}


def test_training_data_alone_means_the_defaults(api: FakeApi) -> None:
    assert main(["m.onnx", "--train", "batches:make"]) == 0
    assert (api.keywords["train"], api.keywords["finetune"]) == ("batches:make", FineTune())


def test_every_training_flag(api: FakeApi) -> None:
    assert set(EVERY_TRAINING_FLAG) == {
        field.name for field in dataclasses.fields(FineTune) if field.init
    }
    flags = " ".join(flag for flag, _ in EVERY_TRAINING_FLAG.values())
    assert main(f"m.onnx --train t.npz --val v.npz {flags}".split()) == 0
    settings: Any = {name: value for name, (_, value) in EVERY_TRAINING_FLAG.items()}
    assert api.keywords["finetune"] == FineTune(**settings)
    assert (api.keywords["train"], api.keywords["val"]) == ("t.npz", "v.npz")


@pytest.mark.parametrize("flag", [flag for flag, _ in EVERY_TRAINING_FLAG.values()])
def test_no_training_flag_without_data(
    api: FakeApi, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert main(["m.onnx", *flag.split()]) == 2
    said = f"onnxprune: {flag.split()[0]} has no effect without --train: name the data"
    assert capsys.readouterr().err.startswith(said)
    assert api.calls == []


def test_a_log_gets_a_line_an_epoch_and_quiet_none(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    state = TrainingState(1, 1, 1, 2, 9, 9, 0.5, None, None, 0.9, 100.0, None)
    api.states = (state, dataclasses.replace(state, epoch=2, loss=0.25))
    assert main(["m.onnx", "--train", "t.npz"]) == 0
    captured = capsys.readouterr()
    assert captured.out == str(make_report())
    assert captured.err.splitlines() == [
        "epoch 1/2: loss 0.5, sparsity 90.0%, 100 samples/s",
        "epoch 2/2: loss 0.25, sparsity 90.0%, 100 samples/s",
    ]
    assert main(["m.onnx", "--train", "t.npz", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_search(api: FakeApi) -> None:
    assert main(["m.onnx", "--max-drop", "0.5", "--val", "v.npz", "--trials", "9"]) == 0
    assert api.calls[0][2] == PruneConfig(sparsity=0.0)
    assert api.keywords["goal"] == DropGoal(0.5, 9)
    assert main(["m.onnx", "--max-drop", "2", "--val", "v.npz", "--scope", "layer"]) == 0
    assert api.calls[1][2] == PruneConfig(sparsity=0.0, scope="layer")
    assert api.keywords["goal"] == DropGoal(2.0)


def test_sparsity(api: FakeApi) -> None:
    assert main(["--sparsity", "0.9", "--scope", "layer", "m.onnx"]) == 0
    assert api.calls[0][2] == PruneConfig(sparsity=0.9, scope="layer")


def test_a_file_named_like_a_command(api: FakeApi) -> None:
    assert main(["./inspect"]) == 0
    assert api.calls[0][0] == Path("inspect")
    assert main(["--", "-odd.onnx"]) == 0
    assert api.calls[1][0] == Path("-odd.onnx")


def test_inspect(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "m.onnx", "--embeddings"]) == 0
    assert api.calls == [(Path("m.onnx"),)]
    assert api.keywords["embeddings"]
    assert "IR version 8, opset onnx 17" in capsys.readouterr().out


def test_json_file_and_summary(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "r.json"
    assert main(["m.onnx", "--json", str(target)]) == 0
    assert json.loads(target.read_text())["parameters"] == 10
    assert "time" in capsys.readouterr().out
    assert main(["m.onnx", "--json", str(target)]) == 1
    assert "exists" in capsys.readouterr().err
    assert len(api.calls) == 1, "refused before any work"
    assert main(["m.onnx", "--json", str(target), "--overwrite"]) == 0


def test_json_on_standard_output_replaces_the_summary(
    api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["m.onnx"], ["m.onnx", "--quiet"], ["inspect", "m.onnx"]):
        assert main([*arguments, "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["schema"] == 1


def test_the_json_never_replaces_a_model(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "m.onnx", tmp_path / "m.pruned.onnx"
    model.write_bytes(b"model")
    assert main([str(model), "--json", str(model), "--overwrite"]) == 1
    assert main(["inspect", str(model), "--json", str(model), "--overwrite"]) == 1
    assert api.calls == []
    assert main([str(model), "-o", str(output), "--json", str(output)]) == 2
    assert main([str(model), "--json", str(output)]) == 0
    assert api.keywords["report"] == output, "the API refuses it, for it knows the output"
    output.unlink()
    assert model.read_bytes() == b"model"
    assert not output.exists()


def test_quiet_says_nothing(api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["m.onnx", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_failed_check_fails_the_command(api: FakeApi) -> None:
    api.answer = lambda: make_report(checks=(CheckResult("weights", "failed", "differ"),))
    assert main(["m.onnx"]) == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ModelError("m.onnx: no such file: check the name"), 1, "m.onnx: no such file"),
        (UsageError("bad glob"), 2, "bad glob"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("stopped; go on from 'state' with --resume"), 130, "go on from 'state'"),
        (MemoryError(), 1, "out of memory"),
        (PermissionError(13, "Permission denied", "/x"), 1, "at '/x': Permission denied"),
        (RuntimeError("two\nlines"), 70, r"internal error: RuntimeError: two\nlines"),
        (ModelError("name \x1b[2J\nline"), 1, r"name \x1b[2J\nline"),
    ],
)
def test_an_error_is_one_sentence(
    api: FakeApi,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    api.answer = raising(error)
    assert main(["m.onnx"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("onnxprune: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_debug_shows_the_traceback(
    api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXPRUNE_DEBUG", "1")
    api.answer = raising(RuntimeError("why"))
    assert main(["m.onnx"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no model given"),
        (["inspect"], "no model given"),
        (["a.onnx", "b.onnx"], "unexpected argument 'b.onnx': give one model"),
        (["inspct", "a.onnx"], "did you mean 'onnxprune inspect'?"),
        (["a.onnx", "--qualty", "1"], "unknown option: --qualty. Did you mean --quality?"),
        (["a.onnx", "-q"], "-q requires an argument"),
        (["a.onnx", "--json", "--quiet"], "--json requires an argument"),
        (["a.onnx", "-q", "high"], 'unable to convert "high" into float'),
        (["a.onnx", "-q", "nan"], "quality is nan"),
        (["a.onnx", "-q", "-1"], "quality is -1.0"),
        (["a.onnx", "--sparsity", "90"], "sparsity is 90.0"),
        (["a.onnx", "-q", "1", "--sparsity", "0.5"], "exclude each other"),
        (["a.onnx", "--scope", "layer"], "scope layer"),
        (["a.onnx", "--sparsity", "0.5", "--scope", "laye"], 'Did you mean "layer"?'),
        (["a.onnx", "--format", "spars"], 'Did you mean "sparse"?'),
        (["a.onnx", "--layer", "conv"], "'conv' is not of the form GLOB=Q"),
        (["a.onnx", "--exclude", ""], "no glob"),
        (["inspect", "a.onnx", "-q", "1"], "unknown option"),
        (["inspect", "a.onnx", "--train", "t.npz"], "unknown option"),
        (["a.onnx", "--train"], "--train requires an argument"),
        (["a.onnx", "--train", "t", "--epochs", "0"], "epochs is 0"),
        (["a.onnx", "--train", "t", "--epochs", "x"], 'unable to convert "x" into int'),
        (["a.onnx", "--train", "t", "--optimizer", "adam"], 'Did you mean "adamw"?'),
        (["a.onnx", "--train", "t", "--momentum", "0.5"], "--momentum has no effect on adamw"),
        (["a.onnx", "--train", "t", "--nesterov"], "nesterov is a form"),
        (["a.onnx", "--train", "t", "--patience", "1"], "give val too"),
        (["a.onnx", "--train", "t", "--resume"], "resume needs a checkpoint"),
        (["a.onnx", "--train", "t", "--class-weights", "a"], "'a', which is no number"),
        (["a.onnx", "--metric", "top5"], "metric says what is measured on validation data"),
        (["a.onnx", "--val", "v", "--metric", "top0"], "metric 'top0' is unknown"),
        (["a.onnx", "--val", "v", "--metric-better", "up"], "higher"),
        (["evaluate"], "no model given: name one or more"),
        (["evaluate", "a.onnx", "--metric", "mse"], "give val too"),
        (["evaluate", "a.onnx", "--runs", "-1"], "runs is -1"),
        (["evaluate", "a.onnx", "--runs", "1.5"], 'unable to convert "1.5" into int'),
        (["evaluate", "a.onnx", "--threads", "-2"], "threads is -2"),
        (["evaluate", "a.onnx", "--batch-size", "0"], "batch-size is 0"),
        (["evalute", "a.onnx"], "did you mean 'onnxprune evaluate'?"),
        (["a.onnx", "--train", "t", "--json", "t"], "the JSON report and train are both 't'"),
    ],
)
def test_wrong_usage_is_one_sentence(
    api: FakeApi, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("onnxprune: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert api.calls == []


def test_help_names_every_flag_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for flag in ("-q", "--sparsity", "--scope", "--layer", "--exclude", "--embeddings"):
        assert flag in shown
    for flag in ("-o", "--format", "--dry-run", "--json", "--quiet", "--overwrite", "--no-check"):
        assert flag in shown
    for flag in ("--allow-nonfinite", "--val", "--version", "--install-completion", "inspect"):
        assert flag in shown
    for flag in ("--calibrate", "--repair", "--samples", "How to repair"):
        assert flag in shown
    for name in EVERY_TRAINING_FLAG:
        assert f"--{name.replace('_', '-')} " in shown
    assert "How to retrain" in shown
    assert "onnxprune model.onnx --sparsity 0.9 --format gaps" in shown
    assert "onnxprune model.onnx --train train.npz --val val.npz --epochs 10" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.isascii()
    assert main(["inspect", "--help"]) == 0
    assert "onnxprune inspect MODEL" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == tool_version()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: Any) -> None:
    script = build_app().generate_completion(shell=shell)
    assert "sparsity" in script
    assert "inspect" in script


def test_a_reader_of_the_summary_that_goes_away(api: FakeApi) -> None:
    api.answer = raising(BrokenPipeError())
    assert main(["m.onnx"]) == 141


def test_an_interruption_while_loading_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(name: str, *more: object, **others: object) -> object:
        if name == "" or name.endswith("cli"):
            raise KeyboardInterrupt
        return real(name, *more, **others)

    real = builtins.__import__
    entry = importlib.import_module("onnxprune.__main__")
    monkeypatch.setattr(builtins, "__import__", interrupt)
    code = entry.main()
    monkeypatch.undo()
    assert code == 130
    assert capsys.readouterr().err == "onnxprune: interrupted\n"
