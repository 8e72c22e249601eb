"""The loop of a round, on an engine that only writes down what it is asked for."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import Interrupted, ModelError
from onnxprune.finetune import FineTune
from onnxprune.report.progress import TrainingState
from onnxprune.training.loop import Position, RoundResult, Surroundings, Totals, run_round
from onnxprune.training.update.schedules import rate_at
from tests.training.nets import batches, data, mlp


class Recorder:
    """Counts its steps; the loss is the mean of the samples' first feature."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.rates: list[float] = []

    def step(self, feeds: Mapping[str, np.ndarray], rate: float) -> float:
        self.seen.append(feeds["x"])
        self.rates.append(rate)
        return float(feeds["x"][:, 0].mean())

    def parameters(self) -> dict[str, np.ndarray]:
        return {"w": np.array(float(len(self.seen)))}

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def source(given: Any = None) -> BatchSource:
    return open_source(data(40) if given is None else given, input_specs(mlp()))


def around(given: Any = None, **changes: Any) -> Surroundings:
    names = ("number", "measure", "save", "progress", "better")
    more = {name: changes.pop(name) for name in names if name in changes}
    settings = FineTune(**{"batch_size": 16, "epochs": 3, "lr": 0.1, **changes})
    base: dict[str, Any] = {"number": 1, "measure": None, "save": None, "progress": None}
    return Surroundings(
        settings=settings,
        data=source(given),
        sparsity=0.5,
        complete=lambda batch: batch,
        metric="top-1 accuracy" if more.get("measure") else None,
        share=True,
        **{"better": "higher", **base, **more},
    )


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_rates_follow_the_schedule_step_by_step(schedule: Any) -> None:
    engine = Recorder()
    result = run_round(engine, around(lr_schedule=schedule), Position())
    assert engine.rates == [rate_at(schedule, 0.1, step, 9) for step in range(1, 10)]
    assert [row.rate for row in result.position.rows] == engine.rates[::3]


def test_a_stream_of_unknown_length_falls_by_epochs_first() -> None:
    engine = Recorder()
    run_round(engine, around(lambda: iter(batches(3, 16))), Position())
    assert engine.rates[:3] == [0.1] * 3
    assert engine.rates[3:] == [rate_at("cosine", 0.1, step, 9) for step in range(4, 10)]


def test_epochs_and_rounds_have_orders_of_their_own() -> None:
    orders = []
    for number in (1, 2):
        engine = Recorder()
        run_round(engine, around(number=number, epochs=2), Position())
        orders += [np.concatenate(engine.seen[at : at + 3]) for at in (0, 3)]
    for first in range(4):
        assert orders[first].shape == (40, 6)
        assert np.array_equal(np.sort(orders[first][:, 0]), np.sort(data(40)["x"][:, 0]))
        for second in range(first):
            assert not np.array_equal(orders[first], orders[second])


def test_the_loss_is_the_mean_over_samples_of_uneven_batches() -> None:
    result = run_round(Recorder(), around(epochs=1), Position())
    (row,) = result.position.rows
    assert row.loss == pytest.approx(data(40)["x"][:, 0].mean(), rel=1e-5)
    assert (row.samples, row.epoch, row.round) == (40, 1, 1)
    assert Totals().plus(result).plus(result).steps == 6


def measuring(*values: float) -> Any:
    left = iter(values)
    return lambda parameters: next(left)


@pytest.mark.parametrize(
    ("better", "values", "epochs", "best"),
    [
        ("higher", (0.5, 0.6, 0.6, 0.4), 4, 2),
        ("higher", (0.5, 0.4, 0.3), 3, 1),
        ("lower", (0.5, 0.4, 0.6, 0.7), 4, 2),
        ("higher", (0.1, 0.2, 0.3, 0.4, 0.5), 5, 5),
    ],
)
def test_patience(better: Any, values: tuple[float, ...], epochs: int, best: int) -> None:
    options = {"patience": 2, "epochs": 5, "measure": measuring(*values), "better": better}
    result = run_round(Recorder(), around(**options), Position())
    assert len(result.position.rows) == epochs
    assert result.position.best_epoch == best
    assert result.parameters["w"] == 3 * best
    assert result.stopped_early == (epochs < 5)


def test_without_patience_the_last_epoch_is_kept() -> None:
    result = run_round(Recorder(), around(measure=measuring(0.9, 0.5, 0.1)), Position())
    assert result.parameters["w"] == 9
    assert result.position.best_epoch == 1
    assert not result.stopped_early


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_without_sense_is_refused(loss: float) -> None:
    class Broken(Recorder):
        def step(self, feeds: Mapping[str, np.ndarray], rate: float) -> float:
            return loss if len(self.seen) == 4 else super().step(feeds, rate)

    saved: list[Position] = []
    with pytest.raises(ModelError, match=rf"the loss is {loss} in step 2 of epoch 2; use a lower"):
        run_round(Broken(), around(save=saved.append), Position())
    assert len(saved) == 1  # that of the first epoch, none of the broken state


def test_checkpoints_after_every_epoch() -> None:
    places = []
    run_round(Recorder(), around(save=lambda at: places.append((at.epoch, at.batch))), Position())
    assert places == [(1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 12])
def test_an_interruption_saves_where_it_is(call: int) -> None:
    """Four calls an epoch: three steps, and one behind the epoch."""
    states: list[TrainingState] = []
    saved: list[dict[str, Any]] = []

    def hook(state: TrainingState) -> None:
        states.append(state)
        if len(states) == call:
            os.kill(os.getpid(), signal.SIGINT)

    first, options = Recorder(), {"checkpoint": "state", "progress": hook}
    with pytest.raises(Interrupted, match=r"state is in 'state': run the same command"):
        run_round(first, around(**options, save=lambda at: saved.append(at.facts())), Position())
    assert len(states) == call
    whole, second = Recorder(), Recorder()
    expected = run_round(whole, around(), Position())
    found = run_round(second, around(), Position.of(saved[-1], {}))
    assert [x.tobytes() for x in (*first.seen, *second.seen)] == [x.tobytes() for x in whole.seen]
    assert first.rates + second.rates == whole.rates
    assert losses(found) == losses(expected)
    assert found.position.steps == 9


def losses(result: RoundResult) -> list[tuple[int, float, int, float]]:
    return [(row.epoch, row.loss, row.samples, row.rate) for row in result.position.rows]


def test_what_the_progress_says() -> None:
    told: list[TrainingState] = []
    options = {"measure": measuring(0.5, 0.7), "epochs": 2, "rounds": 2}
    run_round(Recorder(), around(**options, progress=told.append), Position())
    assert [(s.epoch, s.step, s.metric) for s in told] == [
        (1, 1, None), (1, 2, None), (1, 3, None), (1, 3, 0.5),
        (2, 1, 0.5), (2, 2, 0.5), (2, 3, 0.5), (2, 3, 0.7),
    ]  # fmt: skip
    last = told[-1]
    assert (last.round, last.rounds, last.epochs, last.steps) == (1, 2, 2, 3)
    assert (last.metric_name, last.share, last.sparsity) == ("top-1 accuracy", True, 0.5)
    assert all(s.seconds_left is not None and s.seconds_left >= 0 for s in told)
    assert told[-1].seconds_left > 0  # there is another round
