"""What happens on this side of the pipe: no onnxruntime-training needed."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.training.engines.onnxruntime_training import OnnxruntimeTraining
from onnxprune.training.engines.onnxruntime_training.interpreter import VARIABLE, find_interpreter
from onnxprune.training.engines.onnxruntime_training.options import worker_settings
from onnxprune.training.engines.onnxruntime_training.training_worker.protocol import Message
from onnxprune.training.preparation import SEED_INPUT
from onnxprune.training.update.optimizers import Optimizer
from tests.training.engines.forward import SGD, mlp


class Recorder:
    """Stands in for the worker: keeps requests, gives plain answers."""

    def __init__(self) -> None:
        self.asked: list[Message] = []

    def ask(self, request: Message) -> Message:
        self.asked.append(request)
        answers: dict[str, Any] = {
            "step": Message("loss", {"loss": 0.25}),
            "parameters": Message("parameters", {}, {"w": np.ones(2)}),
            "state": Message("state", {}, {"checkpoint": np.arange(3, dtype=np.uint8)}),
        }
        return answers.get(request.kind, Message("done"))


def engine(*inputs: str, seed: int = 3) -> tuple[OnnxruntimeTraining, Recorder]:
    worker = Recorder()
    return OnnxruntimeTraining(worker, inputs, {"still": np.zeros(1)}, seed), worker  # type: ignore[arg-type]


def test_a_step_sends_what_the_graph_takes() -> None:
    made, worker = engine("x", "labels")
    feeds = {"labels": np.ones((2, 1), np.int64), "unused": np.ones(9), "x": np.ones((2, 3))}
    assert made.step(feeds, 0.5) == 0.25
    (request,) = worker.asked
    assert (request.kind, request.fields) == ("step", {"rate": 0.5})
    assert list(request.arrays) == ["x", "labels"]


def test_dropout_gets_another_seed_every_step() -> None:
    seeds = {}
    for seed in (3, 4):
        made, worker = engine(SEED_INPUT, seed=seed)
        for _ in range(3):
            made.step({}, 0.5)
        seeds[seed] = [int(request.arrays[SEED_INPUT]) for request in worker.asked]
    assert len({*seeds[3], *seeds[4]}) == 6
    # A resumed run goes on with the seeds of the steps that are left.
    resumed, worker = engine(SEED_INPUT)
    donor, _ = engine(SEED_INPUT)
    donor.step({}, 0.5)
    resumed.restore(donor.state())
    resumed.step({}, 0.5)
    assert int(worker.asked[-1].arrays[SEED_INPUT]) == seeds[3][1]


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "no values for the input 'x'"),
        ({"x": np.zeros((0, 3))}, r"the batch is empty: 'x' has shape \(0, 3\)"),
    ],
)
def test_a_batch_that_does_not_fit(feeds: dict[str, np.ndarray], said: str) -> None:
    made, worker = engine("x")
    with pytest.raises(DataError, match=said):
        made.step(feeds, 0.1)
    assert not worker.asked and made.steps == 0


def test_untouched_weights_are_among_the_parameters() -> None:
    made, _ = engine("x")
    assert sorted(made.parameters()) == ["still", "w"]


def test_the_state_of_another_engine() -> None:
    made, worker = engine("x")
    with pytest.raises(ModelError, match="resume with the engine that wrote it"):
        made.restore({"w.momentum1": np.zeros(2), "onnxprune.steps": np.array(4)})
    assert not worker.asked


# ---- what it has not -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "option"),
    [
        (Optimizer("sgd", momentum=0.9), "momentum"),
        (Optimizer("sgd", momentum=0.9, nesterov=True), "momentum"),
    ],
)
def test_optimizers_that_are_missing(optimizer: Optimizer, option: str) -> None:
    with pytest.raises(UsageError, match=f"has no {option} for sgd"):
        worker_settings(optimizer, None)


def test_optimizers_that_are_there() -> None:
    adamw = Optimizer(betas=(0.8, 0.9), epsilon=1e-6, l2=0.1)
    assert worker_settings(adamw, 2.0) == {
        "name": "adamw",
        "betas": [0.8, 0.9],
        "epsilon": 1e-6,
        "l2": 0.1,
        "clip_norm": 2.0,
    }
    assert worker_settings(SGD, None)["name"] == "sgd"


def test_refusals_come_before_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    model, weights = mlp(np.random.default_rng(0))
    start = {"loss": "loss", "trainable": list(weights), "masks": {}, "seed": 0}
    with pytest.raises(UsageError, match="momentum"):
        OnnxruntimeTraining.start(model, optimizer=Optimizer("sgd"), **start)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"onnxruntime-training.*pip install"):
        OnnxruntimeTraining.start(model, optimizer=SGD, **start)  # type: ignore[arg-type]


def test_an_interpreter_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(UsageError, match=f"{VARIABLE}=/nowhere/python: .*No such file"):
        find_interpreter()
    # Other releases, and packages without the training part, are told apart.
    for version, training, said in (
        ("1.32.0", False, "its onnxruntime 1.32.0 is not the training build"),
        ("1.18.0", True, "has onnxruntime-training 1.18.0, and only 1.19.2"),
    ):
        package = tmp_path / version / "onnxruntime"
        (package / "capi").mkdir(parents=True)
        (package / "__init__.py").write_text(f"__version__ = {version!r}")
        (package / "capi" / "__init__.py").touch()
        names = "GradientGraphBuilder = None" if training else ""
        (package / "capi" / "_pybind_state.py").write_text(names)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        monkeypatch.setenv(VARIABLE, sys.executable)
        with pytest.raises(UsageError, match=said):
            find_interpreter()
