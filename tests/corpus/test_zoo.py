"""Real models of many exporters: pruned, stored and run as a second count says they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.config import Format
from tests.corpus.zoo import REJECTED, Outcome, check, models

NAMES = [path.stem for path in models()] or ["(none)"]
#: Weights are made at run time here: nothing to prune.
NOTHING = ("onnx_light_", "melspec_wml")
#: Running these takes seconds; onnxprune's own run of its output adds nothing to the one here.
HEAVY = ("style_candy", "onnx_light_vgg19", "onnx_light_resnet50")
#: Graphs that differ most: bodies in bodies, all weights constants, IR 3, weights as inputs,
#: shared weights, float16, recurrent, mostly zero.
SAMPLE = (
    "silero_vad_16k_op15",
    "silero_vad_openvino_16k",
    "silero_vad_v4",
    "mnist_cntk_v2ops_ort",
    "ultraface_slim320",
    "vnn23_nn4sys_pensieve_mid_parallel",
    "squeezenet_fp16",
    "dtln_model_1",
    "vnn23_ml4acopf_118",
    "vnn23_tll_n2_24",
    "vnn23_cgan32_nonlinear",
    "vnn23_collins_rul_full40",
)


def checked(zoo: Path, name: str, quality: float, form: Format, folder: Path) -> Outcome:
    own_check = not name.startswith(HEAVY)
    outcome = check(zoo / f"{name}.onnx", quality, form, folder, own_check=own_check)
    assert not outcome.problems
    if not outcome.refusal:
        assert (outcome.outputs == "not run") == (name in REJECTED)
    return outcome


@pytest.mark.parametrize("name", NAMES)
def test_quality_0_changes_nothing(zoo: Path, name: str, tmp_path: Path) -> None:
    outcome = checked(zoo, name, 0.0, "sparse", tmp_path)
    assert not outcome.refusal
    assert outcome.kept == outcome.alive
    assert outcome.outputs in ("identical", "not run")


@pytest.mark.parametrize("name", NAMES)
def test_quality_1_prunes_what_a_second_count_says(zoo: Path, name: str, tmp_path: Path) -> None:
    outcome = checked(zoo, name, 1.0, "sparse", tmp_path)
    if name.startswith(NOTHING):
        assert outcome.refusal.startswith("nothing to prune")
    else:
        assert not outcome.refusal
        assert outcome.weights > 0


@pytest.mark.parametrize("form", ["constant", "gaps", "dense"])
@pytest.mark.parametrize("name", SAMPLE)
def test_other_formats_hold_the_same(zoo: Path, name: str, form: Format, tmp_path: Path) -> None:
    assert not checked(zoo, name, 1.0, form, tmp_path).refusal


@pytest.mark.parametrize("form", ["constant", "gaps", "dense"])
def test_mostly_zero_model_is_the_same_in_other_formats(
    zoo: Path, form: Format, tmp_path: Path
) -> None:
    assert checked(zoo, "vnn23_tll_n2_24", 0.0, form, tmp_path).outputs == "identical"
