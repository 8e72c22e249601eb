"""Searching for the choice of channels that meets a target: operations, or measured speed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

from ..errors import UsageError
from .choice import Choice, Chooser
from .latency import Race, Speed
from .macs import WorkCounter

__all__ = ["Found", "meet_macs", "meet_speedup"]

#: Steps of bisection: shares are told apart to 1e-5.
STEPS = 16
#: Measurements of a search for a speed, and how far above the target it may end before them.
MEASUREMENTS, CLOSE = 8, 1.05
#: Step down in operations where a measurement is not fast enough.
NUDGE = 0.93

#: The model without the atoms of a choice.
Build = Callable[[Choice], ModelProto]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Found:
    """A choice that meets a target, and its speed where that was measured."""

    choice: Choice
    speed: Speed | None = None


class _Work:
    """Shares of the operations that choices leave; what was counted once is remembered."""

    def __init__(self, chooser: Chooser, counter: WorkCounter) -> None:
        self.chooser = chooser
        self._counter = counter
        self._whole = counter.without(()).macs
        self._known: dict[tuple[int, ...], float] = {}

    def left(self, choice: Choice) -> float:
        """Share of the operations that is left."""
        if choice.counts not in self._known:
            macs = self._counter.without(choice.atoms).macs
            self._known[choice.counts] = macs / self._whole if self._whole else 1.0
        return self._known[choice.counts]

    def within(self, target: float) -> Choice | None:
        """The choice that leaves most operations within a target; None where none does."""
        low, high = 0.0, 1.0
        below = self.chooser.at_level(low)
        if self.left(below) <= target:
            return below
        above = self.chooser.at_level(high)
        if self.left(above) > target:
            return None
        for _ in range(STEPS):
            middle = (low + high) / 2
            found = self.chooser.at_level(middle)
            if self.left(found) <= target:
                high, above = middle, found
            else:
                low, below = middle, found
        return self._filled(above, below, target)

    def _filled(self, choice: Choice, larger: Choice, target: float) -> Choice:
        """Give families back what they have in the next larger choice, as far as that fits."""
        for family in self.chooser.layout.families:
            if all(choice.counts[group] >= larger.counts[group] for group in family):
                continue
            counts = list(choice.counts)
            for group in family:
                counts[group] = larger.counts[group]
            tried = self.chooser.with_counts(counts)
            if self.left(tried) <= target:
                choice = tried
        return choice


def meet_macs(chooser: Chooser, counter: WorkCounter, target: float) -> Found:
    """The choice that leaves as many operations as a target share allows.

    Args:
        chooser: Chooses atoms.
        counter: Counts operations without them.
        target: Share of the operations that may be left, above 0 and up to 1.

    Raises:
        UsageError: More is left even where every group keeps as little as it can.
    """
    work = _Work(chooser, counter)
    choice = work.within(target)
    if choice is None:
        least = work.left(chooser.at_level(1.0))
        raise UsageError(
            f"the operations cannot be brought down to {target:g} of what they are: {least:.3g} is"
            " left when every group keeps as few channels as it can; ask for no less"
        )
    return Found(choice)


def meet_speedup(
    chooser: Chooser,
    counter: WorkCounter,
    target: float,
    race: Race,
    build: Build,
    progress: Progress | None = None,
) -> Found:
    """The least removal with which onnxruntime is measured to run this many times faster.

    Operations guide the search: time follows them closely enough to say where to measure next.

    Args:
        chooser: Chooses atoms.
        counter: Counts operations without them.
        target: How many times faster, at least 1.
        race: Measures against the dense model.
        build: Makes the model of a choice; its weights do not matter.
        progress: Told of the measurements.

    Raises:
        UsageError: No choice is that fast.
        CannotRun: onnxruntime does not run a smaller model.
    """
    if target == 1:
        return Found(chooser.at_level(0.0))
    search = _SpeedSearch(_Work(chooser, counter), target, race.guessed)
    guess = 1 / target
    for number in range(MEASUREMENTS):
        choice = search.untried(guess)
        if choice is None:
            break
        speed = race.against(build(choice))
        search.add(choice, speed)
        if progress:
            progress("speed (measurements)", number + 1, MEASUREMENTS)
        if target <= speed.ratio <= target * CLOSE:
            break
        guess = search.next_guess()
    return search.result()


class _SpeedSearch:
    """What was measured, and what follows from it."""

    def __init__(self, work: _Work, target: float, guessed: int | None) -> None:
        self._work = work
        self._target = target
        self._guessed = guessed
        self._least = work.chooser.at_level(1.0)
        self._tried: dict[tuple[int, ...], tuple[Choice, Speed]] = {}

    def untried(self, guess: float) -> Choice | None:
        """The choice for a share of the operations, or a smaller one where that was too slow."""
        chooser, work = self._work.chooser, self._work
        while True:
            choice = chooser.without_holes(work.within(guess) or self._least)
            known = self._tried.get(choice.counts)
            if known is None:
                return choice
            if known[1].ratio >= self._target or guess < work.left(self._least):
                return None
            guess *= NUDGE

    def add(self, choice: Choice, speed: Speed) -> None:
        """Remember a measurement."""
        self._tried[choice.counts] = choice, speed

    def next_guess(self) -> float:
        """Where the line through the two nearest measurements reaches the target, or beyond."""
        wanted = math.log(self._target)
        points = [(0.0, 0.0)]  # logarithms of the operations left, and of the speed
        points += [
            (math.log(self._work.left(choice)), math.log(speed.ratio))
            for choice, speed in self._tried.values()
        ]
        points.sort(key=lambda point: abs(point[1] - wanted))
        fast, slow = ([p for p in points if (p[1] >= wanted) is side] for side in (True, False))
        first, second = (fast[0], slow[0]) if fast and slow else points[:2]
        rise = second[1] - first[1]
        # Time falls with the operations whatever the noise says, and never by a high power.
        slope = min(max((second[0] - first[0]) / rise if rise else -1.0, -4.0), -0.5)
        guess = math.exp(first[0] + slope * (wanted + math.log(CLOSE) / 2 - first[1]))
        slowest = [left for left, _ in points[1:]] if not fast else []
        return min([guess, *(NUDGE * math.exp(left) for left in slowest)])

    def result(self) -> Found:
        """The least removal that is fast enough."""
        fast = [entry for entry in self._tried.values() if entry[1].ratio >= self._target]
        if fast:
            return Found(*max(fast, key=lambda entry: self._work.left(entry[0])))
        best = max((speed.ratio for _, speed in self._tried.values()), default=1.0)
        hint = (
            f", or give samples to calibrate with: open axes were taken to be {self._guessed} long"
            if self._guessed is not None
            else ""
        )
        raise UsageError(
            f"a speedup of {self._target:g} cannot be reached by removing channels: the fastest"
            f" that was measured is {best:.2f} times as fast; ask for less{hint}"
        )
