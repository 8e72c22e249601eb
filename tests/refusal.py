"""What every refused command must look like, whatever was wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.cli import main

#: Names, bytes and link targets of everything below a folder.
State = dict[str, bytes]


def state(folder: Path) -> State:
    """Everything below a folder, to be compared before and after."""
    found: State = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = b"link to " + str(path.readlink()).encode()
        else:
            found[name] = path.read_bytes() if path.is_file() else b"folder"
    return found


def refused(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str], code: int = 1
) -> str:
    """Run the command, see it refuse cleanly and write nothing, and return its sentence."""
    before = state(folder)
    result = main(arguments)
    captured = capsys.readouterr()
    assert captured.err.startswith("onnxprune: "), captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert captured.err[:-1].isprintable()
    assert "internal error" not in captured.err
    assert "Traceback" not in captured.err
    assert result == code, captured.err
    assert captured.out == ""
    assert state(folder) == before
    return captured.err.removeprefix("onnxprune: ").rstrip("\n")
