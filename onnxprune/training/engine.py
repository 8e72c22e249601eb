"""What training loops ask of whatever computes the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

__all__ = ["Engine"]


class Engine(Protocol):
    """Computes training steps; parameters and moments stay inside between them."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def step(self, feeds: Mapping[str, np.ndarray], rate: float) -> float:
        """Do one step at a learning rate; returns the loss before it."""
        ...

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of the parameters as they are now."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on exactly from here."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        ...

    def close(self) -> None:
        """Give back memory, threads and processes."""
        ...
