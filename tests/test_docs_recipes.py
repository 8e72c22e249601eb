"""docs/recipes.md: its table has the settings of every recipe, and its example prints that."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from onnxprune.cli import main
from onnxprune.finetune import FineTune
from onnxprune.recipes import RECIPES, recipe

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "recipes.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| .* \| `(--.*)` \|$", re.MULTILINE)
EXAMPLE = re.compile(r"^    \$ onnxprune ((?:.*\\\n)*.*)\n\n((?:    .*\n)*)", re.MULTILINE)


def test_every_recipe_has_its_row() -> None:
    assert [name for name, _ in ROW.findall(TEXT)] == list(RECIPES)


@pytest.mark.parametrize(("name", "flags"), ROW.findall(TEXT))
def test_a_row_gives_the_settings(name: Any, flags: str) -> None:
    words = shlex.split(flags)
    given = dict(zip(words[::2], words[1::2], strict=True))
    settings = recipe(name)
    for field in fields(FineTune):
        value, flag = getattr(settings, field.name), f"--{field.name.replace('_', '-')}"
        if flag in given:
            assert type(value)(given[flag]) == value
        elif field.init:
            assert value == field.default, field.name


@pytest.mark.parametrize(("command", "printed"), EXAMPLE.findall(TEXT))
def test_the_example_prints_what_stands_below_it(
    command: str,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    assert main([*shlex.split(command.replace("\\\n", " ")), "--dry-run"]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    accuracy, *others = [" ".join(line.split()) for line in printed.splitlines()]
    retrained = re.compile(r"([\d.]+)% retrained")
    (expected,), (found,) = retrained.findall(accuracy), retrained.findall("\n".join(shown))
    assert float(found) == pytest.approx(float(expected), abs=1.0)
    assert others and all(line in shown for line in others)
