"""When masks are decided on again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.training.timetable import INTERVAL, Timetable


def table(ramp: float = 0.5, settled: float = 0.75, *, falls: bool = False) -> Timetable:
    return Timetable(lambda done: 1 - (1 - done) ** 3, ramp, settled, falls)


def looks(timetable: Timetable, steps: int, seed: int = 0) -> list[int]:
    return [
        step
        for step in range(1, steps + 1)
        if timetable.looks(step, (step - 1) / steps, step / steps, seed)
    ]


def test_height_rises_over_the_ramp_and_is_full_where_masks_settle() -> None:
    assert [table().height(done) for done in (0.0, 0.25, 0.5, 0.7)] == [0.0, 0.875, 1.0, 1.0]
    assert table(ramp=0.0).height(0.0) == 1.0
    assert table(ramp=1.0, settled=0.5).height(0.5) == 1.0, "no time is left to rise in"


def test_masks_are_looked_at_in_intervals_and_once_more_where_they_settle() -> None:
    assert looks(table(), 100) == [*range(INTERVAL, 75, INTERVAL), 75]


@given(st.floats(0, 0.99), st.integers(1, 300), st.booleans(), st.integers(0, 9))
def test_the_last_look_comes_where_masks_settle(
    settled: float, steps: int, falls: bool, seed: int
) -> None:
    timetable = table(settled=1 - settled, falls=falls)
    *_, last = looks(timetable, steps, seed)
    assert last / steps >= 1 - settled > (last - 1) / steps
    assert timetable.height(last / steps) == 1.0


def test_looks_become_fewer_with_splicing() -> None:
    steps = 40_000
    found = looks(table(settled=1.0, falls=True), steps)
    first = sum(step <= steps // 10 for step in found) * INTERVAL / (steps / 10)
    last = sum(step > steps - steps // 10 for step in found) * INTERVAL / (steps / 10)
    # Means of 1 / (1 + 9 t): over the first tenth ln(1.9) / 0.9, over the last ln(10 / 9.1) / 0.9.
    assert first == pytest.approx(0.713, abs=0.08)
    assert last == pytest.approx(0.105, abs=0.06)


def test_a_jump_over_the_end_is_seen() -> None:
    assert table().looks(3, 0.5, 1.0, 0)
    assert not table().looks(16, 0.75, 0.76, 0)
