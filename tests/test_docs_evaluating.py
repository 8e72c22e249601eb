"""The commands of docs/evaluating.md run, and print the tables that stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cli import main
from tests.builders import mlp

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "evaluating.md").read_text("utf-8")
EXAMPLE = re.compile(r"^((?:    \$ onnxprune .*\n)+)\n((?:    .*\n|\n)*)", re.MULTILINE)
EXAMPLES = EXAMPLE.findall(TEXT)
SHARE = re.compile(r"(\d+\.\d+)%")


def rows(text: str) -> dict[str, list[float]]:
    """Percentages of every table row, by its first two words."""
    found = {}
    for line in text.splitlines():
        words, shares = line.split(), [float(share) for share in SHARE.findall(line)]
        if len(words) > 5 and shares:
            found[" ".join(words[:2])] = shares
    return found


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("commands", "printed"), EXAMPLES, ids=lambda text: text[:50])
def test_commands_print_what_stands_below_them(
    commands: str,
    printed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    for command in commands.splitlines():
        arguments = shlex.split(command.removeprefix("    $ onnxprune "))
        arguments += ["-o", "out.onnx"] if "--max-drop" in arguments else []
        assert main(arguments) == 0
    shown = rows(capsys.readouterr().out)
    expected = {name: shares for name, shares in rows(printed).items() if name in shown}
    assert len(expected) >= 2
    for name, shares in expected.items():
        # A sample more or less is 0.28 points; another runtime may round it to the other side.
        assert shown[name] == pytest.approx(shares, abs=0.6), name


def test_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = mlp((12, 60, 40, 6))
    x = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    onnx.save(model, "model.onnx")
    onnx.save(model, "small.onnx")
    np.savez("val.npz", x=x, labels=np.arange(200) % 6)
    np.savez("inputs.npz", x=x)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    ours = [block for block in blocks if "yardstick" not in block]
    assert len(ours) == 3
    for block in ours:
        code = block.replace('backend="dask"', 'backend="threading"')
        exec(compile(f"import onnxprune\n{code}", "docs/evaluating.md", "exec"), {})
    assert (tmp_path / "layers.svg").read_text().startswith("<svg")
    assert "sparsity" in capsys.readouterr().out
