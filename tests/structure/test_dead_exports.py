"""Dead neurons in networks that PyTorch exported."""

from __future__ import annotations

import pytest

from tests.structure.dying import damaged, prove_constants, prove_shrunk

torch = pytest.importorskip("torch")

from tests.structure.test_exports import CASES, exported, samples  # noqa: E402


@pytest.mark.parametrize("name", CASES)
def test_exported(name: str) -> None:
    model, feeds = exported(name, False), [samples(CASES[name][1], batch) for batch in (1, 3)]
    removed = 0
    for seed, rate in ((1, 0.15), (2, 0.5)):
        dying = damaged(model, seed, rate)
        prove_constants(dying, feeds)
        removed += prove_shrunk(dying, feeds).removed
        prove_shrunk(dying, feeds, align=4)
    assert removed
