"""Files and options that make no sense: one sentence, the right exit code, nothing written."""

from __future__ import annotations

import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.cli import main
from tests.builders import mlp, saved
from tests.refusal import refused, state

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(mlp((24, 40, 10)), tmp_path / "m.onnx")


@pytest.fixture
def external(tmp_path: Path) -> Path:
    return saved(mlp((24, 40, 10)), tmp_path / "e.onnx", external=True)


def archive() -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("model.txt", "weights" * 100)
    return buffer.getvalue()


NOT_MODELS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is empty"),
    "text": (b"a text about models\n" * 30, "not an ONNX model"),
    "json": (b'{"weights": [1, 2, 3]}', "not an ONNX model"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(200), "not an ONNX model"),
    "pickle": (pickle.dumps({"weights": [1.0] * 99}), "not an ONNX model"),
    "zip": (archive(), "not an ONNX model"),
    "zeros": (bytes(4096), "not an ONNX model"),
    "random": (np.random.default_rng(3).bytes(5000), "not an ONNX model"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "not an ONNX model"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "not an ONNX model"),
    "an open field": (b"\x0a", "not an ONNX model"),
    "no graph": (b"\x08\x08", "no graph"),
    "empty graph": (b"\x08\x08\x3a\x00", "no nodes"),
}


@pytest.mark.parametrize("kind", NOT_MODELS)
@pytest.mark.parametrize("command", [[], ["inspect"]])
def test_files_that_are_no_model(
    kind: str, command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    data, words = NOT_MODELS[kind]
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    sentence = refused([*command, str(path)], tmp_path, capsys)
    assert words in sentence
    assert str(path) in sentence


def test_truncated_at_any_byte(tmp_path: Path, capsys: Capture) -> None:
    data = mlp((16, 24, 10)).SerializeToString()
    path = tmp_path / "m.onnx"
    for size in [*range(0, 40), *range(40, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:size])
        assert "m.onnx" in refused([str(path)], tmp_path, capsys)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
@pytest.mark.parametrize("make", [None, Path.mkdir, fifo, dangling, link_to_itself])
def test_paths_that_are_no_file(
    make: Callable[[Path], None] | None, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "odd.onnx"
    if make is not None:
        make(path)
    assert str(path) in refused([str(path)], tmp_path, capsys)
    assert str(path) in refused(["inspect", str(path)], tmp_path, capsys)


@pytest.mark.parametrize("name", ["n" * 300, "a/" * 3000 + "m.onnx", "", "a\nb\x1b[2J.onnx"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path, capsys: Capture) -> None:
    refused([str(tmp_path / name)], tmp_path, capsys)


def test_nothing_prunable(tmp_path: Path, capsys: Capture) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [1])],
        [helper.make_tensor_value_info("y", 1, [1])],
    )
    path = saved(helper.make_model(graph), tmp_path / "relu.onnx")
    assert "nothing to prune" in refused([str(path)], tmp_path, capsys)


WRONG_USAGE: dict[str, tuple[list[str], str]] = {
    "q negative": (["-q", "-1"], "quality is -1.0"),
    "q nan": (["-q", "nan"], "quality is nan"),
    "q infinite": (["-q", "inf"], "quality is inf"),
    "q text": (["-q", "high"], "high"),
    "q twice as large as a float": (["-q", "1e999"], "quality is inf"),
    "sparsity one": (["--sparsity", "1"], "sparsity is 1.0"),
    "sparsity negative": (["--sparsity", "-0.1"], "sparsity is -0.1"),
    "sparsity nan": (["--sparsity", "nan"], "sparsity is nan"),
    "sparsity text": (["--sparsity", "90%"], "90%"),
    "sparsity and q": (["--sparsity", "0.5", "-q", "1"], "exclude each other"),
    "layer without q": (["--layer", "fc0*"], "not of the form GLOB=Q"),
    "layer with an empty q": (["--layer", "fc0*="], "not of the form GLOB=Q"),
    "layer without a glob": (["--layer", "=1"], "not of the form GLOB=Q"),
    "layer with a text": (["--layer", "fc0*=much"], "no quality after its last '='"),
    "layer with a negative q": (["--layer", "fc0*=-1"], "quality of layer override"),
    "layer with nan": (["--layer", "fc0*=nan"], "quality of layer override"),
    "layer glob unknown": (["--layer", "fc0.wieght=1"], "near names: 'fc0.weight'"),
    "exclude glob unknown": (["--exclude", "fc0.wieght"], "near names: 'fc0.weight'"),
    "glob that is no regular expression": (["--exclude", "fc[0"], "matches no layer"),
    "glob with an escape": (["--exclude", "\x1b[31m"], r"\x1b[31m"),
    "format": (["--format", "zip"], "zip"),
    "unknown option": (["--prune"], "--prune"),
    "json is the output": (["--json", "x", "-o", "x"], "both"),
}


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage(case: str, model: Path, capsys: Capture) -> None:
    options, words = WRONG_USAGE[case]
    assert words in refused([str(model), *options], model.parent, capsys, code=2)


def test_output_folder_is_missing(model: Path, tmp_path: Path, capsys: Capture) -> None:
    target = str(tmp_path / "no" / "out.onnx")
    assert "does not exist" in refused([str(model), "-o", target], tmp_path, capsys)
    report = str(tmp_path / "no" / "r.json")
    assert "does not exist" in refused([str(model), "--json", report], tmp_path, capsys)
    assert "does not exist" in refused(["inspect", str(model), "--json", report], tmp_path, capsys)


def same_path(model: Path) -> Path:
    return model


def symbolic_link(model: Path) -> Path:
    (model.parent / "link.onnx").symlink_to(model.name)
    return model.parent / "link.onnx"


def hard_link(model: Path) -> Path:
    os.link(model, model.parent / "hard.onnx")
    return model.parent / "hard.onnx"


def through_a_folder(model: Path) -> Path:
    (model.parent / "sub").mkdir()
    return model.parent / "sub" / ".." / model.name


def through_a_linked_folder(model: Path) -> Path:
    (model.parent / "here").symlink_to(model.parent, target_is_directory=True)
    return model.parent / "here" / model.name


def relative(model: Path) -> Path:
    return Path(os.path.relpath(model))


SAME = [same_path, symbolic_link, hard_link, through_a_folder, through_a_linked_folder, relative]


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("option", ["-o", "--json"])
def test_the_input_is_never_the_output(
    name: Callable[[Path], Path], option: str, model: Path, capsys: Capture
) -> None:
    target = str(name(model))
    sentence = refused([str(model), option, target, "--overwrite"], model.parent, capsys)
    assert "input" in sentence


@pytest.mark.parametrize("option", ["-o", "--json"])
@pytest.mark.parametrize("name", [same_path, symbolic_link, hard_link])
def test_the_data_of_the_input_is_never_the_output(
    option: str, name: Callable[[Path], Path], external: Path, capsys: Capture
) -> None:
    data = name(external.with_name("e.onnx.bin"))
    arguments = [str(external), option, str(data), "--overwrite"]
    assert "input" in refused(arguments, external.parent, capsys)


def test_inspect_spares_the_data_of_its_input(external: Path, capsys: Capture) -> None:
    data = str(external.with_name("e.onnx.bin"))
    arguments = ["inspect", str(external), "--json", data, "--overwrite"]
    assert "input" in refused(arguments, external.parent, capsys)


@pytest.mark.parametrize("name", ["out.onnx", "out.onnx.data"])
def test_the_json_spares_what_was_just_written(name: str, external: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    plain = [str(external), "-o", str(out), "--overwrite", "--quiet", "--format", "dense"]
    assert main(plain) == 0
    written = state(tmp_path)
    assert main([*plain, "--json", str(tmp_path / name)]) != 0
    assert state(tmp_path) == written


def test_output_exists(model: Path, tmp_path: Path, capsys: Capture) -> None:
    for name in ("m.pruned.onnx", "other.onnx"):
        (tmp_path / name).write_bytes(b"precious")
    assert "--overwrite" in refused([str(model)], tmp_path, capsys)
    other = str(tmp_path / "other.onnx")
    assert "--overwrite" in refused([str(model), "-o", other], tmp_path, capsys)
    assert "--overwrite" in refused([str(model), "--json", other], tmp_path, capsys)


def test_output_is_a_folder(model: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "out").mkdir()
    for option in ("-o", "--json"):
        arguments = [str(model), option, str(tmp_path / "out"), "--overwrite"]
        assert "is a folder" in refused(arguments, tmp_path, capsys)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no device files")
def test_output_is_a_device(model: Path, tmp_path: Path, capsys: Capture) -> None:
    arguments = [str(model), "-o", "/dev/null", "--overwrite"]
    assert "not a regular file" in refused(arguments, tmp_path, capsys)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_output_name_is_too_long(model: Path, tmp_path: Path, capsys: Capture) -> None:
    refused([str(model), "-o", str(tmp_path / ("n" * 300))], tmp_path, capsys)


def test_dry_run_writes_nothing_at_all(model: Path, tmp_path: Path, capsys: Capture) -> None:
    before = state(tmp_path)
    assert main([str(model), "--dry-run"]) == 0
    assert "would" in capsys.readouterr().out.lower()
    assert state(tmp_path) == before
    assert onnx.load(model) == mlp((24, 40, 10))
