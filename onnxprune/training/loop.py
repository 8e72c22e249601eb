"""Epochs of one round: steps, validation, the best epoch, checkpoints, and where to go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..data.labels import samples_of
from ..data.source import BatchSource
from ..errors import Interrupted, ModelError
from ..finetune import FineTune
from ..report.progress import TrainingState
from ..report.training import Better, EpochRow
from ..stopping import exit_code
from .engine import Engine
from .interruption import Interruption
from .update.schedules import rate_at

__all__ = ["Position", "RoundResult", "Surroundings", "Totals", "TrainingProgress", "run_round"]

TrainingProgress = Callable[[TrainingState], None]
Parameters = Mapping[str, np.ndarray]


@dataclass
class Position:
    """Where a round stands: everything that a checkpoint keeps besides the engine's state.

    Attributes:
        epoch: Epochs finished.
        batch: Batches done in the epoch after those.
        per_epoch: Batches of an epoch, None until one was seen to its end.
        loss: Sum over the samples of the epoch so far.
        samples: Samples of the epoch so far.
        seconds: Time spent in the epoch so far.
        rate: Learning rate of the epoch's first step.
        steps: Updates in the round.
        done: Share of the round that is done, 0 to 1.
        step_seconds: Time of the steps alone.
        rows: Finished epochs.
        best_epoch: The epoch with the best metric, None before the first.
        best: Its parameters; empty unless the best epoch is to be kept.
    """

    epoch: int = 0
    batch: int = 0
    per_epoch: int | None = None
    loss: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    steps: int = 0
    done: float = 0.0
    step_seconds: float = 0.0
    rows: list[EpochRow] = field(default_factory=list)
    best_epoch: int | None = None
    best: dict[str, np.ndarray] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        plain = {name: value for name, value in vars(self).items() if name not in ("rows", "best")}
        return {**plain, "rows": [asdict(row) for row in self.rows]}

    @classmethod
    def of(cls, facts: Mapping[str, Any], best: Parameters) -> Position:
        """Undo `facts`."""
        rows = [EpochRow(**row) for row in facts["rows"]]
        return cls(**{**facts, "rows": rows, "best": dict(best)})


@dataclass(frozen=True)
class Surroundings:
    """What a round is run with.

    Attributes:
        settings: The settings of the training.
        data: The training data.
        number: The round, 1 for the first.
        sparsity: Share of zeros, for the progress hook.
        complete: Turns a batch into the engine's feeds.
        measure: Metric of parameters on the validation data, None where there is none.
        metric: Name of the metric.
        better: Which values of the metric are better.
        share: Whether the metric is a share from 0 to 1.
        save: Writes a checkpoint; None where none is wanted.
        progress: Told about the work.
        revise: Decides on masks after a step: its number in the round, the shares of the round
            that were done before it and after it. None where masks stay.
    """

    settings: FineTune
    data: BatchSource
    number: int
    sparsity: float
    complete: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]
    measure: Callable[[Parameters], float] | None
    metric: str | None
    better: Better
    share: bool
    save: Callable[[Position], None] | None
    progress: TrainingProgress | None
    revise: Callable[[int, float, float], None] | None = None


@dataclass(frozen=True)
class RoundResult:
    """Parameters that a round ends with, and how it went."""

    parameters: dict[str, np.ndarray]
    position: Position
    stopped_early: bool


@dataclass(frozen=True)
class Totals:
    """Sums over finished rounds; `stopped_early`: whether patience ended one of them."""

    steps: int = 0
    samples: int = 0
    step_seconds: float = 0.0
    stopped_early: bool = False

    def plus(self, result: RoundResult) -> Totals:
        """With one round more."""
        at = result.position
        return Totals(
            self.steps + at.steps,
            self.samples + sum(row.samples for row in at.rows),
            self.step_seconds + at.step_seconds,
            self.stopped_early or result.stopped_early,
        )


def run_round(engine: Engine, around: Surroundings, at: Position) -> RoundResult:
    """Train until the last epoch, or until patience ends.

    Args:
        engine: The engine, in the state that belongs to `at`.
        around: Data, settings and hooks.
        at: Where to start; changed as the work goes on.

    Raises:
        Interrupted: Ctrl-C was pressed, or the command was to end; the checkpoint, if one was
            asked for, is written.
        ModelError: The loss is NaN or infinite.
        DataError: The data does not fit the model.
    """
    settings = around.settings
    # A checkpoint may be of the very end of patience.
    stopped = _out_of_patience(settings, at)
    with Interruption() as interruption:
        while at.epoch < settings.epochs and not stopped:
            _epoch(engine, around, at, interruption)
            stopped = _out_of_patience(settings, at)
            if around.save is not None:
                around.save(at)
    kept = dict(at.best) if settings.patience is not None else engine.parameters()
    return RoundResult(kept, at, stopped and at.epoch < settings.epochs)


def _epoch(engine: Engine, around: Surroundings, at: Position, stop: Interruption) -> None:
    """Train for the rest of an epoch, measure, and make it a row."""
    clock, settings = _Clock(around, at), around.settings
    # Every epoch of every round has an order of its own.
    number = (around.number - 1) * settings.epochs + at.epoch
    data = around.data.epoch(number, settings.batch_size, seed=settings.seed, skip=at.batch)
    for batch in data:
        feeds = around.complete(batch)
        started = time.perf_counter()
        rate = _rate(around, at)
        loss = engine.step(feeds, rate)
        at.rate = rate if at.batch == 0 else at.rate
        at.step_seconds += time.perf_counter() - started
        if not math.isfinite(loss):
            raise _diverged(loss, at)
        count = samples_of(batch)
        at.loss, at.samples = at.loss + loss * count, at.samples + count
        at.batch, at.steps = at.batch + 1, at.steps + 1
        _revise(around, at, _done(around, at))
        clock.tell()
        if stop.asked:
            _interrupt(around, at, clock, exit_code(stop.asked))
    at.per_epoch = at.batch
    if not at.samples:
        raise ModelError("an epoch of the training data has no whole batch; use a smaller one")
    if at.epoch + 1 == around.settings.epochs:
        _revise(around, at, 1.0)
    parameters = engine.parameters() if around.measure is not None else {}
    metric = around.measure(parameters) if around.measure is not None else None
    _finish(around, at, metric, parameters, clock.seconds())
    clock.tell()
    if stop.asked:
        _interrupt(around, at, clock, exit_code(stop.asked))


def _diverged(loss: float, at: Position) -> ModelError:
    """The error for a loss that is no number; before the first update no rate is to blame."""
    where = f"the loss is {loss} in step {at.batch + 1} of epoch {at.epoch + 1}"
    if at.steps:
        return ModelError(f"{where}; use a lower --lr, or --clip-norm 1")
    return ModelError(
        f"{where}, before any update; look for too large numbers in data, labels and settings, or "
        "for NaN in the model"
    )


def _rate(around: Surroundings, at: Position) -> float:
    """Learning rate of the next step; by epochs while nobody knows how many steps there are."""
    settings = around.settings
    steps = at.per_epoch or around.data.batches(settings.batch_size)
    if not steps:
        return rate_at(settings.lr_schedule, settings.rate, at.epoch + 1, settings.epochs)
    step = at.epoch * steps + min(at.batch + 1, steps)
    return rate_at(settings.lr_schedule, settings.rate, step, settings.epochs * steps)


def _done(around: Surroundings, at: Position) -> float:
    """Share of the round that is done; by epochs while nobody knows how many steps there are."""
    steps = at.per_epoch or around.data.batches(around.settings.batch_size)
    epoch = min(at.batch / steps, 1.0) if steps else 0.0
    return (at.epoch + epoch) / around.settings.epochs


def _revise(around: Surroundings, at: Position, done: float) -> None:
    """Have masks decided on where they change."""
    if around.revise is not None:
        around.revise(at.steps, at.done, done)
    at.done = done


def _finish(
    around: Surroundings, at: Position, metric: float | None, now: Parameters, seconds: float
) -> None:
    """Make the epoch a row, and note it where it is the best."""
    rate = at.rate
    at.epoch += 1
    row = EpochRow(around.number, at.epoch, rate, at.loss / at.samples, metric, at.samples, seconds)
    best = at.rows[at.best_epoch - 1].metric if at.best_epoch is not None else None
    at.rows.append(row)
    at.batch, at.loss, at.samples, at.seconds = 0, 0.0, 0, 0.0
    if metric is not None and (best is None or _improves(metric, best, around.better)):
        at.best_epoch = at.epoch
        if around.settings.patience is not None:
            at.best = dict(now)


def _improves(metric: float, best: float, better: Better) -> bool:
    return metric > best if better == "higher" else metric < best


def _out_of_patience(settings: FineTune, at: Position) -> bool:
    if settings.patience is None or at.best_epoch is None:
        return False
    return at.epoch - at.best_epoch >= settings.patience


def _interrupt(around: Surroundings, at: Position, clock: _Clock, code: int) -> None:
    at.seconds = clock.seconds() if at.batch else 0.0
    where = f"training was interrupted in epoch {at.epoch + bool(at.batch)} of round"
    where += f" {around.number}"
    if around.save is None:
        raise Interrupted(
            f"{where} and no model was written; give --checkpoint DIR to keep state", code
        )
    around.save(at)
    raise Interrupted(
        f"{where}; its state is in '{around.settings.checkpoint}': run the same command with "
        "--resume to go on",
        code,
    )


class _Clock:
    """Measures an epoch and tells the progress hook."""

    def __init__(self, around: Surroundings, at: Position) -> None:
        self._around, self._at = around, at
        self._before, self._started = at.seconds, time.perf_counter()
        self._steps = at.steps

    def seconds(self) -> float:
        """Seconds spent in the epoch, those before an interruption included."""
        return self._before + time.perf_counter() - self._started

    def tell(self) -> None:
        """Say where the training is: within an epoch, or behind one."""
        around, at = self._around, self._at
        if around.progress is None:
            return
        settings = around.settings
        metric = next((row.metric for row in reversed(at.rows) if row.metric is not None), None)
        steps = at.per_epoch or around.data.batches(settings.batch_size)
        seconds = max(time.perf_counter() - self._started, 1e-9)
        speed = (at.steps - self._steps) * settings.batch_size / seconds
        around.progress(
            TrainingState(
                round=around.number,
                rounds=settings.rounds,
                epoch=at.epoch + bool(at.batch),
                epochs=settings.epochs,
                step=at.batch or steps or 0,
                steps=steps,
                loss=at.loss / at.samples if at.batch else at.rows[-1].loss,
                metric=metric,
                metric_name=around.metric,
                sparsity=around.sparsity,
                samples_per_second=speed,
                seconds_left=self._left(speed, steps),
                share=around.share,
            )
        )

    def _left(self, speed: float, steps: int | None) -> float | None:
        """Seconds that the rest of all rounds will take, at the present speed."""
        settings, at = self._around.settings, self._at
        if not steps or not speed:
            return None
        rounds = settings.rounds - self._around.number
        batches = (rounds * settings.epochs + settings.epochs - at.epoch) * steps - at.batch
        return batches * settings.batch_size / speed
