"""How far a run is: a passing line on a terminal, and one line an epoch anywhere else.

The stage and the training share one line, for two of rich's live displays on one terminal would
write over each other. What is shown is put together when the display is redrawn, at most ten times
a second; telling it more often costs next to nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from .format import clock, display_width, metric_text, number, percent, safe
from .show import is_terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "Progress",
    "TrainingProgress",
    "TrainingState",
    "Watchers",
    "progress_line",
    "training_progress",
]

REDRAWS_PER_SECOND = 10
BAR_MINIMUM = 10
BAR_MAXIMUM = 30
GAP = 2
#: Seconds after which a stage says how long it still takes.
SOON = 1.0


@dataclass(frozen=True)
class TrainingState:
    """Where a training is; told after every step, and again after an epoch's validation."""

    round: int
    """Round of pruning and retraining, 1 for the first."""
    rounds: int
    """Number of rounds."""
    epoch: int
    """Epoch in its round, 1 for the first."""
    epochs: int
    """Epochs of a round."""
    step: int
    """Steps done in the epoch."""
    steps: int | None
    """Steps of an epoch; None where the data does not say."""
    loss: float
    """Mean loss of the epoch so far."""
    metric: float | None
    """Metric on the validation data, as it was last measured; None before, or without data."""
    metric_name: str | None
    """Name of the metric; None without validation data."""
    sparsity: float
    """Share of the prunable layers' weights that are zero, 0 to 1."""
    samples_per_second: float
    """Training samples a second."""
    seconds_left: float | None
    """Time that the whole training still takes; None where it is not known."""
    share: bool = True
    """True where the metric is a share from 0 to 1 and is shown as a percentage."""


Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, the steps done, and the steps in all (0 where not known)."""

TrainingProgress = Callable[[TrainingState], None]
"""Called with where the training is."""


@dataclass(frozen=True)
class Watchers:
    """Who is told how far a run is; None where nobody would see it."""

    stage: Progress | None
    training: TrainingProgress | None


@contextmanager
def progress_line(
    stream: TextIO | None = None, *, quiet: bool = False
) -> Iterator[Progress | None]:
    """Show one passing line of progress on a terminal; give None where nobody would see it."""
    stream = sys.stderr if stream is None else stream
    if quiet or not is_terminal(stream):
        yield None
        return
    with _live_line(stream) as line:
        yield line.stage


@contextmanager
def training_progress(stream: TextIO | None = None, *, quiet: bool = False) -> Iterator[Watchers]:
    """Show the stage and the training: a passing line on a terminal, else one line an epoch.

    Args:
        stream: Standard error by default.
        quiet: Show nothing.
    """
    stream = sys.stderr if stream is None else stream
    if quiet:
        yield Watchers(None, None)
    elif is_terminal(stream):
        with _live_line(stream) as line:
            yield Watchers(line.stage, line.training)
    else:
        log = _EpochLog(stream)
        try:
            yield Watchers(None, log.training)
        finally:
            log.close()


class _EpochLog:
    """Writes what was last said of every epoch when the next one begins."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last: TrainingState | None = None

    def training(self, state: TrainingState) -> None:
        last = self._last
        if last is not None and (last.round, last.epoch) != (state.round, state.epoch):
            self.close()
        self._last = state

    def close(self) -> None:
        """Write what was last said."""
        if self._last is not None:
            unfinished = self._last.step != self._last.steps
            place, figures = _place(self._last, steps=unfinished), _figures(self._last)
            print(f"{place}: {', '.join(figures)}", file=self._stream, flush=True)
        self._last = None


class _Line:
    """What a live display draws: the stage, or the training, whichever was told last."""

    def __init__(self, console: Console) -> None:
        from rich.spinner import Spinner

        self._console = console
        self._spinner = Spinner("dots")
        self._said: TrainingState | _Stage = _Stage("starting", 0, 0, time.monotonic())

    def stage(self, stage: str, done: int, total: int) -> None:
        last, now = self._said, time.monotonic()
        goes_on = isinstance(last, _Stage) and last.name == stage and last.done <= done
        started = last.started if goes_on and isinstance(last, _Stage) else now
        self._said = _Stage(stage, done, total, started)

    def training(self, state: TrainingState) -> None:
        self._said = state

    def draw(self) -> RenderableType:
        """Return what to show now."""
        from rich.text import Text

        said, width = self._said, self._console.width
        if isinstance(said, TrainingState):
            place = _place(said, steps=said.steps is None)
            return _bar(place, _figures(said), _done(said), width)
        left = said.seconds_left(time.monotonic())
        if left is not None:
            figures = [f"{clock(left)} left"]
            return _bar(said.text, figures, said.done / said.total, width)
        self._spinner.update(text=Text(said.text, no_wrap=True, overflow="ellipsis"))
        return self._spinner


@dataclass(frozen=True)
class _Stage:
    """A stage that is not a training, and when it began."""

    name: str
    done: int
    total: int
    started: float

    @property
    def text(self) -> str:
        """Its name, safe to print, and how far it is."""
        return safe(self.name) + (f" {self.done:,} of {self.total:,}" if self.total else "")

    def seconds_left(self, now: float) -> float | None:
        """Time that it still takes at its pace so far; None while that is not known."""
        elapsed = now - self.started
        if not 0 < self.done <= self.total or elapsed < SOON:
            return None
        return elapsed * (self.total - self.done) / self.done


@contextmanager
def _live_line(stream: TextIO) -> Iterator[_Line]:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    line = _Line(console)
    with Live(
        get_renderable=line.draw,
        console=console,
        refresh_per_second=REDRAWS_PER_SECOND,
        transient=True,
    ):
        yield line


def _bar(name: str, figures: list[str], done: float, width: int) -> RenderableType:
    """A name, a bar of all that is to be done, and as many figures as fit beside it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    place = Text(name, no_wrap=True, overflow="ellipsis")
    room = width - place.cell_len - 2 * GAP
    text = Text((" " * GAP).join(_fitting(figures, room - BAR_MINIMUM)))
    bar = max(min(room - text.cell_len, BAR_MAXIMUM), BAR_MINIMUM)
    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(width=bar)
    grid.add_column(no_wrap=True)
    grid.add_row(place, ProgressBar(total=1.0, completed=done, width=bar), text)
    return grid


def _fitting(parts: list[str], room: int) -> list[str]:
    """As many of the first parts as fit, with gaps between them."""
    shown: list[str] = []
    for part in parts:
        room -= display_width(part) + (GAP if shown else 0)
        if room < 0:
            break
        shown.append(part)
    return shown


def _done(state: TrainingState) -> float:
    """Share of the training that is done, 0 to 1."""
    inside = min(state.step / state.steps, 1.0) if state.steps else 0.0
    epochs = (state.round - 1) * state.epochs + state.epoch - 1 + inside
    return epochs / (state.rounds * state.epochs)


def _place(state: TrainingState, *, steps: bool) -> str:
    """Which epoch of which round, and which of its steps."""
    parts = [f"round {state.round:,}/{state.rounds:,}"] if state.rounds > 1 else []
    parts.append(f"epoch {state.epoch:,}/{state.epochs:,}")
    if steps:
        of_all = f"/{state.steps:,}" if state.steps else ""
        parts.append(f"step {state.step:,}{of_all}")
    return " ".join(parts)


def _figures(state: TrainingState) -> list[str]:
    """What is known of a training, the most telling first."""
    figures = [f"loss {number(state.loss)}"]
    if state.metric is not None:
        name = safe(state.metric_name or "metric")
        figures.append(f"{name} {metric_text(state.metric, state.share)}")
    if state.seconds_left is not None:
        figures.append(f"{clock(state.seconds_left)} left")
    figures.append(f"sparsity {percent(state.sparsity)}")
    figures.append(f"{state.samples_per_second:,.0f} samples/s")
    return figures
