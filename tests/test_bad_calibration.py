"""Calibration data that does not fit: one clear sentence at both doors, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import DataError, ModelError, OnnxPruneError
from tests.builders import mlp, saved
from tests.refusal import refused
from tests.repair.test_repair import INPUTS, normalized, samples

SIZES = (INPUTS, 32, 10)
Arrays = dict[str, np.ndarray]


def spoilt(value: float) -> Callable[[], Arrays]:
    def build() -> Arrays:
        x = samples()
        x[7, 3] = value
        return {"x": x}

    return build


BAD: dict[str, tuple[Callable[[], Arrays], str]] = {
    "wrong shape": (lambda: {"x": samples(20, INPUTS + 1)}, "of shape 20x25; the model wants"),
    "wrong rank": (lambda: {"x": samples(20)[:, None]}, "of shape 20x1x24"),
    "one sample without its axis": (lambda: {"x": samples(1)[0]}, "of shape 24"),
    "wrong type": (
        lambda: {"x": samples().astype(np.float64)},
        "convert it with astype('float32')",
    ),
    "integers": (lambda: {"x": np.ones((9, INPUTS), np.int64)}, "is int64 of shape 9x24"),
    "NaN": (spoilt(np.nan), "holds NaN or infinity, first in sample 7"),
    "infinity": (spoilt(np.inf), "holds NaN or infinity, first in sample 7"),
    "no samples": (lambda: {"x": samples(0)}, "holds no samples"),
    "no arrays": (dict, "has no array for the model's input 'x'"),
    "other names": (
        lambda: {"image": samples(), "mask": samples()},
        "has no array for the model's input 'x' (it has: 'image', 'mask')",
    ),
    "labels under another name": (
        lambda: {"x": samples(), "target": np.zeros(200)},
        "has arrays that are no input of the model: 'target'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, words = BAD[case]
    with pytest.raises(DataError) as failure:
        onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=build())
    assert words in str(failure.value)
    path = saved(mlp(SIZES), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", **build())
    line = [str(path), "--sparsity", "0.5", "--calibrate", str(tmp_path / "x.npz")]
    assert words in refused(line, tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.npz", None, "cannot read 'missing.npz'"),
        ("text.npz", b"no archive", "is no .npz file of plain arrays"),
        ("empty", None, "cannot read 'empty'"),
        ("", None, "the name of the data is empty"),
        ("nowhere:function", None, "nowhere"),
    ],
)
def test_files(
    name: str,
    content: bytes | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(mlp(SIZES), tmp_path / "m.onnx")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    sentence = refused(["m.onnx", "--sparsity", "0.5", f"--calibrate={name}"], tmp_path, capsys)
    assert words in sentence
    with pytest.raises(OnnxPruneError, match=words):
        onnxprune.prune("m.onnx", sparsity=0.5, calibrate=name)


def test_labels_are_ignored(tmp_path: Path) -> None:
    given = {"x": samples(), "labels": np.full(200, np.nan)}
    labelled = onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=given)
    plain = onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate={"x": samples()})
    assert labelled.to_proto() == plain.to_proto()
    path = saved(mlp(SIZES), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", **given)
    line = [str(path), "--sparsity", "0.5", "--calibrate", str(tmp_path / "x.npz"), "--quiet"]
    assert main(line) == 0


def test_too_few_samples_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "holds only 5 samples: a repair wants 512, and at least 64"
    result = onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=samples(5))
    assert words in result.report.warnings[0]
    path = saved(mlp(SIZES), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples(5))
    line = [str(path), "--sparsity", "0.5", "--calibrate", str(tmp_path / "x.npz"), "--dry-run"]
    assert main(line) == 0
    assert words in capsys.readouterr().out
    assert not onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=samples(64)).report.warnings
    assert not onnxprune.prune(
        mlp(SIZES), sparsity=0.5, calibrate=samples(5), samples=5
    ).report.warnings


def test_fewer_samples_than_a_fixed_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = mlp(SIZES)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    # Sums along the batch: nothing can free the axis.
    proto.graph.node.append(helper.make_node("CumSum", ["y", "axis"], ["z"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "axis"))
    proto.graph.output[0].name = "z"
    with pytest.raises(DataError, match="too few samples to calibrate with; give at least 8"):
        onnxprune.prune(proto, sparsity=0.5, calibrate=samples(5))
    path = saved(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples(5))
    line = [str(path), "--sparsity", "0.5", "--calibrate", str(tmp_path / "x.npz")]
    assert "give at least 8" in refused(line, tmp_path, capsys)


def test_streams_that_fail() -> None:
    def broken() -> Any:
        yield {"x": samples(10)}
        raise RuntimeError("disk on fire")

    with pytest.raises(DataError, match="disk on fire"):
        onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=broken)
    with pytest.raises(DataError, match="no batches"):
        onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=[])
    with pytest.raises(DataError, match="NaN or infinity"):
        onnxprune.prune(mlp(SIZES), sparsity=0.5, calibrate=[spoilt(np.nan)()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repair": "match"},
        {"criterion": "wanda", "repair": "none"},
        {"criterion": "sparsegpt", "repair": "none"},
    ],
)
def test_samples_of_which_a_model_makes_nan(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = mlp(SIZES)
    proto.graph.node.insert(0, helper.make_node("Log", ["x"], ["logarithm"]))
    proto.graph.node[1].input[0] = "logarithm"
    words = "layer 'fc0.weight' gives NaN or infinity on the calibration samples"
    with pytest.raises(DataError, match=words):
        onnxprune.prune(proto, sparsity=0.5, calibrate=samples(), **options)
    path = saved(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples())
    line = [str(path), "--sparsity", "0.5", "--calibrate", str(tmp_path / "x.npz")]
    line += [part for name, value in options.items() for part in (f"--{name}", value)]
    assert words in refused(line, tmp_path, capsys)


def test_statistics_are_not_made_of_nan() -> None:
    proto = normalized()
    proto.graph.node.insert(0, helper.make_node("Log", ["x"], ["logarithm"]))
    proto.graph.node[1].input[0] = "logarithm"
    x = np.random.default_rng(0).standard_normal((70, 3, 8, 8)).astype(np.float32)
    with pytest.raises(DataError, match="what makes 'c0' gives NaN or infinity"):
        onnxprune.prune(proto, sparsity=0.5, calibrate=x, repair="bn")


def test_a_model_that_cannot_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = mlp(SIZES)
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Unheard", "of.it"
    proto.opset_import.append(helper.make_opsetid("of.it", 1))
    with pytest.raises(ModelError, match="calibration runs the model, and onnxruntime does not"):
        onnxprune.prune(proto, sparsity=0.5, calibrate=samples())
    path = saved(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=samples())
    line = [str(path), "--sparsity", "0.5", "--calibrate", str(tmp_path / "x.npz")]
    assert "leave out --calibrate" in refused(line, tmp_path, capsys)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--repair", "refit"], "--repair has no effect without --calibrate"),
        (["--samples", "9"], "--samples has no effect without --calibrate"),
        (["--calibrate", "x.npz", "--repair", "refi"], 'Did you mean "refit"?'),
        (["--calibrate", "x.npz", "--samples", "0"], "samples is 0"),
        (["--calibrate", "x.npz", "--samples", "1.5"], 'unable to convert "1.5" into int'),
        (["--calibrate", "o.onnx", "-o", "o.onnx"], "the output and calibrate are both 'o.onnx'"),
        (["--calibrate"], "--calibrate requires an argument"),
    ],
)
def test_flags(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(["m.onnx", *flags], tmp_path, capsys, code=2)
