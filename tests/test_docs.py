"""The examples of docs/oneshot.md run, and print what stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from onnxprune.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "oneshot.md").read_text("utf-8")
#: A command, continued lines joined, and the indented lines that follow it.
EXAMPLE = re.compile(r"^    \$ onnxprune ((?:.*\\\n)*.*)\n\n((?:    .*\n|\n)*)", re.MULTILINE)
EXAMPLES = EXAMPLE.findall(TEXT)
AFTER = re.compile(r"accuracy +top-1 accuracy [\d.]+% -> ([\d.]+)%")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=lambda text: text[:50])
def test_a_command_prints_what_stands_below_it(
    command: str,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert main([*shlex.split(command.replace("\\\n", " ")), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    (expected,), (found,) = AFTER.findall(printed), AFTER.findall(shown)
    assert float(found) == pytest.approx(float(expected), abs=1.0)
    for line in printed.splitlines():
        label = line.strip().split("  ")[0]
        if label in ("chosen by", "not repaired"):
            said = line.strip().removeprefix(label).strip()
            assert said in shown


def test_python_blocks_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/oneshot.md", "exec"), {})
    assert "conv2.weight refit" in capsys.readouterr().out
