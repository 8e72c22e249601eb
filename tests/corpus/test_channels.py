"""Real models without half of their channels compute what they do with zeros there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.channels import check
from tests.corpus.zoo import REJECTED, models

NAMES = [path.stem for path in models()] or ["(none)"]
#: Running this one takes seconds.
NAMES = [name for name in NAMES if name != "style_candy"]


@pytest.mark.parametrize("name", NAMES)
def test_half_of_every_group_goes(zoo: Path, name: str) -> None:
    outcome = check(zoo / f"{name}.onnx")
    assert not outcome.problems
    if outcome.sizes:
        assert outcome.parameters[1] < outcome.parameters[0]
        assert outcome.error is not None or name in REJECTED
    else:
        assert outcome.reasons
