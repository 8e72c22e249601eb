"""Progress: a passing line on a terminal, a line an epoch in a log, nothing for nobody."""

from __future__ import annotations

import dataclasses
import io
import re
import time
from typing import Any

import pytest

from onnxprune.report.format import display_width
from onnxprune.report.progress import TrainingState, progress_line, training_progress
from tests.report.terminal import Terminal

pytestmark = pytest.mark.usefixtures("plain_environment")

STATE = TrainingState(
    round=2,
    rounds=3,
    epoch=4,
    epochs=5,
    step=450,
    steps=938,
    loss=0.12345,
    metric=0.9712,
    metric_name="top-1 accuracy",
    sparsity=0.8,
    samples_per_second=12_345.6,
    seconds_left=65.2,
)


def told(stream: io.StringIO) -> str:
    """What a terminal shows of a stream, without cursor movement and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def frames(stream: io.StringIO) -> list[str]:
    """Every state of the passing line."""
    return [frame.strip() for frame in re.split(r"[\r\n]+", told(stream)) if frame.strip()]


def shown(state: TrainingState, width: int = 120) -> str:
    """The last state of the line when a training ends there."""
    stream = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        with training_progress(stream) as watchers:
            assert watchers.training is not None
            watchers.training(state)
    return frames(stream)[-1]


def test_nobody_is_told_where_nobody_looks() -> None:
    with progress_line(io.StringIO()) as progress:
        assert progress is None
    with progress_line(Terminal(), quiet=True) as progress:
        assert progress is None
    for stream in (io.StringIO(), Terminal()):
        with training_progress(stream, quiet=True) as watchers:
            assert (watchers.stage, watchers.training) == (None, None)
        assert stream.getvalue() == ""


def test_a_stage_passes_and_leaves_no_trace() -> None:
    stream = Terminal()
    with progress_line(stream) as progress:
        assert progress is not None
        progress("pruning [red]\x1b[2J", 3, 1200)
    assert "\x1b[2J" not in stream.getvalue()
    assert r"pruning [red]\x1b[2J 3 of 1,200" in told(stream)
    assert "\x1b[2K" in stream.getvalue().rpartition("1,200")[2], "the line is erased"


def test_a_long_stage_says_how_long_it_still_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("onnxprune.report.progress.time.monotonic", lambda: now)

    def last(*states: tuple[float, str, int, int]) -> str:
        nonlocal now
        stream = Terminal()
        with progress_line(stream) as progress:
            assert progress is not None
            for at, *state in states:
                now = at
                progress(*state)  # type: ignore[arg-type]
        return frames(stream)[-1]

    start = (100.0, "trials", 0, 40)
    line = last(start, (130.0, "trials", 10, 40))
    assert line.startswith("trials 10 of 40  ")
    assert line.endswith("1:30 left")
    assert "left" not in last(start, (100.5, "trials", 10, 40))
    assert "left" not in last(start, (130.0, "trials", 0, 40))
    assert "left" not in last(start, (130.0, "trials", 10, 0))
    assert "left" not in last(start, (130.0, "other", 10, 40)), "another stage begins"
    assert last(start, (130.0, "trials", 1, 40), (131.0, "trials", 40, 40)).endswith("0:00 left")


def test_the_bar_shows_every_figure() -> None:
    line = shown(STATE)
    assert line.startswith("round 2/3 epoch 4/5  ")
    assert line.endswith(
        "loss 0.123  top-1 accuracy 97.12%  1:05 left  sparsity 80.0%  12,346 samples/s"
    )
    assert shown(dataclasses.replace(STATE, rounds=1, round=1)).startswith("epoch 4/5  ")
    assert shown(dataclasses.replace(STATE, steps=None)).startswith("round 2/3 epoch 4/5 step 450 ")
    assert "accuracy" not in shown(dataclasses.replace(STATE, metric=None))
    assert "left" not in shown(dataclasses.replace(STATE, seconds_left=None))
    error = dataclasses.replace(STATE, metric_name="mse", share=False)
    assert "mse 0.9712" in shown(error)


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({"round": 1, "epoch": 1, "step": 0}, 0.0),
        ({"round": 1, "epoch": 3, "step": 469}, 2.5 / 15),
        ({"round": 2, "epoch": 3, "step": 469}, 0.5),
        ({"round": 3, "epoch": 5, "step": 938}, 1.0),
        ({"round": 2, "epoch": 3, "step": 2000}, 8 / 15),
        ({"round": 2, "epoch": 1, "step": 7, "steps": None}, 5 / 15),
    ],
)
def test_the_bar_is_filled_as_far_as_the_whole_training_is(
    changes: dict[str, Any], done: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    stream = Terminal()
    with training_progress(stream) as watchers:
        assert watchers.training is not None
        watchers.training(dataclasses.replace(STATE, **changes))
    # rich paints what is done and what is not in two colours; halves have signs of their own.
    last = re.split(r"[\r\n]+", stream.getvalue().rstrip())
    bar = next(line for line in reversed(last) if "epoch" in line)
    parts = re.findall(r"\x1b\[([0-9;]+)m([━╸╺]+)", bar)
    cells = sum(len(text) for _, text in parts)
    todo = sum(len(text) for colour, text in parts if colour == "38;5;237")
    assert cells == 30
    assert 1 - todo / cells == pytest.approx(done, abs=0.04)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_a_narrow_terminal_gets_the_first_figures(width: int) -> None:
    line = shown(STATE, width)
    assert display_width(line) <= width
    assert "samples/s" not in line
    assert "…" not in line or width < 40
    assert ("loss 0.123" in line) == (width >= 60)
    assert ("accuracy 97.12%" in line) == (width >= 80)


def test_stage_and_training_take_turns_on_one_line() -> None:
    stream = Terminal()
    with training_progress(stream) as watchers:
        assert watchers.stage is not None
        assert watchers.training is not None
        watchers.stage("pruning", 1, 2)
        time.sleep(0.25)
        watchers.training(STATE)
        time.sleep(0.25)
        watchers.stage("writing", 0, 0)
    seen = frames(stream)
    order = [
        next(i for i, frame in enumerate(seen) if word in frame)
        for word in ("pruning 1 of 2", "loss 0.123", "writing")
    ]
    assert order == sorted(order)
    assert not any("pruning" in frame and "loss" in frame for frame in seen)
    assert "loss" not in seen[-1]
    assert "\x1b[2K" in stream.getvalue().rpartition("writing")[2], "the line is erased"


def test_it_is_redrawn_at_most_ten_times_a_second() -> None:
    stream, updates = Terminal(), 0
    with training_progress(stream) as watchers:
        assert watchers.training is not None
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            watchers.training(dataclasses.replace(STATE, step=updates))
            updates += 1
    redraws = sum("loss" in frame for frame in frames(stream))
    assert updates > 100
    assert 1 <= redraws <= 8, "5 in half a second, and those at the start and the end"


def test_hostile_names_are_inert() -> None:
    assert r"[red]\x1b[2J\n 97.12%" in shown(
        dataclasses.replace(STATE, metric_name="[red]\x1b[2J\n")
    )


def test_a_log_gets_one_line_an_epoch() -> None:
    stream = io.StringIO()
    with training_progress(stream) as watchers:
        assert watchers.stage is None
        assert watchers.training is not None
        for epoch in (4, 5):
            for step in (1, 2, 938):
                loss = epoch / step
                watchers.training(dataclasses.replace(STATE, epoch=epoch, step=step, loss=loss))
            assert stream.getvalue().count("\n") == epoch - 4, "said when the next one begins"
            measured = dataclasses.replace(STATE, epoch=epoch, step=938, loss=0.5, metric=epoch / 8)
            watchers.training(measured)
    assert stream.getvalue() == (
        "round 2/3 epoch 4/5: loss 0.5, top-1 accuracy 50.00%, 1:05 left, sparsity 80.0%,"
        " 12,346 samples/s\n"
        "round 2/3 epoch 5/5: loss 0.5, top-1 accuracy 62.50%, 1:05 left, sparsity 80.0%,"
        " 12,346 samples/s\n"
    )


def test_a_log_tells_the_same_epoch_of_two_rounds_apart() -> None:
    stream = io.StringIO()
    with training_progress(stream) as watchers:
        assert watchers.training is not None
        for number in (1, 2, 3):
            watchers.training(dataclasses.replace(STATE, round=number, epoch=1, epochs=1, step=938))
    assert [line.split(":")[0] for line in stream.getvalue().splitlines()] == [
        f"round {number}/3 epoch 1/1" for number in (1, 2, 3)
    ]


def test_a_log_says_how_far_an_interrupted_epoch_came() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), training_progress(stream) as watchers:
        assert watchers.training is not None
        watchers.training(STATE)
        raise KeyboardInterrupt
    assert stream.getvalue().startswith("round 2/3 epoch 4/5 step 450/938: loss 0.123, ")


def test_a_log_is_readable_while_the_training_goes_on() -> None:
    raw = io.BytesIO()
    with training_progress(io.TextIOWrapper(raw, encoding="utf-8")) as watchers:
        assert watchers.training is not None
        watchers.training(STATE)
        watchers.training(dataclasses.replace(STATE, epoch=5))
        assert raw.getvalue().startswith(b"round 2/3 epoch 4/5")


def test_a_training_that_never_began_writes_nothing() -> None:
    stream = io.StringIO()
    with training_progress(stream):
        pass
    assert stream.getvalue() == ""
