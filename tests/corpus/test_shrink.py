"""Real models without their dead neurons compute what they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.shrink import QUALITIES, check
from tests.corpus.zoo import REJECTED, models

NAMES = [path.stem for path in models() if path.stem not in REJECTED] or ["(none)"]
#: Running this one takes seconds, and next to nothing of it is dead.
NAMES = [name for name in NAMES if name != "style_candy"]


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_pruned_model(zoo: Path, name: str, quality: float) -> None:
    outcome = check(zoo / f"{name}.onnx", quality)
    assert not outcome.problems
    assert outcome.said or outcome.error is not None


@pytest.mark.parametrize("name", ["vnn21_mnist_convnet_maxpool", "ultraface_slim320"])
def test_without_rounding(zoo: Path, name: str) -> None:
    rounded, whole = (check(zoo / f"{name}.onnx", 1.0, align) for align in (16, 1))
    assert not rounded.problems and not whole.problems
    assert rounded.left and not whole.left and whole.removed > rounded.removed
