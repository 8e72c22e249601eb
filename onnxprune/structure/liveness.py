"""Which atoms have to stay: those that have a share in something that stays.

As a garbage collector does: nothing stays but what is frozen, until something that stays is found
to sum over it. What is never reached goes, whole circles of neurons that only feed each other too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .analysis import Coupling
from .atoms import FIXED, Labels
from .contraction import Contraction

__all__ = ["Demand", "Survey"]


class Survey:
    """The atoms that go, while it is found out which; at first, all that are not frozen.

    Attributes:
        gone: For every label, whether an index that carries it goes.
    """

    def __init__(self, coupling: Coupling, contractions: Sequence[Contraction]) -> None:
        self._atoms = coupling.atoms
        self._contractions = contractions
        axes = [coupling.atoms.resolve(labels) for a in coupling.axes.values() for labels in a]
        # Of an axis that was given up every index carries the same label, in the same place.
        several = [labels if any(labels.strides) else labels[:1] for labels in axes]
        found = np.unique(np.concatenate([*several, [FIXED]]))
        contents = [sorted(coupling.atoms.content(int(label))) for label in found]
        lengths = [len(content) for content in contents]
        self._labels = np.repeat(found, lengths)
        self._members = np.array([atom for content in contents for atom in content], np.int64)
        self._dead = np.zeros(int(max(found.max(), self._members.max(initial=0))) + 1, bool)
        self._dead[self._members] = True
        self.gone = self._dead.copy()
        self._mark()
        self._axes = _distinct(axes)

    def dead(self) -> Labels:
        """Atoms that go, in order."""
        return np.unique(self._members[self._dead[self._members]])

    def keep(self, labels: Labels) -> None:
        """Let every atom of these labels stay."""
        wanted = np.zeros(len(self.gone), bool)
        wanted[labels] = True
        self._dead[self._members[wanted[self._labels]]] = False
        self._mark()

    def settle(self, demands: Sequence[Demand]) -> None:
        """Let everything stay that has to, until nothing more does.

        Args:
            demands: What else has to stay, asked again after every change.
        """
        self._spread()
        while True:
            labels = next((found for ask in demands if len(found := ask(self))), None)
            if labels is None:
                return
            self.keep(labels)
            self._spread()

    def _spread(self) -> None:
        """Let everything stay that has a share in what stays, unless it can be folded or merged."""
        changed = True
        while changed:
            changed = False
            for contraction in reversed(self._contractions):
                dropped = contraction.fold | contraction.merge
                going = self.gone[contraction.labels] & ~dropped
                if not going.any():
                    continue
                going &= contraction.reads(self.gone)
                if going.any():
                    self.keep(np.unique(contraction.labels[going]))
                    changed = True

    def emptied(self) -> Labels:
        """The label of one index of an axis of which nothing would be left; none without such."""
        for labels in self._axes:
            if self.gone[labels].all():
                return labels[:1]
        return np.zeros(0, np.int64)

    def single(self, label: int) -> bool:
        """Whether a label stands for one atom alone."""
        return self._atoms.content(label) == {label}

    def _mark(self) -> None:
        self.gone[:] = False
        self.gone[self._labels[self._dead[self._members]]] = True


#: Labels that have to stay, as things stand; none where all is well.
Demand = Callable[[Survey], Labels]


def _distinct(axes: Sequence[Labels]) -> list[npt.NDArray[np.int64]]:
    """The axes with removable indices, equal ones once."""
    found = {labels.tobytes(): labels for labels in axes if len(labels) and (labels != FIXED).all()}
    return list(found.values())
