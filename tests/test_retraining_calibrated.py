"""Pruning, repairing and retraining in rounds: resuming bit for bit, other calibrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import Interrupted, UsageError
from tests.test_retraining import (
    DROPOUT,
    LSTM,
    LSTM_SHAPES,
    Scenario,
    counted,
    half,
    interrupting,
    saved,
)
from tests.training.nets import MLP_SHAPES, data, model

#: A layer without a bias: a repair adds one. The data for calibration are others than for training.
CALIBRATED = {"sparsity": 0.6, "calibrate": {"x": data(70, seed=5)["x"]}}
REFITTED = Scenario(
    model(DROPOUT.replace(", b1)", ")").replace(", b2)", ")"), MLP_SHAPES),
    {"rounds": 3},
    prune=CALIBRATED,
)
MATCHED = Scenario(
    half(model(LSTM.replace(", b1)", ")"), LSTM_SHAPES)),
    {"rounds": 2},
    val=False,
    prune={
        "quality": 0.8,
        "calibrate": data(70, seed=5)["x"].astype(np.float16),
        "repair": "match",
    },
)


@pytest.mark.parametrize("scenario", [REFITTED, MATCHED], ids=["refitted", "matched"])
def test_an_interrupted_run_ends_with_the_same_bytes(scenario: Scenario, tmp_path: Path) -> None:
    """Biases that repairs have added, and whatever else they changed, are in the checkpoint."""
    whole, calls = counted(scenario, tmp_path / "whole.onnx")
    for number in sorted({2, 3, calls // 2 + 1, calls - 1, calls}):
        folder = tmp_path / f"state{number}"
        with pytest.raises(Interrupted, match="--resume"):
            scenario.run(folder, hook=interrupting(number))
        resumed = scenario.run(folder, resume=True)
        assert saved(resumed, tmp_path / "resumed.onnx") == whole, number


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"repair": "match"}, r"another calibration \('refit, 70 samples .* 'match, 70 samples"),
        ({"samples": 60}, r"another calibration \('refit, 70 samples .* 'refit, 60 samples"),
        ({"calibrate": {"x": data(70, seed=6)["x"]}}, "another calibration .* digest"),
        ({"calibrate": None}, "another calibration .* '' now"),
    ],
)
def test_another_calibration_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    scenario = REFITTED
    with pytest.raises(Interrupted):
        scenario.run(tmp_path, hook=interrupting(4))
    other = replace(scenario, prune={**CALIBRATED, **change})
    with pytest.raises(UsageError, match=says):
        other.run(tmp_path, resume=True)
