"""Recipes: bundles of settings with names, open to change, and what the report says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import UsageError
from onnxprune.finetune import FineTune, RecipeName
from onnxprune.recipes import RECIPES, recipe_text
from tests.training.nets import data, mlp


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_every_recipe_is_valid_and_differs_from_the_defaults(name: Any) -> None:
    settings = onnxprune.recipe(name)
    assert settings.recipe == name
    for field, value in RECIPES[name].settings.items():
        assert getattr(settings, field) == value
    assert recipe_text(settings) == f"{name} ({RECIPES[name].source})"
    assert set(RECIPES) == set(get_args(RecipeName))


def test_the_paper_s_own_method() -> None:
    settings = onnxprune.recipe("han2015")
    assert (settings.method, settings.optimizer, settings.l2) == ("iterative", "sgd", 5e-4)
    assert settings.rate == pytest.approx(0.01 / 10), "a tenth of Caffe's rate for LeNet"
    assert settings.rounds > 1


def test_a_setting_beside_it_counts_and_is_said() -> None:
    settings = onnxprune.recipe("han2015", rounds=5, optimizer="adamw", lr=0.01)
    assert (settings.rounds, settings.optimizer, settings.l2) == (5, "adamw", 5e-4)
    assert recipe_text(settings).endswith(", with rounds 5, optimizer adamw")


def test_plain_settings_have_no_recipe() -> None:
    assert FineTune().recipe is None
    assert recipe_text(FineTune()) == ""
    with pytest.raises(TypeError):
        FineTune(recipe="han2015")  # type: ignore[call-arg]


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="recipe 'han2016' is unknown: choose one of han2015"):
        onnxprune.recipe(cast(Any, "han2016"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(mlp(), "mlp.onnx")
    np.savez("train.npz", **data(24))  # type: ignore[arg-type]
    return tmp_path


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_the_command_line_says_it(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    given = f"mlp.onnx --train train.npz -q 1 --recipe {name} --epochs 2 --dry-run"
    assert main(given.split()) == 0
    printed = capsys.readouterr().out
    said = f"recipe {name} ({RECIPES[cast(RecipeName, name)].source})"
    assert said in " ".join(printed.split())
    changed = "epochs" in RECIPES[cast(RecipeName, name)].settings
    assert (", with epochs 2" in printed) == changed


def test_flags_beside_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["mlp.onnx", "--train", "train.npz", "--recipe", "han2015", "--epochs", "1", "--dry-run"]
    assert main([*base, "--rounds", "1", "--momentum", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert "with rounds 1" in printed and "momentum 0.5" in printed
    assert main([*base, "--optimizer", "adamw", "--momentum", "0.5"]) == 2
    assert "--momentum has no effect on adamw" in capsys.readouterr().err
    assert main(["mlp.onnx", "--recipe", "han2015"]) == 2
    assert "--recipe has no effect without --train" in capsys.readouterr().err
