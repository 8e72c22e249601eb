from __future__ import annotations

from typing import Any

import pytest

from onnxprune.errors import UsageError
from onnxprune.search.config import SPARSITIES, ScanConfig, parse_numbers


def test_settings() -> None:
    assert ScanConfig().sparsities == SPARSITIES
    assert ScanConfig(sparsities=(0.9, 0.5, 0.9)).sparsities == (0.5, 0.9)
    config = ScanConfig(qualities=(2, 1))  # type: ignore[arg-type]
    assert (config.sparsities, config.qualities) == ((), (1.0, 2.0))


def test_numbers_from_text() -> None:
    assert parse_numbers(None, "sparsities") == ()
    assert parse_numbers("0.5, 1e-1", "sparsities") == (0.5, 0.1)
    with pytest.raises(UsageError, match="sparsities has 'x', which is no number"):
        parse_numbers("0.5,x", "sparsities")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sparsities": (0.5,), "qualities": (1.0,)}, "exclude each other"),
        ({"sparsities": (1.0,)}, "a number of sparsities is 1.0: give a share above 0 and below 1"),
        ({"sparsities": (0,)}, "a number of sparsities is 0"),
        ({"sparsities": 0.5}, "give a sequence"),
        ({"qualities": (0.0,)}, "a number of qualities is 0.0"),
        ({"qualities": ("a",)}, "a number of qualities is 'a'"),
        ({"samples": 0}, "samples is 0"),
        ({"jobs": 0}, "jobs is 0"),
        ({"jobs": 1.5}, "jobs is 1.5"),
        ({"exclude": ("",)}, "no glob"),
    ],
)
def test_refusals(more: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        ScanConfig(**more)
    assert words in str(caught.value)
