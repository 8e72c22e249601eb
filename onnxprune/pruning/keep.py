"""Which weights of a layer stay, where no threshold says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Keep"]


@dataclass(frozen=True, eq=False)
class Keep:
    """Which weights of a layer stay: a bit for each, in stored order."""

    bits: np.ndarray
    size: int

    @classmethod
    def of(cls, kept: np.ndarray) -> Keep:
        """From booleans of any shape."""
        return cls(np.packbits(kept.reshape(-1)), kept.size)

    def part(self, first: int, last: int) -> np.ndarray:
        """Booleans for the weights from `first` up to but not including `last`."""
        start = first // 8
        flags = np.unpackbits(self.bits[start : -(-last // 8)], count=last - 8 * start)
        return flags[first - 8 * start :].view(bool)
