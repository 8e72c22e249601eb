"""FineTune: defaults, validation, the schedule of rounds, and one docstring a field."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.finetune import FineTune, RoundsSchedule, parse_class_weights
from onnxprune.options import flag_help


def test_the_learning_rate_is_a_tenth_of_the_usual_one() -> None:
    assert FineTune().rate == pytest.approx(1e-4)
    assert FineTune(optimizer="sgd").rate == pytest.approx(1e-3)
    assert FineTune(optimizer="sgd", lr=0.5).rate == 0.5


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("linear", [0.25, 0.5, 0.75, 1.0]),
        # Zhu & Gupta 2017: s_t = s_f + (s_i - s_f) (1 - t/n)^3 with s_i = 0, s_f = 1.
        ("cubic", [1 - 27 / 64, 1 - 8 / 64, 1 - 1 / 64, 1.0]),
    ],
)
def test_the_threshold_rises_over_the_rounds(schedule: Any, shares: list[float]) -> None:
    config = FineTune(rounds=4, rounds_schedule=schedule)
    assert [config.quality_share(r) for r in range(1, 5)] == pytest.approx(shares)


@given(st.integers(1, 200), st.sampled_from(["linear", "cubic"]))
def test_the_threshold_rises_to_its_full_height(rounds: int, schedule: RoundsSchedule) -> None:
    config = FineTune(rounds=rounds, rounds_schedule=schedule)
    shares = [config.quality_share(r) for r in range(1, rounds + 1)]
    assert shares[0] > 0
    assert all(one < other for one, other in pairwise(shares))
    assert shares[-1] == 1.0, "exactly: the last round prunes as asked"


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"epochs": 0}, "epochs is 0: give a whole number of at least 1"),
    ({"epochs": 2.0}, "epochs is 2.0"),
    ({"epochs": True}, "epochs is True"),
    ({"epochs": None}, "epochs is None"),
    ({"rounds": 0}, "rounds is 0"),
    ({"method": "greedy"}, "is unknown: choose one of iterative, gradual"),
    ({"method": "splicing"}, "would bring back the wrong ones: choose the optimizer sgd"),
    ({"method": "splicing", "rounds": 2}, "method splicing prunes while it trains, once"),
    ({"method": "gradual", "patience": 1}, "patience stops where the metric gets no better"),
    ({"method": "gradual", "engine": "onnxruntime-training"}, "cannot change masks"),
    ({"method": "gradual", "ramp": 1.1}, "ramp is 1.1: give a share from 0 to 1"),
    ({"method": "gradual", "settle": 1.0}, "settle is 1.0: give a share from 0 up to but not"),
    ({"ramp": 0.1}, "ramp and settle are shares of a training that prunes: choose the method"),
    ({"saliency": "taylor"}, "saliency 'taylor' is unknown: choose one of magnitude, fisher"),
    ({"saliency": "fisher"}, "in which weights go: choose the method gradual"),
    (
        {"saliency": "fisher", "method": "splicing", "optimizer": "sgd"},
        "in which weights go: choose the method gradual",
    ),
    (
        {"saliency": "fisher", "method": "gradual", "optimizer": "sgd"},
        "mean squared gradients that adamw keeps: choose that optimizer",
    ),
    ({"saliency": "fisher", "method": "gradual", "ramp": 0.0}, "give a longer ramp"),
    ({"rounds_schedule": "steep"}, "rounds-schedule 'steep' is unknown: choose one of cubic"),
    ({"lr": 0.0}, "lr is 0.0"),
    ({"lr": math.inf}, "lr is inf"),
    ({"lr": "0.1"}, "lr is '0.1'"),
    ({"lr_schedule": "linear"}, "lr-schedule 'linear' is unknown"),
    ({"optimizer": "adam"}, "optimizer 'adam' is unknown: choose one of adamw, sgd"),
    ({"momentum": 1.0}, "momentum is 1.0"),
    ({"momentum": -0.1}, "momentum is -0.1"),
    ({"momentum": math.nan}, "momentum is nan"),
    ({"nesterov": True}, "nesterov is a form of the momentum of sgd"),
    ({"nesterov": True, "optimizer": "sgd", "momentum": 0.0}, "nesterov"),
    ({"l2": -1.0}, "l2 is -1.0"),
    ({"l2": math.inf}, "l2 is inf"),
    ({"batch_size": 0}, "batch-size is 0"),
    ({"clip_norm": 0.0}, "clip-norm is 0.0"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**63}, "seed is 9223372036854775808"),
    ({"train_layers": "conv*"}, "train-layers is the single text"),
    ({"train_layers": ("",)}, "no glob"),
    ({"patience": 0}, "patience is 0"),
    ({"checkpoint": 3}, "checkpoint is 3: give the path of a folder"),
    ({"resume": True}, "resume needs a checkpoint"),
    ({"distill": True, "distill_weight": 1.1}, "distill-weight is 1.1: give a share from 0 to 1"),
    ({"distill_weight": 0.5}, "distill-weight mixes"),
    ({"temperature": 0.0}, "temperature is 0.0"),
    ({"loss": "hinge"}, "loss 'hinge' is unknown"),
    ({"class_weights": (1.0, -1.0)}, "a weight of class-weights is -1.0"),
    ({"class_weights": (0.0, 0.0)}, "class-weights weighs no class"),
    ({"class_weights": ()}, "class-weights weighs no class"),
    ({"class_weights": "12"}, "class-weights is the single text"),
    ({"label_smoothing": 1.0}, "label-smoothing is 1.0"),
    ({"bn": "off"}, "bn 'off' is unknown"),
    ({"engine": "torch"}, "engine 'torch' is unknown"),
]


@pytest.mark.parametrize(("options", "words"), NONSENSE)
def test_nonsense_is_refused_in_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        FineTune(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ":" in str(caught.value), "says what to do"


def test_every_field_that_can_be_wrong_is_checked() -> None:
    checked = {name for options, _ in NONSENSE for name in options}
    names = {field.name for field in dataclasses.fields(FineTune) if field.init}
    assert names - checked == set()


def test_limits_are_values() -> None:
    config = FineTune(
        momentum=0.0, l2=0.0, seed=2**63 - 1, label_smoothing=0.0, distill=True, distill_weight=0.0
    )
    assert (config.l2, config.distill_weight) == (0.0, 0.0)
    assert FineTune(distill=True, distill_weight=1.0).distill_weight == 1.0


def test_values_of_other_kinds_become_plain() -> None:
    config = FineTune(
        epochs=cast(int, np.int32(3)),
        lr=cast(float, np.float32(0.5)),
        clip_norm=1,
        checkpoint=cast(Path, "folder"),
        resume=True,
        train_layers=cast(Any, ["a*", "b"]),
        class_weights=cast(Any, np.array([1, 2.5])),
    )
    assert (type(config.epochs), type(config.lr), type(config.clip_norm)) == (int, float, float)
    assert config.checkpoint == Path("folder")
    assert config.train_layers == ("a*", "b")
    assert config.class_weights == (1.0, 2.5)


def test_a_function_is_a_loss() -> None:
    def loss(builder: Any, outputs: Any, targets: Any) -> str:
        return "loss"

    assert FineTune(loss=loss).loss is loss


def test_patience_needs_validation_data() -> None:
    with pytest.raises(UsageError, match="patience watches a metric on validation data: give val"):
        FineTune(patience=2).check_validation(None)
    FineTune(patience=2).check_validation("val.npz")
    FineTune().check_validation(None)


@pytest.mark.parametrize(
    ("texts", "weights"),
    [(["1,1,2.5"], (1.0, 1.0, 2.5)), (["1", "2"], (1.0, 2.0)), (["1, 2", "3"], (1.0, 2.0, 3.0))],
)
def test_class_weights(texts: list[str], weights: tuple[float, ...]) -> None:
    assert parse_class_weights(texts) == weights


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1;2"])
def test_bad_class_weights(text: str) -> None:
    with pytest.raises(UsageError, match="no number: write for example"):
        parse_class_weights([text])


def test_every_field_has_help_that_reaches_the_docstring() -> None:
    for field in dataclasses.fields(FineTune):
        assert flag_help(FineTune, field.name).endswith(".")
        assert flag_help(FineTune, field.name) in (FineTune.__doc__ or "")


def test_help_names_the_defaults() -> None:
    for name in ("epochs", "rounds", "momentum", "l2", "batch_size", "seed", "temperature"):
        default = getattr(FineTune(), name)
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert f"The default is {shown}." in flag_help(FineTune, name) or (
            f"The default is {shown};" in flag_help(FineTune, name)
        )
    for name in ("rounds_schedule", "lr_schedule", "optimizer", "loss", "bn", "engine"):
        default = getattr(FineTune(), name)
        assert default in flag_help(FineTune, name)
        assert "default" in flag_help(FineTune, name)


def test_settings_are_frozen_and_equal_by_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FineTune().epochs = 2  # type: ignore[misc]
    assert FineTune(lr=1) == FineTune(lr=1.0)


def test_importing_it_costs_little() -> None:
    code = (
        "import sys, onnxprune.finetune;"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'rich', 'cyclopts'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
