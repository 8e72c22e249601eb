"""PruneConfig and OutputConfig: defaults, validation, and one docstring a field."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.config import OutputConfig, PruneConfig, parse_layer_override
from onnxprune.errors import UsageError
from onnxprune.options import flag_help


def test_the_default_is_quality_one() -> None:
    config = PruneConfig()
    assert (config.quality, config.sparsity, config.format) == (1.0, None, "sparse")


def test_a_sparsity_leaves_no_quality() -> None:
    config = PruneConfig(sparsity=0.9, scope="layer")
    assert (config.quality, config.sparsity, config.scope) == (None, 0.9, "layer")


def test_numbers_of_other_kinds_become_floats() -> None:
    config = PruneConfig(quality=cast(float, np.float32(0.5)), layers=(("a", 2), ("b", None)))
    assert type(config.quality) is float
    assert config.layers == (("a", 2.0), ("b", None))


def test_minus_zero_is_zero() -> None:
    assert math.copysign(1, PruneConfig(quality=-0.0).quality or 0.0) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quality": -1.0}, "quality is -1.0"),
        ({"quality": math.nan}, "quality is nan"),
        ({"quality": math.inf}, "quality is inf"),
        ({"quality": "1.0"}, "quality is '1.0'"),
        ({"quality": True}, "quality is True"),
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": -0.1}, "sparsity is -0.1"),
        ({"sparsity": math.nan}, "sparsity is nan"),
        ({"sparsity": 0.5, "quality": 1.0}, "exclude each other"),
        ({"scope": "layer"}, "scope layer"),
        ({"sparsity": 0.5, "scope": "row"}, "scope 'row' is unknown"),
        ({"format": "zip"}, "format 'zip' is unknown"),
        ({"exclude": "conv*"}, "single text"),
        ({"exclude": ("",)}, "no glob"),
        ({"layers": ("conv=1",)}, "pairs"),
        ({"layers": (("conv", -1.0),)}, "quality of layer override 'conv' is -1.0"),
        ({"layers": ((3, 1.0),)}, "3 is no glob"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        PruneConfig(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ":" in str(caught.value), "says what to do"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv*=0.4", ("conv*", 0.4)),
        ("a=b=2", ("a=b", 2.0)),
        ("fc=off", ("fc", None)),
        ("fc=OFF", ("fc", None)),
        ("/model/fc [1]=1e-3", ("/model/fc [1]", 0.001)),
    ],
)
def test_layer_overrides(text: str, expected: tuple[str, float | None]) -> None:
    assert parse_layer_override(text) == expected


@pytest.mark.parametrize("text", ["conv", "=1", "conv=", "conv=x", "conv=nan", "conv=-1", ""])
def test_bad_layer_overrides(text: str) -> None:
    with pytest.raises(UsageError, match="layer override"):
        parse_layer_override(text)


@given(st.text(min_size=1), st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_any_glob_and_quality_survive(glob: str, quality: float) -> None:
    assert parse_layer_override(f"{glob}={quality!r}") == (glob, quality)


def test_every_field_has_help_that_reaches_the_docstring() -> None:
    for config in (PruneConfig, OutputConfig):
        for field in dataclasses.fields(config):
            assert flag_help(config, field.name).endswith(".")
            assert flag_help(config, field.name) in (config.__doc__ or "")


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PruneConfig().quality = 2.0  # type: ignore[misc]


def test_the_json_report_needs_a_path_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both"):
        OutputConfig(output=tmp_path / "a", json=tmp_path / "." / "a")
    for role in ("val", "train"):
        with pytest.raises(UsageError, match=f"the JSON report and {role} are both"):
            OutputConfig(json=tmp_path / "a", **cast(Any, {role: str(tmp_path / "." / "a")}))
    assert OutputConfig(json=Path("-")).prints_json
    assert not OutputConfig(json=tmp_path / "a").prints_json


def test_data_is_not_overwritten_and_may_be_used_twice(tmp_path: Path) -> None:
    data = str(tmp_path / "data.npz")
    for role in ("val", "train"):
        with pytest.raises(UsageError, match=f"the output and {role} are both"):
            OutputConfig(output=tmp_path / "data.npz", **cast(Any, {role: data}))
    config = OutputConfig(output=tmp_path / "m.onnx", json=Path("-"), val=data, train=data)
    assert (config.val, config.train) == (data, data)
    assert OutputConfig(json=Path("-"), val="-").val == "-"
    assert OutputConfig(json=tmp_path / "a", train="package.module:batches").train
