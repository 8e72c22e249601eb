"""Channels through the door of Python, against independent counts and onnxruntime."""

from __future__ import annotations

import os
import signal
from itertools import count as count_up
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import Interrupted, UsageError
from tests.builders import arrays, mlp, saved
from tests.structure.layered import SIZES, dying, outputs, samples

Capture = pytest.CaptureFixture[str]


def test_channels_go_and_weights_stay() -> None:
    dense = mlp(SIZES)
    result = onnxprune.prune(dense, channels=0.5)
    report, found = result.report, arrays(result.to_proto())
    assert found["fc0.weight"].shape == (32, 24) and found["fc1.weight"].shape == (24, 32)
    assert found["fc2.weight"].shape == (10, 24)
    rows = {tuple(row) for row in arrays(dense)["fc0.weight"].tolist()}
    assert all(tuple(row) in rows for row in found["fc0.weight"].tolist())
    assert report.quality == 0 and report.kept == sum(
        found[row.layer].size for row in report.layers
    )
    assert report.weights == sum(array.size for n, array in arrays(dense).items() if "weight" in n)
    assert report.parameter_ratio == report.weights / report.kept
    assert [(r.before, r.after) for r in report.structure.channels] == [(64, 32), (48, 24)]
    assert (report.structure.channels_removed, report.structure.refitted) == (56, 0)
    text = str(report)
    assert "(channels 0.5)" in text.splitlines()[1] and "56 of 112 removed, in 2 groups" in text
    assert report.latency is not None and "ms a run" in text
    assert report.repair is None


def test_channels_and_weights() -> None:
    report = onnxprune.prune(mlp(SIZES), channels=0.25, quality=0.8).report
    assert report.quality == 0.8 and "(channels 0.25, quality 0.8)" in str(report)
    for row in report.layers[:2]:
        assert row.shape_after != row.shape and 0 < row.kept < row.weights_after
    both = onnxprune.prune(mlp(SIZES), channels=0.25, sparsity=0.5, shrink=False).report
    zeros = sum(row.weights_after - row.kept for row in both.layers)
    assert zeros / sum(row.weights_after for row in both.layers) == pytest.approx(0.5, abs=1e-3)


def test_scope_is_that_of_channels_too(tmp_path: Path) -> None:
    def kept(*flags: str) -> list[tuple[int, ...]]:
        dense = mlp((24, 64, 64, 10))
        for tensor in dense.graph.initializer:
            if tensor.name.startswith("fc0"):
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array * 9, tensor.name))
        source = saved(dense, tmp_path / "m.onnx")
        line = [str(source), "--quiet", "--overwrite", "--format", "dense", *flags]
        assert main(line) == 0
        return [tuple(t.dims) for t in onnx.load(tmp_path / "m.pruned.onnx").graph.initializer]

    each = kept("--channels", "0.5", "--scope", "layer")
    assert (32, 24) in each and (10, 32) in each
    step = kept("--channels", "0.5", "--scope", "layer", "--align", "5")
    assert (35, 24) in step
    with_weights = kept("--channels", "0.5", "--scope", "layer", "--sparsity", "0.5", "--no-shrink")
    assert (32, 24) in with_weights


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("option", [{"exclude": ["fc2*"]}, {"layers": {"fc2*": None}}])
def test_layers_that_are_left_alone_keep_their_channels(option: Any, calibrated: bool) -> None:
    """And so do those before and behind them, as far as these would have to go along."""
    dense, data = mlp((24, 64, 48, 40, 10)), {"calibrate": {"x": samples(128)}}
    result = onnxprune.prune(dense, channels=0.5, **option, **(data if calibrated else {}))
    found, before = arrays(result.to_proto()), arrays(dense)
    assert found["fc0.weight"].shape == (32, 24) and found["fc1.weight"].shape == (48, 32)
    np.testing.assert_array_equal(found["fc2.weight"], before["fc2.weight"])
    structure = result.report.structure
    assert (structure.channels_removed, structure.channels_found) == (32, 64)
    nothing = onnxprune.prune(dense, channels=0.5, exclude=["*"]).report
    assert "layers that are left alone hold all that could be" in str(nothing)
    with pytest.raises(UsageError, match="layers that are left alone"):
        onnxprune.prune(dense, macs=0.5, exclude=["*"])


def test_operations_and_measured_speed() -> None:
    dense = mlp((64, 256, 256, 10))
    report = onnxprune.prune(dense, macs=0.5, latency=False).report
    assert report.structure.request == "macs 0.5"
    assert 0.4 < report.structure.macs_after / report.structure.macs_before <= 0.5
    fast = onnxprune.prune(mlp((256, 512, 512, 10)), speedup=1.5, latency=False).report
    assert fast.structure.request == "speedup 1.5" and fast.structure.changed
    assert fast.latency is None and "not measured: fewer channels are less work" in str(fast)


def test_calibration_samples_refit_what_stays() -> None:
    dense, x, fresh = mlp(SIZES), samples(256), samples(64, seed=5)

    def error(**options: Any) -> tuple[float, onnxprune.Report]:
        result = onnxprune.prune(dense, channels=0.5, **options)
        want = outputs(dense, fresh)
        return float(np.abs(outputs(result.to_proto(), fresh) - want).mean()), result.report

    (plain, _), (refitted, report) = error(), error(calibrate={"x": x})
    left, unrepaired = error(calibrate={"x": x}, repair="none", importance="l2")
    chosen, by_samples = error(calibrate={"x": x}, repair="none", importance="activation")
    assert refitted < chosen != left and by_samples.structure.refitted == 0
    assert error(calibrate={"x": x}, repair="none")[0] == pytest.approx(chosen)
    assert refitted < 0.9 * plain
    assert report.structure.refitted == 256 and report.repair is None
    assert "refitted by least squares on 256 samples" in str(report)
    assert unrepaired.structure.refitted == 0 and left == pytest.approx(plain)
    _, report = error(calibrate={"x": x}, quality=0.5)
    assert report.repair is not None and report.repair.rows[0].method == "refit"


def test_training_starts_from_the_smaller_model_and_its_teacher_is_the_dense_one() -> None:
    dense, x = mlp(SIZES), samples(512)

    def error(**options: Any) -> tuple[float, onnxprune.Report]:
        done = onnxprune.prune(dense, channels=0.5, **options)
        gap = np.abs(outputs(done.to_proto(), x) - outputs(dense, x)).mean()
        return float(gap), done.report

    settings = onnxprune.FineTune(epochs=12, lr=1e-2)
    start, _ = error()
    end, report = error(quality=0.2, train={"x": x}, finetune=settings)
    assert end < 0.6 * start
    assert report.training is not None and report.layers[0].shape_after is not None
    assert all(row.kept < row.weights_after for row in report.layers)


def test_an_interrupted_training_goes_on(tmp_path: Path) -> None:
    dense, x = mlp(SIZES), samples(128)

    def run(folder: Path, *, stop: bool = False, resume: bool = False) -> ModelProto:
        calls = count_up(1)

        def hook(_: Any) -> None:
            if stop and next(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        settings = onnxprune.FineTune(epochs=3, lr=1e-3, checkpoint=folder, resume=resume)
        return onnxprune.prune(
            dense, channels=0.5, quality=0.3, calibrate={"x": x}, train={"x": x},
            finetune=settings, training_progress=hook,
        ).to_proto()  # fmt: skip

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", stop=True)
    assert run(tmp_path / "parts", resume=True) == whole


def test_dropout_ratios_follow_channels() -> None:
    dense = mlp(SIZES, opset=11)
    dense.graph.node.insert(2, helper.make_node("Dropout", ["a0"], ["d0"], name="drop", ratio=0.5))
    dense.graph.node[3].input[0] = "d0"
    for options in ({}, {"train": {"x": samples()}, "finetune": onnxprune.FineTune(epochs=1)}):
        report = onnxprune.prune(dense, channels=0.5, **options).report
        kept = report.layers[0].kept / report.layers[0].weights
        assert kept == 0.5
        assert report.dropouts[0].after == pytest.approx(0.5 * kept**0.5)


def test_thresholds_are_counted_in_the_smaller_layers() -> None:
    report = onnxprune.prune(mlp(SIZES), channels=0.5, quality=0.7, shrink=False).report
    small = arrays(onnxprune.prune(mlp(SIZES), channels=0.5).to_proto())
    for row in report.layers:
        std = small[row.layer].std(dtype=np.float64)
        assert row.std == pytest.approx(std) and row.threshold == pytest.approx(0.7 * std)


def test_where_no_channel_can_go_that_is_said() -> None:
    report = onnxprune.prune(mlp((24, 10)), channels=0.5).report
    assert not report.structure.changed and "none removed (channels 0.5)" in str(report)
    assert any("no channel can be removed" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0.5, "macs": 0.5}, "channels and macs exclude each other"),
        ({"channels": 1.0}, "channels is 1.0: give a share from 0"),
        ({"macs": 0}, "macs is 0: give a share above 0"),
        ({"speedup": 0.5}, "speedup is 0.5: give a factor of at least 1"),
        ({"importance": "l2"}, "importance chooses channels: give channels, macs or speedup"),
        ({"channels": 0.5, "importance": "luck"}, "importance 'luck' is unknown"),
        ({"channels": 0.5, "importance": "activation"}, "importance by activation needs"),
        ({"channels": 0.5, "align": 0}, "align is 0: give a whole number of at least 1"),
        ({"shrink": 0}, "shrink is 0: give True, False, or None"),
        ({"latency": "no"}, "latency is 'no': give True, False, or None"),
        ({"align": 1.5}, "align is 1.5: give a whole number"),
        ({"align": 4, "shrink": False}, "align says how many channels stay where some go"),
        ({"scope": "layer"}, "scope layer says what meets a target sparsity"),
    ],
)
def test_python_refuses(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        onnxprune.prune(mlp(), **options)


def test_a_measured_speed_and_a_checkpoint_do_not_go_together(tmp_path: Path) -> None:
    settings = onnxprune.FineTune(checkpoint=tmp_path)
    with pytest.raises(UsageError, match="a speedup is measured anew in every run"):
        onnxprune.prune(mlp(), speedup=2, train={"x": samples()}, finetune=settings)


def test_the_most_pruning_without_some_channels() -> None:
    x = samples(256)
    dense = mlp(SIZES)
    labels = outputs(dense, x).argmax(1)
    options: dict[str, Any] = {"val": (x, labels), "trials": 5, "calibrate": {"x": x}}
    report = onnxprune.prune(dense, channels=0.1, max_drop=20, **options).report
    assert report.search is not None and report.accuracy is not None
    assert report.structure is not None and report.structure.channels_removed
    assert report.accuracy.before == 1.0 and report.accuracy.after >= 0.8
    assert report.kept < sum(row.weights_after for row in report.layers)
    title = str(report).splitlines()[1]
    assert "(channels 0.1, " in title
    with pytest.raises(UsageError, match="max-drop is passed without the channels"):
        onnxprune.prune(dense, channels=0.8, max_drop=0.1, val=(x, labels), trials=3)


@pytest.mark.parametrize("pattern", ["2:4", "4x1"])
def test_patterns_keep_dead_neurons(pattern: str) -> None:
    options: dict[str, Any] = {"pattern": pattern} | ({} if ":" in pattern else {"sparsity": 0.5})
    report = onnxprune.prune(dying(), **options).report
    assert not report.structure.changed
    assert report.structure.reason == (
        f"dead channels stay: without them, zeros would leave the pattern {pattern}"
    )
    with pytest.raises(UsageError, match="shrink moves weights together, out of the pattern"):
        onnxprune.prune(dying(), shrink=True, **options)
    both = onnxprune.prune(mlp(SIZES), channels=0.5, **options).report
    zeros = [1 - row.kept / row.weights_after for row in both.layers]
    assert zeros == pytest.approx([0.5] * 3, abs=0.2) and both.structure.channels_removed
