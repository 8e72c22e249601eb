"""When masks are decided on again in a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["Timetable"]

#: Steps between two looks at the masks.
INTERVAL = 16
#: The probability of a look has fallen to this share when masks settle.
LAST_PROBABILITY = 0.1


@dataclass(frozen=True)
class Timetable:
    """When weights go, as shares of the training.

    Attributes:
        rise: Height of thresholds at a share (0 to 1) of the rise: from 0 to 1.
        ramp: Share of the training in which thresholds rise; 0: they are high at once.
        settled: Share from which on masks stay as they are.
        falls: Whether masks are looked at with falling probability, ``(1 + 9 t) ** -1`` with t
            rising to 1 where they settle (Guo et al. 2016, section 3.2: ``(1 + gamma i) ** -p``).
    """

    rise: Callable[[float], float]
    ramp: float
    settled: float
    falls: bool

    def height(self, done: float) -> float:
        """Height of thresholds when a share of the training is done; 1 where masks settle."""
        return 1.0 if done >= min(self.ramp, self.settled) else self.rise(done / self.ramp)

    def looks(self, step: int, before: float, after: float, seed: int) -> bool:
        """Whether masks are decided on again after a step.

        Args:
            step: Its number, 1 for the first.
            before: Share of the training that was done before it.
            after: And after it.
            seed: Start of the random numbers.
        """
        if before >= self.settled:
            return False
        if after >= self.settled:
            return True
        if step % INTERVAL:
            return False
        odds = 1 / (1 + (1 / LAST_PROBABILITY - 1) * after / self.settled)
        return not self.falls or np.random.default_rng([seed, step]).random() < odds
