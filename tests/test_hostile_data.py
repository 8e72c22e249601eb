"""External data that a hostile model names: outside its folder, no files, or beyond their ends."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune.cli import main
from tests.builders import mlp, saved

Capture = pytest.CaptureFixture[str]

EXTERNAL: dict[str, tuple[dict[str, str], str]] = {
    "absolute": ({"location": "/etc/passwd"}, "an absolute path"),
    "device": ({"location": "/dev/zero"}, "an absolute path"),
    "parent": ({"location": "../secret.bin"}, "outside the model's folder"),
    "parent of a folder": ({"location": "sub/../../secret.bin"}, "outside the model's folder"),
    "link": ({"location": "link.bin"}, "a symbolic link"),
    "link to itself": ({"location": "loop.bin"}, "a symbolic link"),
    "below a link": ({"location": "up/secret.bin"}, "a symbolic link"),
    "fifo": ({"location": "fifo"}, "not a regular file"),
    "folder": ({"location": "sub"}, "not a regular file"),
    "beyond": ({"offset": "4096"}, "ends at byte"),
    "far beyond": ({"offset": str(2**62)}, "no number of bytes"),
    "past int64": ({"offset": str(2**64)}, "no number of bytes"),
    "too long": ({"length": str(2**40)}, "where its shape needs"),
    "negative": ({"length": "-1"}, "no number of bytes"),
    "terminal escapes": ({"location": "\x1b[2J\n"}, "does not exist"),
}


def external(folder: Path, **entries: str) -> Path:
    """A model whose first weight is in m.bin, beside traps of every kind."""
    model = mlp((24, 40, 10))
    tensor = model.graph.initializer[0]
    (folder / "m.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "m.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    (folder.parent / "secret.bin").write_bytes(b"secret" * 4096)
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "loop.bin").symlink_to("loop.bin")
    (folder / "up").symlink_to("..")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "fifo")
    return saved(model, folder / "m.onnx")


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data_elsewhere(case: str, inside: Path, capsys: Capture) -> None:
    entries, words = EXTERNAL[case]
    path = external(inside, **entries)
    (inside / "up").unlink() if case != "below a link" else None  # `state` would follow it
    before = sorted(inside.iterdir())
    code = main([str(path), "--overwrite"])
    captured = capsys.readouterr()
    assert code == 1
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err[:-1].isprintable()
    assert "secret" not in captured.out
    assert sorted(inside.iterdir()) == before


def test_overlapping_external_data_is_read_and_written_apart(inside: Path) -> None:
    model = mlp((24, 40, 40))
    whole = np.arange(40 * 40 + 24 * 40, dtype=np.float32)
    whole.tofile(inside / "m.bin")
    places = {"fc0.weight": 0, "fc1.weight": 400}
    for tensor in model.graph.initializer:
        if tensor.name in places:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="m.bin")
            tensor.external_data.add(key="offset", value=str(places[tensor.name]))
    path = saved(model, inside / "m.onnx")
    assert main([str(path), "-q", "0.5"]) == 0
    assert (inside / "m.bin").read_bytes() == whole.tobytes()
    written = onnx.load(inside / "m.pruned.onnx")
    onnx.checker.check_model(written)
