"""Choosing atoms: how many each group keeps, in lengths that run fast, and which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Scope
from .analysis import Coupling
from .groups import Group
from .importance import Scores
from .lanes import Lane, Layout, lay_out

__all__ = ["Choice", "Chooser"]

#: With a global scope every group keeps at least this share of what groups keep on average: losses
#: do not add up where nearly all of a layer goes, and a chain is as wide as its narrowest link.
LEAST = 0.5


@dataclass(frozen=True, eq=False)
class Choice:
    """What goes.

    Attributes:
        counts: Number of atoms that each group keeps.
        atoms: The atoms that go.
        share: Share of the channels that goes.
    """

    counts: tuple[int, ...]
    atoms: tuple[int, ...]
    share: float


class Chooser:
    """Chooses atoms of a model at a level from 0 (nothing goes) up to 1.

    Args:
        coupling: The analysed model.
        groups: Its groups.
        scores: Importance of each group's atoms, comparable between groups.
        scope: ``layer``: every group loses the same share; ``global``: the least important atoms
            of all groups go.
        align: What lanes keep is a multiple of this where that is possible.
    """

    def __init__(
        self,
        coupling: Coupling,
        groups: Sequence[Group],
        scores: Sequence[Scores],
        *,
        scope: Scope,
        align: int,
    ) -> None:
        self.coupling = coupling
        self.groups = groups
        self.layout: Layout = lay_out(coupling, groups)
        self._orders = [np.argsort(score, kind="stable") for score in scores]
        self._aligns = [_alignment(lane, align) for lane in self.layout.lanes]
        self._mains = [self.layout.main_lane(family) for family in self.layout.families]
        roots = [np.sort(scores[family[0]]) for family in self.layout.families]
        self._ranked = roots if scope == "global" else None
        # Long lanes count for as many channels as they have.
        self._pool = _weighted(roots, [lane.length for lane in self._mains])

    def at_share(self, share: float) -> Choice:
        """The choice that comes nearest to a share of all channels; not more than it by layer."""
        if self._ranked is None:
            return self.at_level(share)
        low, high = 0.0, 1.0
        below, above = self.at_level(low), self.at_level(high)
        for _ in range(20):
            middle = (low + high) / 2
            found = self.at_level(middle, average=share)
            if found.share <= share:
                low, below = middle, found
            else:
                high, above = middle, found
        return below if share - below.share <= above.share - share else above

    def at_level(self, level: float, average: float | None = None) -> Choice:
        """The choice at a level.

        Args:
            level: With the scope ``layer``, the share that every group loses; with ``global``,
                the quantile of all scores below which atoms go.
            average: Share that groups lose on average; the level by default.
        """
        sizes = self.layout.sizes
        if self._ranked is None:
            shares = [level] * len(self.layout.families)
        else:
            most = 1 - LEAST * (1 - (level if average is None else average))
            shares = [min(s, most) for s in _below(self._ranked, self._pool, level)]
        wanted, counts = [0] * len(sizes), list(sizes)
        decided: set[int] = set()
        for family, share in zip(self.layout.families, shares, strict=True):
            for group in family:
                wanted[group] = self._wanted(group, share, counts, decided.intersection(family))
                counts[group] = self._rounded(group, wanted[group], counts, decided)
                decided.add(group)
        for family in self.layout.families:  # once more, now that all parts of a Concat are known
            if len(family) == 1:
                counts[family[0]] = self._rounded(family[0], wanted[family[0]], counts, decided)
        return self.with_counts(counts)

    def _wanted(self, group: int, share: float, counts: Sequence[int], decided: set[int]) -> int:
        """Atoms that a group should keep, given what outer groups of its family lose already."""
        size = self.layout.sizes[group]
        outer = [
            math.prod(counts[g] / self.layout.sizes[g] for g in term if g in decided)
            for number in self.layout.of_group[group]
            for term, _ in self.layout.lanes[number].terms
            if group in term and decided.intersection(term)
        ]
        left = min((1 - share) / min(outer), 1.0) if outer else 1 - share
        return max(1, math.ceil(size * left - 1e-9))

    def _rounded(self, group: int, wanted: int, counts: Sequence[int], decided: set[int]) -> int:
        """The least number of atoms from the wanted one on with which lanes are best aligned."""
        sizes = self.layout.sizes
        numbers = self.layout.of_group[group]
        reach = max((self._aligns[number] for number in numbers), default=1)
        tried = list(range(wanted, min(sizes[group], wanted + reach - 1) + 1))
        trial = [n if g in decided else 0 for g, n in enumerate(counts)]
        costs = []
        for count in tried:
            trial[group] = count
            costs.append(
                sum(
                    1 / math.gcd(self._aligns[number], self._length(number, trial, group, decided))
                    for number in numbers
                )
            )
        return tried[int(np.argmin(np.round(costs, 9)))]

    def _length(self, number: int, trial: list[int], group: int, decided: set[int]) -> int:
        """Length of a lane; inner groups of the family that are not decided yet keep all."""
        lane, sizes = self.layout.lanes[number], self.layout.sizes
        total = float(lane.fixed)
        for term, count in lane.terms:
            if group in term or decided.issuperset(term):
                known = (g for g in term if g == group or g in decided)
                total += count * math.prod(trial[g] / sizes[g] for g in known)
        return round(total)

    def with_counts(self, counts: Sequence[int]) -> Choice:
        """The choice that keeps these numbers of atoms: the most important of each group."""
        gone: list[int] = []
        for group, order, count in zip(self.groups, self._orders, counts, strict=True):
            gone += group.atoms[order[: group.size - count]].tolist()
        return Choice(tuple(counts), tuple(gone), self._share(counts))

    def _share(self, counts: Sequence[int]) -> float:
        total = sum(lane.length for lane in self._mains)
        kept = sum(lane.kept(counts, self.layout.sizes) for lane in self._mains)
        return 1 - kept / total if total else 0.0

    def without_holes(self, choice: Choice) -> Choice:
        """The choice without atoms whose loss would leave nothing of some axis."""
        left = _restored(self.coupling, choice.atoms, self._ranks())
        if not left:
            return choice
        atoms = tuple(atom for atom in choice.atoms if atom not in left)
        counts = tuple(
            count + len(left.intersection(group.atoms.tolist()))
            for count, group in zip(choice.counts, self.groups, strict=True)
        )
        return Choice(counts, atoms, self._share(counts))

    def _ranks(self) -> dict[int, float]:
        """Rank of each atom in its group, from 0 for the least important up to 1."""
        return {
            atom: place / group.size
            for group, order in zip(self.groups, self._orders, strict=True)
            for place, atom in enumerate(group.atoms[order].tolist())
        }


def _alignment(lane: Lane, align: int) -> int:
    """What to round a lane to: less than `align` where it has too few indices for two of it."""
    divisors = [d for d in range(1, align + 1) if align % d == 0 and 2 * d <= lane.length]
    return max(divisors, default=1)


def _weighted(scores: Sequence[Scores], lengths: Sequence[int]) -> tuple[Scores, Scores]:
    """All scores in order, with the share of channels that lie at or below each."""
    if not scores:
        return np.zeros(0), np.zeros(0)
    values = np.concatenate(list(scores))
    weights = np.concatenate(
        [np.full(len(s), n / max(len(s), 1)) for s, n in zip(scores, lengths, strict=True)]
    )
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return values[order], total / total[-1]


def _below(ranked: Sequence[Scores], pool: tuple[Scores, Scores], level: float) -> list[float]:
    """Share of each family's scores below the quantile at a level."""
    values, shares = pool
    place = int(np.searchsorted(shares, level, side="right"))
    limit = values[place] if place < len(values) else np.inf
    return [float(np.searchsorted(s, limit, side="left")) / len(s) for s in ranked]


def _restored(coupling: Coupling, gone: Sequence[int], ranks: Mapping[int, float]) -> set[int]:
    """Atoms to keep after all: those of the most important index of each axis that is empty."""
    chosen, restored = set(gone), set[int]()
    axes = {coupling.atoms.resolve(x).tobytes(): x for a in coupling.axes.values() for x in a}
    while True:
        marks = coupling.atoms.marks(chosen)
        empty = [
            labels
            for labels in map(coupling.atoms.resolve, axes.values())
            if len(labels) and marks[labels].all()
        ]
        if not empty:
            return restored
        for labels in empty:
            kept = max(
                (coupling.atoms.content(label) for label in np.unique(labels).tolist()),
                key=lambda atoms: sum(ranks.get(atom, 0.0) for atom in atoms) / len(atoms),
            )
            restored |= kept & chosen
            chosen -= kept
