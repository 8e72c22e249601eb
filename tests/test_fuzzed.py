"""What the fuzzer found, each fault as the smallest file and command that had it."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.model.dtypes import PACKED_BITS, pack, unpack
from onnxprune.model.staging import staging
from onnxprune.runtime import open_session, random_feeds
from onnxprune.structure.operations import multiplications
from tests.builders import mlp, saved
from tests.refusal import refused, state
from tests.versions import has_older_runtime

Capture = pytest.CaptureFixture[str]


def parsed(text: str, **weights: np.ndarray) -> ModelProto:
    """A model from text, with initializers added."""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def short_constant() -> ModelProto:
    """A constant that is no weight and holds too few bytes."""
    model = mlp((24, 40, 10))
    model.graph.initializer[1].raw_data = b"1234"
    return model


def in_segments() -> ModelProto:
    model = mlp((24, 40, 10))
    model.graph.initializer[1].segment.begin = 0
    return model


def many_dimensions() -> ModelProto:
    model = mlp((24, 40, 10))
    model.graph.initializer[1].dims[:] = [40, *[1] * 70]
    return model


def empty_and_endless() -> ModelProto:
    model = mlp((24, 40, 10))
    model.graph.initializer[1].dims[:] = [2**62, 2**62, 0]
    model.graph.initializer[1].raw_data = b""
    return model


REFUSED: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "a constant with too few bytes": (short_constant, "holds 4 bytes where its shape needs 160"),
    "a tensor in segments": (in_segments, "stored in segments"),
    "71 dimensions": (many_dimensions, "has 71 dimensions"),
    "an empty tensor of endless sides": (empty_and_endless, "more than an array can have"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("options", [[], ["--channels", "0.5"], ["--format", "gaps"]])
def test_refused(case: str, options: list[str], tmp_path: Path, capsys: Capture) -> None:
    make, words = REFUSED[case]
    path = saved(make(), tmp_path / "m.onnx")
    assert words in refused([str(path), *options], tmp_path, capsys)


def quantized(scale: np.ndarray, zero: np.ndarray, **attributes: int) -> ModelProto:
    """x @ dequantised codes of 8x4."""
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        q (float[N,8] x) => (float[N,4] y) { w = DequantizeLinear(c, s, z) y = MatMul(x, w) }"""
    codes = np.arange(32, dtype=np.int8).reshape(8, 4)
    model = parsed(text, c=codes, s=scale, z=zero)
    for name, value in attributes.items():
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    return model


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def future_opset() -> ModelProto:
    model = mlp((24, 40, 10))
    model.opset_import[0].version = 2**40
    return model


def gap_coded_future() -> ModelProto:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["com.microsoft" : 1, "" : 999]>
        f (float[N,40] x) => (float[N,60] y) { y = com.microsoft.FusedMatMul(x, w) }""",
        w=normal(40, 60),
    )
    return model


def out_of_order() -> ModelProto:
    model = mlp((24, 40, 10))
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    return model


def without_outputs() -> ModelProto:
    model = mlp((24, 40, 40, 10))
    model.graph.node.add(op_type="MatMul", input=["a0", "fc1.weight"])
    return model


def half_a_gap_code() -> ModelProto:
    """A gap code whose last node has no output."""
    result = onnxprune.prune(mlp((40, 60, 10)), sparsity=0.95, format="gaps", check=False)
    model = result.to_proto("gaps")
    for node in model.graph.node:
        if node.op_type == "Reshape":
            del node.output[:]
    return model


def two_of_one_name() -> ModelProto:
    model = mlp((24, 40, 10))
    model.graph.output.append(model.graph.output[0])
    return model


def opset_of_a_function() -> ModelProto:
    """The graph calls functions alone, and names no opset of its own."""
    model = parsed(
        """
        <ir_version: 10, opset_import: ["local" : 1]>
        f (float[N,24] x) => (float[N,10] y) { h = local.dense(x, w) y = local.dense(h, v) }
        <domain: "local", opset_import: ["" : 18]>
        dense (a, b) => (c) { m = MatMul(a, b) c = Relu(m) }""",
        w=normal(24, 40),
        v=normal(40, 10),
    )
    return model


def misfit() -> ModelProto:
    """A second layer for other inputs than the first gives."""
    model = mlp((24, 40, 10))
    model.graph.node[0].attribute[0].i = 0
    return model


def sparse_scale() -> ModelProto:
    """A scale that claims to have thousands of millions of elements."""
    model = quantized(np.float32(1), np.int8(0))
    scale = model.graph.initializer[1]
    values = numpy_helper.from_array(ones(1), "s")
    indices = numpy_helper.from_array(np.array([0]))
    model.graph.sparse_initializer.append(
        SparseTensorProto(values=values, indices=indices, dims=[4 * 10**9])
    )
    model.graph.initializer.remove(scale)
    return model


TOLERATED: dict[str, Callable[[], ModelProto]] = {
    "an empty scale": lambda: quantized(ones(0), np.zeros(0, np.int8), axis=0),
    "a zero point of another rank": lambda: quantized(
        ones(4, 4), np.zeros(4, np.int8), axis=0, block_size=2
    ),
    "a sparse scale": sparse_scale,
    "an opset of the future": future_opset,
    "gap codes in the future": gap_coded_future,
    "nodes out of order": out_of_order,
    "a node without outputs": without_outputs,
    "two outputs of one name": two_of_one_name,
    "a function's own opset": opset_of_a_function,
    "layers that do not fit": misfit,
    "half a gap code": half_a_gap_code,
}
OPTIONS = {
    "shrink": ["--shrink", "-q", "2"],
    "channels": ["--channels", "0.5", "--align", "1"],
    "gaps": ["--sparsity", "0.95", "--format", "gaps"],
    "pattern": ["--pattern", "4x1", "--sparsity", "0.5"],
    "calibrated": ["--sparsity", "0.5", "--calibrate", "data.npz"],
    "distilled": ["--train", "data.npz", "--distill", "--epochs", "1"],
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("case", TOLERATED)
def test_pruned_or_refused(
    case: str, option: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = TOLERATED[case]()
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    np.savez("data.npz", x=normal(64, width), labels=np.zeros(64, np.int64))
    saved(model, tmp_path / "m.onnx")
    before = state(tmp_path)
    code = main(["m.onnx", *OPTIONS[option], "--no-latency"])
    captured = capsys.readouterr()
    said = "".join(line for line in captured.err.splitlines(True) if not line.startswith("epoch"))
    assert code in (0, 1, 2), said
    assert said.count("\n") == (code > 0), said
    assert "report this" not in said
    assert state(tmp_path).keys() == before.keys() | ({"m.pruned.onnx"} if code == 0 else set())


@pytest.mark.parametrize("sound", [True, False])
def test_an_unforeseen_error_is_blamed_on_models_that_contradict_themselves(
    sound: bool, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("what nobody foresaw")

    monkeypatch.setattr("onnxprune.api.prune_model", broken)
    path = saved(mlp((24, 40, 10)) if sound else out_of_order(), tmp_path / "m.onnx")
    code = main([str(path)])
    said = capsys.readouterr().err
    assert code == (70 if sound else 1)
    assert ("internal error: LookupError" in said) == sound
    assert ("the model contradicts itself (Nodes in a graph must be" in said) != sound


def test_numbers_that_overflow_are_not_warned_of(tmp_path: Path) -> None:
    model = mlp((24, 40, 10))
    model.graph.initializer[0].raw_data = np.full(960, 3e38, np.float32).tobytes()
    path = saved(model, tmp_path / "m.onnx")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for options in (["--pattern", "4x1", "--sparsity", "0.5"], ["--channels", "0.5"]):
            main([str(path), *options, "--overwrite", "--no-latency"])
    assert not [w for w in warned if issubclass(w.category, RuntimeWarning)]


@given(st.sampled_from(sorted(PACKED_BITS)), st.binary(max_size=9), st.integers(0, 40))
def test_packed_codes_pack_again(kind: int, data: bytes, count: int) -> None:
    bits = PACKED_BITS[kind]
    count = min(count, len(data) * 8 // bits)
    stored = np.frombuffer(data, np.uint8)[: (count * bits + 7) // 8].copy()
    if count * bits % 8:
        stored[-1] &= (1 << count * bits % 8) - 1
    np.testing.assert_array_equal(pack(unpack(stored, kind, count), kind), stored)


@pytest.mark.skipif(has_older_runtime(), reason="onnxruntime 1.18 knows no types of 4 bits")
@pytest.mark.parametrize("kind", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("repair", ["refit", "none"])
def test_samples_choose_among_layers_of_which_one_has_codes_of_4_bits(
    kind: type, repair: str, tmp_path: Path
) -> None:
    """Codes that samples left alone were written one to a byte."""
    codes = np.random.default_rng(1).integers(0, 8, (24, 16)).astype(kind)
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        q (float[N,24] x) => (float[N,10] y)
        { w = DequantizeLinear(c, s) h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }"""
    model = parsed(text, c=codes, s=np.array(0.1, np.float32), v=normal(16, 10))
    result = onnxprune.prune(
        model, sparsity=0.5, calibrate={"x": normal(64, 24)}, repair=repair, shrink=False
    )
    result.save(tmp_path / "o.onnx")
    written = {t.name: t for t in onnx.load(tmp_path / "o.onnx").graph.initializer}
    kept = numpy_helper.to_array(written["c"])
    assert kept.shape == codes.shape
    assert ((kept == codes) | (kept.astype(np.int8) == 0)).all()


def test_work_of_a_node_without_results_is_unknown() -> None:
    node = helper.make_node("MatMul", ["a", "b"], [])
    assert multiplications(node, {"a": (2, 3), "b": (3, 4)}) is None


def test_no_thread_outlives_a_staging_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checks fail"), staging(tmp_path / "o.onnx") as stage:
        stage.write("o.onnx", [memoryview(b"model")])
        raise ValueError("checks fail")
    assert not any(thread.is_alive() for thread in stage.flushes)


def test_no_file_is_left_where_the_report_fails(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise onnxprune.ModelError("no report")

    monkeypatch.setattr("onnxprune.writing.summary", broken)
    path = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    assert refused([str(path)], tmp_path, capsys) == "no report"


def test_training_does_not_run_a_bomb(tmp_path: Path, capsys: Capture) -> None:
    model = mlp((24, 40, 10))
    model.graph.initializer.append(numpy_helper.from_array(ones(1), "v0"))
    for number in range(32):  # shape inference follows lists of numbers: it must not follow these
        names = [f"v{number}"] * 2, ["bomb" if number == 31 else f"v{number + 1}"]
        model.graph.node.append(helper.make_node("Concat", *names, axis=0))
    model.graph.output.append(helper.make_tensor_value_info("bomb", TensorProto.FLOAT, None))
    path = saved(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=normal(64, 24), labels=np.zeros(64, np.int64))
    sentence = refused([str(path), "--train", str(tmp_path / "d.npz")], tmp_path, capsys)
    assert "'bomb' alone has 17,179,869,184 bytes" in sentence


def test_batches_that_nobody_can_have_meant_are_refused(tmp_path: Path, capsys: Capture) -> None:
    model = mlp((24, 40, 10))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 10**7
    path = saved(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", x=normal(8, 24), labels=np.zeros(8, np.int64))
    before = state(tmp_path)
    assert main(["evaluate", str(path), "--val", str(tmp_path / "data.npz"), "--runs", "0"]) == 1
    said = capsys.readouterr().err
    assert "takes 10,000,000 samples at once, 959,999,232 bytes; export" in said
    assert state(tmp_path) == before


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.BOOL, TensorProto.FLOAT])
def test_a_large_input_is_drawn_without_a_wider_copy(kind: int) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, kind, [2**20, 16]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = open_session(model.SerializeToString())
    tracemalloc.start()
    try:
        (feeds,) = random_feeds(session)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * feeds["x"].nbytes
    finally:
        tracemalloc.stop()


def test_calls_with_too_little_are_blamed_on_the_model(tmp_path: Path, capsys: Capture) -> None:
    """Removal puts functions in the place of their calls, which shows what the checker left."""
    model = opset_of_a_function()
    del model.graph.node[1].input[:]
    onnx.checker.check_model(model)
    path = saved(model, tmp_path / "m.onnx")
    options = ["-q", "2", "--shrink", "--no-check", "--no-latency"]
    said = refused([str(path), *options], tmp_path, capsys)
    assert "the model's functions do not fit their calls (Node ()'s input 0" in said


def test_rows_of_several_sizes_are_not_measured(tmp_path: Path, capsys: Capture) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        p (float[2,24] x) => (int64[2,M] y) { h = MatMul(x, w) y = NonZero(h) }"""
    weights = np.zeros((24, 10), np.float32)
    weights[0, :5] = 1
    path = saved(parsed(text, w=weights), tmp_path / "m.onnx")
    samples = normal(4, 24)
    samples[2:, 0] = 0
    np.savez(tmp_path / "data.npz", x=samples, labels=np.zeros(4, np.int64))
    code = main(["evaluate", str(path), "--val", str(tmp_path / "data.npz"), "--runs", "0"])
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1
    assert "rows of the model's first output have the shape (10,) for some samples and (0,)" in said
