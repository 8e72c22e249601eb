"""Dead neurons through both doors, against independent counts and onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

import onnxprune
from onnxprune import restructuring
from onnxprune.cli import main
from onnxprune.errors import ModelError, OutputError
from onnxprune.structure import dead
from tests.builders import arrays, mlp, saved
from tests.structure.dying import count, prove_equal
from tests.structure.layered import SIZES, dying, samples, with_functions

Capture = pytest.CaptureFixture[str]


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


def test_a_small_file_of_large_weights_is_left_alone_unasked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(restructuring, "LARGEST_SPARSE", 100)
    monkeypatch.setattr(restructuring, "TIMES", 2)
    onnxprune.prune(dying(), quality=2.5, shrink=False).save(tmp_path / "sparse.onnx")
    report = onnxprune.prune(tmp_path / "sparse.onnx", quality=3.5).report
    assert report.structure is not None
    assert report.structure.reason.startswith("not looked for in a model whose dense weights take")
    path = saved(dying(), tmp_path / "dense.onnx")
    assert onnxprune.prune(path, quality=0.3).report.structure.changed


def test_endless_graphs_are_left_alone_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restructuring, "MOST_NODES", 1)
    report = onnxprune.prune(dying(), quality=0.3).report
    assert report.structure is not None
    assert (
        report.structure.reason
        == "not looked for in a graph of over 1 nodes; --shrink looks for them"
    )
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
