"""Learning-rate schedules: the rate of every step, as a pure function of its number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from ...errors import UsageError

__all__ = ["ScheduleName", "rate_at"]

ScheduleName = Literal["constant", "cosine", "step"]

#: From these shares of all steps on, "step" has the rate at this factor.
_DROPS = ((3, 4, 0.01), (1, 2, 0.1))


def rate_at(schedule: ScheduleName, base: float, step: int, steps: int) -> float:
    """The learning rate of a step.

    - "constant": `base` always.
    - "cosine": ``base * (1 + cos(pi * done / steps)) / 2``, where `done` steps came before: `base`
      for the first step and 0 only after the last (Loshchilov and Hutter, 2017, without restarts).
      No warm-up: fine-tuning starts near a minimum, at a low rate.
    - "step": `base`, a tenth of it once half of all steps are done, a hundredth after three
      quarters.

    Args:
        schedule: Its name.
        base: Rate of the first step.
        step: Number of the step, from 1.
        steps: Number of steps in all.

    Raises:
        UsageError: The schedule is unknown, or a number makes no sense.
    """
    if schedule not in _FACTORS:
        raise UsageError(f"schedule {schedule!r} is unknown: choose one of {', '.join(_FACTORS)}")
    if not (math.isfinite(base) and base >= 0):
        raise UsageError(f"the learning rate is {base}: give a number of at least 0")
    if not 1 <= step <= steps:
        raise UsageError(f"step {step} is not one of the {steps} steps: count them from 1")
    return base * _FACTORS[schedule](step - 1, steps)


def _constant(done: int, steps: int) -> float:
    return 1.0


def _cosine(done: int, steps: int) -> float:
    return (1 + math.cos(math.pi * done / steps)) / 2


def _step(done: int, steps: int) -> float:
    for numerator, denominator, factor in _DROPS:
        # In whole numbers, so that the drop never moves by a rounding error.
        if done * denominator >= steps * numerator:
            return factor
    return 1.0


_FACTORS: dict[str, Callable[[int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "step": _step,
}
