"""Several constant channels as one, where padding keeps them from becoming a bias.

What constant channels add to a padded convolution is sum_d c_d (W[:, d] * 1), with the same map of
ones, zero in the padding, for all of them: one channel r with the weights sum_d (c_d / c_r) W[:, d]
adds the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .atoms import Labels
from .contraction import Contraction
from .liveness import Survey

__all__ = ["Merge", "Merger"]

#: A channel takes over the weights of others whose constants are up to so many times larger.
_LARGEST_RATIO = 16.0

#: The places (contraction, how many of its positions) where a channel's constant is summed.
Key = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Merge:
    """Positions of a contraction that go, those that stay for them, and the factors of weights."""

    contraction: Contraction
    gone: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float64]


class Merger:
    """Plans which channels are merged into which; some have to stay for the others.

    Attributes:
        merges: The merges of the last plan.
    """

    def __init__(self, contractions: Sequence[Contraction]) -> None:
        self._contractions = contractions
        self.merges: list[Merge] = []

    def __call__(self, survey: Survey) -> Labels:
        """Labels that have to stay; none where everything that goes can be merged."""
        plan = _Plan(survey, self._contractions)
        self.merges = plan.merges
        return plan.stay


class _Plan:
    """Which channels are merged into which, as things stand, and which have to stay for that."""

    def __init__(self, survey: Survey, contractions: Sequence[Contraction]) -> None:
        self._contractions = contractions
        self._gone = survey.gone
        self.merges: list[Merge] = []
        self._single = survey.single
        stay: list[int] = []
        for key, atoms in self._needs(stay).items():
            stay += self._assign(key, atoms)
        self.stay = np.array(sorted(set(stay)), np.int64)

    def _needs(self, stay: list[int]) -> dict[Key, list[int]]:
        """Atoms that go and have to be merged, by where; labels of several atoms have to stay."""
        places: dict[int, list[int]] = defaultdict(list)
        for number, contraction in enumerate(self._contractions):
            needed = contraction.merge & self._gone[contraction.labels]
            if not needed.any():
                continue
            needed &= contraction.reads(self._gone)
            for label in np.unique(contraction.labels[needed]).tolist():
                if self._single(label):
                    places[label].append(number)
                else:
                    stay.append(label)
        found: dict[Key, list[int]] = defaultdict(list)
        for atom, numbers in places.items():
            found[tuple((n, len(self._positions(n, atom))) for n in numbers)].append(atom)
        return found

    def _assign(self, key: Key, atoms: list[int]) -> list[int]:
        """Plan merges of some atoms; the one that has to stay where no other takes it over."""
        constants = self._constants(key, atoms)
        keepers = self._keepers(key)
        for keeper in keepers:
            mine = self._constants(key, [keeper])[0]
            fits = (np.abs(constants) <= _LARGEST_RATIO * np.abs(mine)).all(1)
            for row in np.flatnonzero(fits):
                self._merge(key, atoms[row], keeper)
            atoms = [atom for atom, taken in zip(atoms, fits, strict=True) if not taken]
            constants = constants[~fits]
        if not atoms:
            return []
        # The channel whose constants are the largest, at the place where they are the smallest.
        largest = np.abs(constants).max(0)
        share = np.abs(constants) / np.where(largest > 0, largest, 1.0)
        return [atoms[int(share.min(1).argmax())]]

    def _keepers(self, key: Key) -> list[int]:
        """Atoms that stay and are constants at all these places."""
        number = key[0][0]
        contraction = self._contractions[number]
        ready = contraction.merge & ~self._gone[contraction.labels]
        return [
            atom
            for atom in np.unique(contraction.labels[ready]).tolist()
            if self._single(atom)
            and all(
                len(self._positions(n, atom)) == count
                and self._contractions[n].merge[self._positions(n, atom)].all()
                for n, count in key
            )
        ]

    def _merge(self, key: Key, atom: int, keeper: int) -> None:
        for number, _ in key:
            contraction = self._contractions[number]
            gone, kept = self._positions(number, atom), self._positions(number, keeper)
            factors = contraction.values[gone] / contraction.values[kept]
            self.merges.append(Merge(contraction, gone, kept, factors))

    def _positions(self, number: int, atom: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self._contractions[number].labels == atom)

    def _constants(self, key: Key, atoms: list[int]) -> npt.NDArray[np.float64]:
        """For each atom, its constants at all places."""
        rows = [
            np.concatenate([self._contractions[n].values[self._positions(n, atom)] for n, _ in key])
            for atom in atoms
        ]
        return np.array(rows, np.float64)
