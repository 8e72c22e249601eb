"""Gradients of moving space to channels and back."""

from __future__ import annotations

import importlib.util

import pytest

from tests.training.gradcheck import Case

TORCH = importlib.util.find_spec("torch") is not None
EVERY = ("static", "symbolic", "unranked")
SPACE = [
    Case("DepthToSpace", (2, 8, 1, 2), blocksize=2, modes=EVERY),
    Case("DepthToSpace", (1, 8, 2, 1), blocksize=2, mode="DCR", modes=EVERY),
    Case(
        "DepthToSpace",
        (2, 8, 1, 2),
        blocksize=2,
        mode="CRD",
        modes=EVERY,
        torch=lambda t, x: t.nn.functional.pixel_shuffle(x, 2),
    ),
    Case(
        "DepthToSpace",
        (1, 9, 2, 1),
        blocksize=3,
        mode="CRD",
        torch=lambda t, x: t.nn.functional.pixel_shuffle(x, 3),
    ),
    Case("SpaceToDepth", (2, 2, 4, 2), blocksize=2, modes=EVERY),
    Case(
        "SpaceToDepth",
        (1, 1, 3, 6),
        blocksize=3,
        torch=lambda t, x: t.nn.functional.pixel_unshuffle(x, 3),
    ),
]


@pytest.mark.parametrize("case", SPACE, ids=str)
def test_space_and_depth(case):
    case.check()
    if TORCH and case.check_.torch:
        case.check_torch()
