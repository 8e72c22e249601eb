from __future__ import annotations

import time
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from onnxprune.comparison import interleaved
from onnxprune.comparison.interleaved import interleaved_seconds


class Fake:
    """A session that takes a known time and notes its turns."""

    def __init__(self, number: int, seconds: float, turns: list[int]) -> None:
        self.number, self.seconds, self.turns = number, seconds, turns

    def run(self, names: Any, feeds: Any) -> list[Any]:
        self.turns.append(self.number)
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        return []


def fakes(*seconds: float) -> tuple[list[Any], list[int]]:
    turns: list[int] = []
    return [Fake(number, each, turns) for number, each in enumerate(seconds)], turns


def test_models_take_turns_and_so_does_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "WARM_SECONDS", 0)
    sessions, turns = fakes(1e-3, 2e-3, 0)
    told: list[tuple[int, int]] = []
    taken = interleaved_seconds(
        sessions, [{}] * 3, runs=4, progress=lambda *state: told.append(state)
    )
    assert turns[:9] == [0, 1, 2] * 3, "the warm-up"
    rounds = [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]
    assert turns[9:] == [number for number in rounds for _ in range(2)]
    assert taken.shape == (3, 4)
    assert (taken[0] >= 1e-3).all()
    assert (taken[1] >= 2e-3).all()
    assert np.median(taken[2]) < 1e-3
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_warm_up_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaved, "WARM_SECONDS", 0.02)
    sessions, turns = fakes(0, 0)
    started = time.perf_counter()
    interleaved_seconds(sessions, [{}] * 2, runs=1)
    assert time.perf_counter() - started >= 0.04
    assert all(len(list(group)) == 1 for _, group in groupby(turns[:-4]))


@pytest.mark.parametrize(("seconds", "least", "most"), [(1e-6, 200, 200), (1.5e-3, 5, 6)])
def test_without_a_number_time_decides(
    seconds: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaved, "WARM_SECONDS", 0)
    monkeypatch.setattr(interleaved, "SECONDS", 0.015)
    sessions, _ = fakes(seconds)
    assert least <= interleaved_seconds(sessions, [{}]).shape[1] <= most
