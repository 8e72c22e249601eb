"""What both doors remove from the graph itself, against independent counts and onnxruntime."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from itertools import count as count_up
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

import onnxprune
from onnxprune import restructuring
from onnxprune.cli import main
from onnxprune.errors import Interrupted, ModelError, OutputError, UsageError
from onnxprune.structure import dead
from onnxprune.structure.config import ChannelConfig, StructureConfig
from tests.builders import arrays, mlp, saved
from tests.structure.dying import count, prove_equal

SIZES = (24, 64, 48, 10)
Capture = pytest.CaptureFixture[str]


def samples(n: int = 64, size: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)


def dying(sizes: tuple[int, ...] = SIZES, **more: Any) -> ModelProto:
    """Layers of which two neurons read nothing and one is not read, whatever is pruned."""
    model = mlp(sizes, **more)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "fc0.weight":
            array[[3, 5]] = 0
        elif tensor.name == "fc1.weight":
            array[:, 7] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def outputs(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    from tests.structure.proof import run

    return run(proto, {"x": x})[0]


# ---- dead neurons ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sparse", "constant", "gaps", "dense"])
def test_dead_neurons_go_after_pruning(form: Any, tmp_path: Path) -> None:
    dense = dying()
    whole = onnxprune.prune(dense, quality=0.3, shrink=False)
    result = onnxprune.prune(saved(dense, tmp_path / "m.onnx"), quality=0.3, format=form)
    report = result.save(tmp_path / "out.onnx")
    found = report.structure
    assert found is not None and found.changed and found.request == "" and not found.channels
    assert [(row.before, row.unread, row.constant, row.merged) for row in found.dead] == [
        (64, 1, 2, 0)
    ]
    assert found.dead[0].group == "fc0.weight out = fc1.weight in" and found.biases == ("fc1",)
    prove_equal(whole.to_proto(), result.to_proto(), [{"x": samples()}])
    assert [check.name for check in report.checks if check.outcome == "passed"] == [
        "dead channels", "weights", "onnx checker", "onnxruntime",
    ]  # fmt: skip
    assert result.to_proto(form).graph.node


def test_counts_are_those_of_the_written_file(tmp_path: Path) -> None:
    dense = dying()
    report = onnxprune.prune(dense, quality=0.3, format="dense").save(tmp_path / "out.onnx")
    written = arrays(onnx.load(tmp_path / "out.onnx"))
    before = arrays(dense)
    for row in report.layers:
        assert row.shape == before[row.layer].shape
        assert (row.shape_after or row.shape) == written[row.layer].shape
        assert row.weights == before[row.layer].size
        assert row.alive_before == np.count_nonzero(before[row.layer])
        assert row.kept == np.count_nonzero(written[row.layer])
        assert row.weights_after == written[row.layer].size
        assert row.bytes_before > before[row.layer].nbytes > row.bytes_after - 64
    assert [row.shape_after for row in report.layers] == [(61, 24), (48, 61), None]
    assert report.parameters == sum(array.size for array in before.values())
    assert report.parameters_output == sum(array.size for array in written.values())
    layers = {row.layer for row in report.layers}
    others = sum(array.size for name, array in written.items() if name not in layers)
    assert report.parameters_kept == report.kept + others
    assert report.structure is not None
    macs = [sum(array.size for n, array in a.items() if n in layers) for a in (before, written)]
    assert [report.structure.macs_before, report.structure.macs_after] == macs
    assert report.latency is not None and report.latency.before_ms > 0
    assert "speed " not in str(report) and "times" not in str(report)


def test_nothing_is_looked_for_where_nothing_is_pruned() -> None:
    dense = dying()
    result = onnxprune.prune(dense, quality=0)
    assert result.to_proto() == dense
    assert result.report.structure is None and result.report.latency is None
    assert not any("dead" in line.split()[:1] for line in str(result.report).splitlines())


def test_asked_for_they_go_from_any_model(tmp_path: Path) -> None:
    dense = dying()
    result = onnxprune.prune(dense, quality=0, shrink=True)
    assert count(result.to_proto()) < count(dense)
    prove_equal(dense, result.to_proto(), [{"x": samples()}])
    source = saved(dense, tmp_path / "m.onnx")
    assert main([str(source), "-q", "0", "--shrink", "--quiet"]) == 0
    assert arrays(onnx.load(tmp_path / "m.pruned.onnx"))["fc0.weight"].shape == (61, 24)


def test_declined_they_stay(tmp_path: Path) -> None:
    source = saved(dying(), tmp_path / "m.onnx")
    assert main([str(source), "-q", "0.3", "--no-shrink", "--quiet"]) == 0
    written = onnx.load(tmp_path / "m.pruned.onnx")
    assert [list(t.dims) for t in written.graph.initializer] == [
        list(t.dims) for t in dying().graph.initializer
    ] or {tuple(t.dims) for t in written.graph.sparse_initializer}


def test_where_none_is_dead_that_is_said() -> None:
    report = onnxprune.prune(mlp(SIZES), quality=0.1).report
    assert report.structure is not None and not report.structure.changed
    assert report.structure.reason == "no neuron or channel is dead"
    assert report.latency is None and report.structure.macs_before is None
    assert "zeros alone do not make onnxruntime faster" in str(report)


def test_large_models_are_left_alone_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restructuring, "LARGEST", 100)
    report = onnxprune.prune(dying(), quality=0.3).report
    assert report.structure is not None
    assert report.structure.reason.startswith("not looked for in a model of over 512 MB; --shrink")
    assert onnxprune.prune(dying(), quality=0.3, shrink=True).report.structure.changed


def test_models_over_2_gb_are_pruned_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> ModelProto:
        raise OutputError("too large for one message")

    monkeypatch.setattr(dead, "to_proto", refuse)
    report = onnxprune.prune(dying(), quality=0.3, shrink=True).report
    assert report.structure.reason == "not looked for: the model is over 2 GB"
    assert report.kept < report.weights


def test_what_nobody_asked_for_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(restructuring, "shrink", fail)
    report = onnxprune.prune(dying(), quality=0.3).report
    assert report.warnings == ("dead channels: not looked for: ZeroDivisionError: a defect",)
    with pytest.raises(ZeroDivisionError):
        onnxprune.prune(dying(), quality=0.3, shrink=True)


def test_where_outputs_would_differ_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restructuring, "outputs_differ", lambda *_: None)
    result = onnxprune.prune(dying(), quality=0.3)
    assert arrays(result.to_proto())["fc0.weight"].shape == (64, 24)
    assert "outputs would differ" in result.report.warnings[0]


def test_where_nothing_can_run_they_stay_unless_checks_are_declined() -> None:
    dense = dying()
    dense.opset_import.append(helper.make_opsetid("own", 1))
    dense.graph.node.append(helper.make_node("Strange", ["y"], ["z"], domain="own"))
    dense.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    report = onnxprune.prune(dense, quality=0.3).report
    assert report.structure.reason.startswith("dead channels stay, as nothing can compare outputs")
    blind = onnxprune.prune(dense, quality=0.3, check=False)
    assert blind.report.structure.changed and blind.report.latency is None
    timed = onnxprune.prune(dense, quality=0.3, check=False, latency=True).report
    assert timed.latency is None
    assert any(note.startswith("latency is not known: onnxruntime") for note in timed.notes)


def test_layers_in_bodies_are_found_again_where_nodes_have_no_names(tmp_path: Path) -> None:
    """Shape arithmetic in front of an If goes, and with it the number that labels the If."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 24])
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    random = np.random.default_rng(0)
    first, second, inner = (random.standard_normal(s).astype(np.float32) for s in
                            ((24, 32), (32, 5), (5, 5)))  # fmt: skip
    first[:, 4] = 0
    bodies = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["m", name], ["o"])], name, [], [out],
            [numpy_helper.from_array(inner * (1 + i), name)],
        )
        for i, name in enumerate(("then_branch", "else_branch"))
    }  # fmt: skip
    nodes = [
        parser.parse_node("h = MatMul(x, a)"),
        parser.parse_node("r = Sigmoid(h)"),
        parser.parse_node("s = Shape(r)"),
        parser.parse_node("d = Gather(s, one)"),
        parser.parse_node("f = Cast<to=1>(d)"),
        parser.parse_node("t = Div(r, f)"),
        parser.parse_node("m = MatMul(t, b)"),
        parser.parse_node("q = ReduceSum<keepdims=0>(x)"),
        parser.parse_node("c = Greater(q, zero)"),
        helper.make_node("If", ["c"], ["y"], **bodies),
    ]
    tensors = [
        numpy_helper.from_array(array, name)
        for name, array in (
            ("a", first),
            ("b", second),
            ("one", np.int64(1)),
            ("zero", np.float32(0)),
        )
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(dense, quality=0.3)
    report = result.save(tmp_path / "out.onnx")
    assert report.structure.dead_removed == 1
    assert {row.layer for row in report.layers} == {"a", "b", "then_branch", "else_branch"}
    assert all(row.kept < row.weights for row in report.layers)
    whole = onnxprune.prune(dense, quality=0.3, shrink=False).to_proto()
    prove_equal(whole, result.to_proto(), [{"x": samples(3)}, {"x": -samples(3)}])


def with_functions(inside: bool) -> ModelProto:
    """Two layers by a function; the first one's weights are in the graph, or `inside` one."""
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        graph (float[N, 24] x) => (float[N, 4] y) {
            g = own.layer(x, a)
            y = own.layer(g, b)
        }
        <domain: "own", opset_import: ["" : 17]>
        layer (i, j) => (d) { c = MatMul(i, j)  d = Sigmoid(c) }
        """
    )
    random = np.random.default_rng(0)
    first, second = (random.standard_normal(s).astype(np.float32) for s in ((24, 40), (40, 4)))
    first[:, 4] = 0
    model.graph.initializer.append(numpy_helper.from_array(second, "b"))
    if not inside:
        model.graph.initializer.append(numpy_helper.from_array(first, "a"))
        return model
    inner = model.functions.add()
    inner.CopyFrom(model.functions[0])
    inner.name = "inner"
    del inner.input[1]
    value = numpy_helper.from_array(first, "j")
    inner.node.insert(0, helper.make_node("Constant", [], ["j"], value=value))
    model.graph.node[0].op_type = "inner"
    del model.graph.node[0].input[1]
    return model


def test_functions_are_inlined_where_something_goes() -> None:
    dense = with_functions(inside=False)
    result = onnxprune.prune(dense, quality=0.2)
    assert result.report.structure.dead_removed == 1 and not result.to_proto().functions
    whole = onnxprune.prune(dense, quality=0.2, shrink=False).to_proto()
    prove_equal(whole, result.to_proto(), [{"x": samples(3)}])
    assert [row.shape_after for row in result.report.layers] == [(24, 39), (39, 4)]


def test_layers_in_functions_keep_the_graph_as_it_is() -> None:
    dense = with_functions(inside=True)
    result = onnxprune.prune(dense, quality=0.2)
    assert len(result.to_proto().functions) == 2
    assert result.report.structure.reason == "dead channels stay: model-local functions hold layers"
    with pytest.raises(ModelError, match="inline these first"):
        onnxprune.prune(dense, channels=0.5)


# ---- channels --------------------------------------------------------------------------------


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
    left, unrepaired = error(calibrate={"x": x}, repair="none")
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


# ---- the command line ------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, report_of: Any) -> Callable[[str], dict[str, Any]]:
    from onnxprune import api

    calls: list[dict[str, Any]] = []

    def prune_file(*arguments: Any, **options: Any) -> onnxprune.Report:
        calls.append({"config": arguments[2], **options})
        return report_of

    monkeypatch.setattr(api, "prune_file", prune_file)

    def ask(line: str) -> dict[str, Any]:
        assert main(["m.onnx", *line.split()]) == 0
        return calls[-1]

    return ask


@pytest.fixture
def report_of() -> onnxprune.Report:
    return onnxprune.prune(mlp(), quality=0).report


def test_flags_are_settings(asked: Callable[[str], dict[str, Any]]) -> None:
    assert asked("")["structure"] == StructureConfig()
    assert asked("--shrink --latency")["structure"] == StructureConfig(shrink=True, latency=True)
    declined = asked("--no-shrink --no-latency")["structure"]
    assert declined == StructureConfig(shrink=False, latency=False)
    call = asked("--channels 0.5 --importance l2 --align 4 --scope layer")
    channels = ChannelConfig(0.5, importance="l2", align=4, scope="layer")
    assert call["structure"] == StructureConfig(channels, align=4)
    assert (call["config"].quality, call["config"].scope) == (0.0, "global")
    assert asked("--macs 0.4")["structure"].channels == ChannelConfig(macs=0.4)
    call = asked("--speedup 2 --sparsity 0.5 --scope layer")
    assert call["structure"].channels == ChannelConfig(speedup=2.0, scope="layer")
    assert (call["config"].sparsity, call["config"].scope) == (0.5, "layer")
    assert asked("--channels 0.5 -q 1.5")["config"].quality == 1.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--importance l2", "importance chooses channels"),
        ("--align 4 --no-shrink", "align says how many channels stay"),
        ("--channels 0.5 --speedup 2", "channels and speedup exclude each other"),
        ("--channels 2", "channels is 2.0: give a share"),
        ("--align 1.5", 'unable to convert "1.5" into int'),
        ("--scope layer", "scope layer says what meets a target sparsity"),
    ],
)
def test_the_command_refuses(line: str, words: str, capsys: Capture) -> None:
    assert main(["m.onnx", *line.split()]) == 2
    assert words in capsys.readouterr().err


def test_the_summary_has_a_row_for_each_group(tmp_path: Path, capsys: Capture) -> None:
    source = saved(dying(), tmp_path / "m.onnx")
    line = [str(source), "--channels", "0.25", "-q", "0.3", "--json", f"{tmp_path / 'r.json'}"]
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "fc0.weight out = fc1.weight in" in text and "now" in text.splitlines()[3]
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["structure"]["channels"][0]["after"] == 48
    assert facts["layers"][0]["shape_after"][0] <= 48
    assert facts["latency"]["threads"] == 1


def test_a_dry_run_says_the_same(tmp_path: Path) -> None:
    source = saved(dying(), tmp_path / "m.onnx")
    dry = onnxprune.prune(source, channels=0.5, quality=0.3, latency=False).report
    wet = onnxprune.prune(source, channels=0.5, quality=0.3, latency=False).save(
        tmp_path / "model.onnx"
    )
    assert dry.layers == wet.layers and dry.structure == wet.structure
    assert dry.sizes.file_output == wet.sizes.file_output


def test_groups_and_barriers_are_listed(tmp_path: Path, capsys: Capture) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx")
    coupled = onnxprune.inspect(source, groups=True).coupled
    assert [(group.name, group.channels, group.tensors) for group in coupled.groups] == [
        ("fc0.weight out = fc1.weight in", 64, 3),
        ("fc1.weight out = fc2.weight in", 48, 3),
    ]
    members = coupled.groups[0].members
    assert {(m.tensor, m.axis, m.role, m.size, m.repeats) for m in members} == {
        ("fc0.weight", 0, "out", 64, 1), ("fc1.weight", 1, "in", 64, 1), ("fc0.bias", 0, "", 64, 1),
    }  # fmt: skip
    assert ("fc2.weight out", 10, "y", "output") in {
        (row.axis, row.kept, row.node, row.operator) for row in coupled.barriers
    }
    assert main(["inspect", str(source), "--groups"]) == 0
    text = capsys.readouterr().out
    assert "112 channels in 2 groups can be removed" in text
    assert "fc0.weight out = fc1.weight in" in text and "is an output of the model" in text
    assert main(["inspect", str(source), "--groups", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["coupled"]["groups"][1]["channels"] == 48
    assert main(["inspect", str(source), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["coupled"] is None


def test_groups_of_a_model_over_2_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import grouping

    def refuse(_: object) -> ModelProto:
        raise OutputError("too large")

    monkeypatch.setattr(grouping, "to_proto", refuse)
    report = onnxprune.inspect(mlp(), groups=True)
    assert not report.coupled.groups
    assert "none: not looked for, as the model is over 2 GB" in str(report)
