"""Real models of many exporters, pruned and trained for a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.training import SETTINGS, check

#: Graphs that differ most: float16, a fixed batch that is freed, NHWC, attention, transposed
#: convolutions, weights as Constant nodes, several outputs, a batch that cannot be freed.
SAMPLE = (
    "squeezenet_fp16",
    "vnn21_cifar10_resnet_2b",
    "vnn21_cifar10_small",
    "vnn23_vit_ibp_3_3_8",
    "vnn23_cgan32_nonlinear",
    "dtln_model_1",
    "ultraface_slim320",
    "vnn23_nn4sys_pensieve_mid_parallel",
)


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("optimizer", sorted(SETTINGS))
def test_weights_move_and_pruned_ones_stay_zero(zoo: Path, name: str, optimizer: str) -> None:
    outcome = check(zoo / f"{name}.onnx", SETTINGS[optimizer], steps=3)
    assert not outcome.problems
    assert not outcome.refusal
    assert outcome.moved and (outcome.zeros or name == "dtln_model_1")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("silero_vad_v3", "LSTM 'LSTM_589'"),
        ("silero_vad_half", "If '/decoder/If'"),
    ],
)
def test_what_cannot_be_trained_is_named(zoo: Path, name: str, reason: str) -> None:
    outcome = check(zoo / f"{name}.onnx", SETTINGS["adamw"], steps=1)
    assert reason in outcome.refusal
    assert not outcome.problems
