"""Names in a model come from strangers: none may crash the command or drive the terminal."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from onnxprune.cli import main
from tests.builders import mlp
from tests.refusal import state

Capture = pytest.CaptureFixture[str]

NAMES = {
    "line end": b"w\ns",
    "escape": b"\x1b[31m",
    "nul": b"w\0s",
    "bell and backspace": b"w\x07\x08",
    "C1 control": "w\x9b31m".encode(),
    "right to left": "\u202ew\u2066".encode(),
    "not UTF-8": b"\xff\xfe\xfd",
    "half a character": b"w\xe2\x82",
    "surrogate": b"\xed\xa0\x80",
}


def named(name: bytes, place: str) -> bytes:
    """A model whose weights, nodes, input sizes or graph carry a hostile name."""
    plain = {"weight": b"fc0.weight", "node": b"relu0", "size": b"NNN", "value": b"h0"}[place]
    model = mlp((24, 40, 10))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "NNN"
    return model.SerializeToString().replace(plain, (name * len(plain))[: len(plain)])


@pytest.mark.parametrize("place", ["weight", "node", "size", "value"])
@pytest.mark.parametrize("name", NAMES)
def test_no_name_reaches_the_terminal_raw(
    name: str, place: str, tmp_path: Path, capsys: Capture
) -> None:
    data = named(NAMES[name], place)
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    for arguments in ([], ["--exclude", "zzz"], ["--format", "gaps", "--overwrite"]):
        code = main([str(path), *arguments])
        captured = capsys.readouterr()
        assert code in (0, 1, 2), captured.err
        assert captured.err.count("\n") == (code > 0)
        assert (captured.out + captured.err).replace("\n", "").isprintable()
    assert main(["inspect", str(path)]) in (0, 1)
    assert capsys.readouterr().out.replace("\n", "").isprintable()
    with suppress(FileNotFoundError):
        (tmp_path / "m.pruned.onnx").unlink()
    assert sorted(state(tmp_path)) == ["m.onnx"]
