"""Pruning and retraining in rounds: resuming bit for bit, thresholds, numbers of the report."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.api import Result
from onnxprune.config import PruneConfig
from onnxprune.errors import DataError, Interrupted, ModelError, UsageError
from onnxprune.finetune import FineTune
from onnxprune.report.progress import TrainingState
from tests.training.nets import MLP_SHAPES, batches, data, fixed_batch, mlp, model, stored

DROPOUT = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = Gemm <transB = 1> (x, w1, b1)
    a = Relu (h)
    r = Constant <value_float = 0.5> ()
    d = Dropout (a, r)
    y = Gemm <transB = 1> (d, w2, b2)
}"""
#: LSTM weights are pruned and not trained.
LSTM = """agraph (float[N, 6] x) => (float[N, 3] y) {
    axis = Constant <value_ints = [0]> ()
    s = Unsqueeze (x, axis)
    every, last = LSTM <hidden_size = 4> (s, lw, lr)
    l = Squeeze (last, axis)
    h = Gemm <transB = 1> (x, w1, b1)
    c = Concat <axis = 1> (l, h)
    y = Gemm <transB = 1> (c, w2, b2)
}"""
LSTM_SHAPES = {**MLP_SHAPES, "lw": (1, 16, 6), "lr": (1, 16, 4), "w2": (3, 12)}


def half(proto: ModelProto) -> ModelProto:
    """The same with float16 everywhere."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    for info in (*copy.graph.input, *copy.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return copy


@dataclass(frozen=True)
class Scenario:
    """A training that is interrupted."""

    proto: ModelProto
    settings: dict[str, Any]
    labelled: bool = True
    val: bool = True
    prune: dict[str, Any] = field(default_factory=lambda: {"quality": 0.8})

    def run(self, folder: Path | None = None, **more: Any) -> Result:
        train, val = data(44), data(30, seed=2)
        if not self.labelled:
            train.pop("labels")
        if self.proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            train["x"] = train["x"].astype(np.float16)
        hook = more.pop("hook", None)
        base = {"epochs": 2, "batch_size": 16, "lr": 0.02, "checkpoint": folder}
        return onnxprune.prune(
            self.proto,
            **{"shrink": False, **self.prune, "check": False},
            train=more.pop("train", train),
            val=val if self.val else None,
            finetune=FineTune(**{**base, **self.settings, **more}),
            training_progress=hook,
        )


SCENARIOS = {
    "dropout": Scenario(model(DROPOUT, MLP_SHAPES), {"rounds": 3}),
    "patience": Scenario(
        model(DROPOUT, MLP_SHAPES),
        {"rounds": 2, "epochs": 4, "patience": 1, "lr": 2.0, "lr_schedule": "constant"},
    ),
    "distillation": Scenario(
        mlp(), {"rounds": 2, "distill": True, "optimizer": "sgd", "nesterov": True}
    ),
    "no labels": Scenario(mlp(), {"rounds": 2, "clip_norm": 0.1}, labelled=False),
    "lstm in float16": Scenario(half(model(LSTM, LSTM_SHAPES)), {"rounds": 3}, val=False),
    "fixed batch": Scenario(
        fixed_batch(mlp(), 2), {"rounds": 2, "lr_schedule": "step"}, prune={"sparsity": 0.6}
    ),
    "splicing": Scenario(
        model(DROPOUT, MLP_SHAPES),
        {"method": "splicing", "optimizer": "sgd", "ramp": 0.4, "settle": 0.1, "batch_size": 2},
    ),
    "gradual": Scenario(
        fixed_batch(mlp(), 2),
        {"method": "gradual", "settle": 0.3, "batch_size": 2, "clip_norm": 1.0},
        prune={"sparsity": 0.6},
    ),
    "fisher": Scenario(
        model(DROPOUT, MLP_SHAPES),
        {"method": "gradual", "saliency": "fisher", "batch_size": 2},
        prune={"sparsity": 0.6},
    ),
}
each = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


def saved(result: Result, path: Path) -> bytes:
    result.save(path, overwrite=True)
    return path.read_bytes()


def interrupting(at: int) -> Callable[[TrainingState], None]:
    """A progress hook that presses Ctrl-C when it is called for this time, from 1."""
    calls = count(1)

    def hook(state: TrainingState) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)

    return hook


def counted(scenario: Scenario, path: Path) -> tuple[bytes, int]:
    """The file of an uninterrupted run, and how often its progress was told."""
    calls = []
    result = scenario.run(hook=calls.append)
    return saved(result, path), len(calls)


# ---- resuming --------------------------------------------------------------------------------


@each
def test_an_interrupted_run_ends_with_the_same_bytes(scenario: Scenario, tmp_path: Path) -> None:
    """Interrupted in steps, behind epochs' last steps, at the ends of epochs and rounds."""
    whole, calls = counted(scenario, tmp_path / "whole.onnx")
    points = {2, 3, 4, calls // 2 + 1, calls - 1, calls}
    for number in sorted(points):
        folder = tmp_path / f"state{number}"
        with pytest.raises(Interrupted, match="--resume"):
            scenario.run(folder, hook=interrupting(number))
        resumed = scenario.run(folder, resume=True)
        assert saved(resumed, tmp_path / "resumed.onnx") == whole, number
        assert resumed.report.training.resumed


def test_a_run_that_is_interrupted_again_and_again(tmp_path: Path) -> None:
    scenario = SCENARIOS["dropout"]
    whole = scenario.run()
    folder, resume = tmp_path / "state", False
    for _ in range(40):
        try:
            result = scenario.run(folder, resume=resume, hook=interrupting(5))
            break
        except Interrupted:
            resume = True
    assert resume
    assert saved(result, tmp_path / "a.onnx") == saved(whole, tmp_path / "b.onnx")
    found, expected = result.report.training, whole.report.training
    assert (found.steps, found.rounds) == (expected.steps, expected.rounds)
    timeless = [[replace(row, seconds=0) for row in t.epoch_rows] for t in (found, expected)]
    assert timeless[0] == timeless[1]


def test_patience_is_not_extended_by_an_interruption(tmp_path: Path) -> None:
    """The checkpoint at the end of patience says that the round is over."""
    scenario = SCENARIOS["patience"]
    whole = scenario.run(rounds=1)
    done = len(whole.report.training.epoch_rows)
    assert whole.report.training.stopped_early
    assert done < 4
    with pytest.raises(Interrupted):
        scenario.run(tmp_path, rounds=1, hook=interrupting(4 * done))
    resumed = scenario.run(tmp_path, rounds=1, resume=True)
    assert len(resumed.report.training.epoch_rows) == done
    assert resumed.report.training.stopped_early


def test_the_second_ctrl_c_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    scenario = SCENARIOS["dropout"]
    whole = scenario.run()
    calls = count(1)

    def hook(state: TrainingState) -> None:
        if next(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        scenario.run(tmp_path / "state", hook=hook)
    resumed = scenario.run(tmp_path / "state", resume=True)
    assert saved(resumed, tmp_path / "a.onnx") == saved(whole, tmp_path / "b.onnx")


def test_a_finished_training_can_be_resumed(tmp_path: Path) -> None:
    scenario = SCENARIOS["dropout"]
    whole = scenario.run(tmp_path / "state")
    again = scenario.run(tmp_path / "state", resume=True)
    assert saved(again, tmp_path / "a.onnx") == saved(whole, tmp_path / "b.onnx")
    assert again.report.training.steps == whole.report.training.steps


def test_without_a_checkpoint_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="in epoch 1 of round 1 and no model was written"):
        SCENARIOS["dropout"].run(hook=interrupting(2))


def test_seeds(tmp_path: Path) -> None:
    scenario = SCENARIOS["dropout"]
    files = [saved(scenario.run(seed=seed), tmp_path / "m.onnx") for seed in (0, 0, 1)]
    assert files[0] == files[1]
    assert files[0] != files[2]


def stream() -> Iterator[dict[str, np.ndarray]]:
    yield from batches(3, (9, 5))


def test_streams_resume_too(tmp_path: Path) -> None:
    scenario = Scenario(mlp(), {"rounds": 2, "epochs": 3})
    whole = saved(scenario.run(train=stream), tmp_path / "whole.onnx")
    for number in (2, 6, 13):
        with pytest.raises(Interrupted):
            scenario.run(tmp_path / f"s{number}", train=stream, hook=interrupting(number))
        resumed = scenario.run(tmp_path / f"s{number}", train=stream, resume=True)
        assert saved(resumed, tmp_path / "resumed.onnx") == whole


# ---- refusals of --resume --------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    with pytest.raises(Interrupted):
        SCENARIOS["dropout"].run(folder, hook=interrupting(6))
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": 0.03}, r"another lr \(0.02 then, 0.03 now\)"),
        ({"epochs": 3}, r"another epochs"),
        ({"seed": 5}, r"another seed"),
        ({"optimizer": "sgd"}, r"another optimizer"),
        ({"train": data(45)}, r"another train .*44 samples.*45 samples"),
        ({"train": data(44, seed=3)}, "training data with other contents"),
        ({"prune": {"quality": 0.9}}, r"another quality"),
        ({"prune": {"quality": 0.8, "exclude": ["w1"]}}, r"another exclude"),
        ({"proto": model(DROPOUT, MLP_SHAPES, seed=4)}, "another model"),
        ({"val": False}, "another val"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_another_training_is_refused(checkpoint: Path, change: dict[str, Any], says: str) -> None:
    own = {key: change[key] for key in ("proto", "prune", "val") if key in change}
    scenario = replace(SCENARIOS["dropout"], **own)
    before = (checkpoint / "state.safetensors").read_bytes()
    more = {key: value for key, value in change.items() if key not in own}
    with pytest.raises(UsageError, match=says) as failure:
        scenario.run(checkpoint, resume=True, **more)
    assert "\n" not in str(failure.value)
    assert str(failure.value).count(". ") == 0
    assert (checkpoint / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "header", "data", "empty", "text", "missing"])
def test_a_damaged_checkpoint_is_refused(checkpoint: Path, damage: str, tmp_path: Path) -> None:
    content = bytearray((checkpoint / "state.safetensors").read_bytes())
    if damage == "cut":
        content = content[:-100]
    if damage == "header":
        content[5] ^= 0xFF
    if damage == "data":
        content[-50] ^= 0x10
    if damage == "empty":
        content = bytearray()
    if damage == "text":
        content = bytearray(b"not a checkpoint, but long enough to be one")
    if damage != "missing":
        (tmp_path / "state.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"state\.safetensors"):
        SCENARIOS["dropout"].run(tmp_path, resume=True)


# ---- rounds and the report -------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["cubic", "linear"])
def test_thresholds_rise_over_the_rounds(schedule: Any) -> None:
    settings = {"rounds": 3, "rounds_schedule": schedule, "epochs": 1}
    training = Scenario(mlp(), settings, prune={"quality": 1.5}).run().report.training
    shares = {"cubic": (19 / 27, 26 / 27, 1), "linear": (1 / 3, 2 / 3, 1)}[schedule]
    assert [row.quality for row in training.rounds] == pytest.approx([1.5 * s for s in shares])
    zeros = [row.zeros for row in training.rounds]
    assert zeros == sorted(zeros)
    assert zeros[0] < zeros[-1]


def test_target_shares_rise_too_and_single_qualities_with_them() -> None:
    prune = {"sparsity": 0.8, "layers": {"w2": 0.5}}
    training = Scenario(mlp(), {"rounds": 2, "epochs": 1}, prune=prune).run().report.training
    assert [row.sparsity for row in training.rounds] == pytest.approx([0.8 * 7 / 8, 0.8])


def test_the_thresholds_of_a_round_are_those_of_the_weights_then() -> None:
    """Round 1 of one: threshold = quality x standard deviation of the unpruned weights."""
    proto = mlp()
    result = Scenario(proto, {"epochs": 1}, prune={"quality": 0.7}).run()
    for name in ("w1", "w2"):
        before, after = (stored(p)[name] for p in (proto, result.to_proto()))
        assert np.array_equal(after == 0, np.abs(before) < 0.7 * before.std())


def test_the_report_counts_what_an_independent_count_finds() -> None:
    scenario = SCENARIOS["dropout"]
    result = scenario.run()
    report, before, after = result.report, stored(scenario.proto), stored(result.to_proto())
    for row in report.layers:
        assert row.alive_before == np.count_nonzero(before[row.layer])
        assert row.kept == np.count_nonzero(after[row.layer])
    total = sum(np.size(before[name]) for name in MLP_SHAPES)
    kept = sum(np.count_nonzero(after[name]) for name in ("w1", "w2")) + 8 + 3
    assert report.parameters == total
    assert report.total_ratio == pytest.approx(total / kept)
    assert report.parameter_ratio == pytest.approx((48 + 24) / (kept - 8 - 3))
    val = data(30, seed=2)
    found = []
    for proto in (scenario.proto, result.to_proto()):
        scores = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": val["x"]})[0]
        found.append(float((scores.argmax(axis=1) == val["labels"]).mean()))
    assert report.accuracy is not None
    assert (report.accuracy.before, report.accuracy.after) == pytest.approx(found)
    training = report.training
    assert training.steps == 3 * 2 * 3
    assert report.accuracy.pruned == training.rounds[-1].metric_pruned
    assert report.accuracy.after == training.epoch_rows[-1].metric
    assert training.trained_parameters == total


def test_dropout_ratios_count_from_before_the_first_round() -> None:
    """Han et al. 2015, section 3.2: ratio x sqrt(connections now / connections at first)."""
    scenario = SCENARIOS["dropout"]
    result = scenario.run()
    first = np.count_nonzero(stored(scenario.proto)["w1"])
    last = np.count_nonzero(stored(result.to_proto())["w1"])
    (row,) = result.report.dropouts
    assert row.before == 0.5
    assert row.after == pytest.approx(0.5 * np.sqrt(last / first), rel=1e-3)
    constant = next(n for n in result.to_proto().graph.node if n.op_type == "Constant")
    assert constant.attribute[0].f == pytest.approx(row.after)


def test_the_loss_of_an_epoch_is_the_mean_over_samples() -> None:
    """A rate of nearly 0: the loss of every batch is that of the pruned model."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    settings = {"epochs": 1, "batch_size": 16, "lr": 1e-12, "l2": 0}
    proto = mlp()
    result = Scenario(proto, settings).run()
    train = data(44)
    scores = onnx.reference.ReferenceEvaluator(result.to_proto()).run(None, {"x": train["x"]})[0]
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(scores), torch.tensor(train["labels"])
    )
    assert result.report.training.epoch_rows[0].loss == pytest.approx(expected.item(), rel=1e-5)


def test_untrained_pruned_layers_are_named_and_stay_pruned() -> None:
    scenario = SCENARIOS["lstm in float16"]
    result = scenario.run()
    rows = {row.name: row for row in result.report.training.frozen}
    assert set(rows) == {"lw", "lr"}
    assert all(row.operator == "LSTM" for row in rows.values())
    assert rows["lw"].reason == "weights of LSTM are not trained"
    before, after = stored(scenario.proto), stored(result.to_proto())
    for name in ("lw", "lr"):
        assert 0 < np.count_nonzero(after[name]) < np.count_nonzero(before[name])
        assert after[name].dtype == np.float16
        kept = after[name] != 0
        assert np.array_equal(after[name][kept], before[name][kept])
    assert (after["w1"] != before["w1"]).any()


# ---- patience, failures ----------------------------------------------------------------------


def test_patience_keeps_the_best_epoch() -> None:
    """The first epoch trains, the later ones destroy: the rate is far too high for them."""
    scenario = SCENARIOS["patience"]
    metrics: dict[int, float] = {}

    def hook(state: TrainingState) -> None:
        if state.metric is not None:
            metrics[state.epoch] = state.metric

    result = scenario.run(rounds=1, hook=hook)
    training = result.report.training
    values = [row.metric for row in training.epoch_rows]
    best = int(np.argmax(values))
    assert best < len(values) - 1  # or nothing was kept
    assert training.rounds[0].best_epoch == best + 1
    val = data(30, seed=2)
    scores = onnx.reference.ReferenceEvaluator(result.to_proto()).run(None, {"x": val["x"]})[0]
    assert float((scores.argmax(axis=1) == val["labels"]).mean()) == pytest.approx(values[best])
    assert result.report.accuracy is not None
    assert result.report.accuracy.after == values[best]
    assert training.stopped_early


def test_a_loss_without_sense_ends_in_one_sentence(tmp_path: Path) -> None:
    settings = {"lr": 1e30, "optimizer": "sgd", "lr_schedule": "constant"}
    with pytest.raises(ModelError, match=r"the loss is (nan|inf) in step \d of epoch 1") as failure:
        Scenario(mlp(), settings).run()
    assert "--lr" in str(failure.value)


def test_a_file_is_not_written_where_training_fails(tmp_path: Path) -> None:
    onnx.save(mlp(), tmp_path / "m.onnx")
    with pytest.raises(ModelError):
        onnxprune.api.prune_file(
            tmp_path / "m.onnx",
            tmp_path / "out.onnx",
            PruneConfig(),
            train=data(44),
            finetune=FineTune(lr=1e30, optimizer="sgd"),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_the_source_stays_as_it_was() -> None:
    proto = mlp()
    before = proto.SerializeToString(deterministic=True)
    Scenario(proto, {}).run()
    assert proto.SerializeToString(deterministic=True) == before


def test_settings_without_data_are_refused() -> None:
    with pytest.raises(UsageError, match="give the samples to retrain on"):
        onnxprune.prune(mlp(), finetune=FineTune())


# ---- the command line ------------------------------------------------------------------------
