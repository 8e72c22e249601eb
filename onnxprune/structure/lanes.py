"""Lanes: the axes whose lengths decide how fast a model runs, and the groups they are made of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .analysis import Coupling
from .atoms import Labels
from .groups import Group
from .registry import Site

__all__ = ["Lane", "Layout", "lay_out"]


@dataclass(frozen=True)
class Lane:
    """An axis of channels.

    Attributes:
        length: Number of indices.
        fixed: Indices that are never removed.
        terms: Groups, by number, that indices belong to, with the number of these indices: of one
            group where groups are joined by a Concat, of several where axes are merged (heads and
            the dimensions of a head).
    """

    length: int
    fixed: int
    terms: tuple[tuple[tuple[int, ...], int], ...]

    def kept(self, counts: Sequence[int], sizes: Sequence[int]) -> int:
        """Length with these numbers of atoms kept of each group."""
        total = float(self.fixed)
        for groups, count in self.terms:
            total += count * math.prod(counts[g] / sizes[g] for g in groups)
        return round(total)


@dataclass(frozen=True)
class Layout:
    """How groups make up lanes.

    Attributes:
        sizes: Number of atoms of each group.
        lanes: Every lane, once.
        of_group: Numbers of the lanes that a group is part of.
        families: Groups that share indices, the outermost first: heads before their dimensions,
            groups of a convolution before the channels of a group. Most families are one group.
    """

    sizes: tuple[int, ...]
    lanes: tuple[Lane, ...]
    of_group: tuple[tuple[int, ...], ...]
    families: tuple[tuple[int, ...], ...]

    def main_lane(self, family: Sequence[int]) -> Lane:
        """The longest part that a family has in any lane, as a lane of its own."""
        lanes = [
            Lane(sum(count for _, count in terms), 0, terms)
            for number in dict.fromkeys(n for g in family for n in self.of_group[g])
            if (
                terms := tuple(
                    term for term in self.lanes[number].terms if set(term[0]) & set(family)
                )
            )
        ]
        return max(lanes, key=lambda lane: lane.length)

    def channels(self) -> list[float]:
        """For each group, how many channels of its family's longest lane go with an atom."""
        found = [1.0] * len(self.sizes)
        for family in self.families:
            length = self.main_lane(family).length
            for group in family:
                found[group] = length / self.sizes[group]
        return found


def lay_out(coupling: Coupling, groups: Sequence[Group]) -> Layout:
    """Find the lanes of a model and the families of its groups."""
    highest = max((int(group.atoms.max()) for group in groups), default=0)
    group_of = np.full(highest + 1, -1)
    for number, group in enumerate(groups):
        group_of[group.atoms] = number
    lanes: dict[bytes, Lane] = {}
    extents: dict[int, float] = {}
    seen: set[int] = set()
    for labels in _long_axes(coupling):
        _add_lane(coupling, labels, group_of, lanes, extents)
    for lane in lanes.values():
        seen.update(g for term, _ in lane.terms for g in term)
    for number, group in enumerate(groups):
        if number not in seen:  # nothing multiplies along it: its tensors are all there is
            for member in group.members:
                labels = coupling.axes[member.tensor][member.axis]
                _add_lane(coupling, labels, group_of, lanes, extents)
    found = tuple(lanes.values())
    of_group = tuple(
        tuple(i for i, lane in enumerate(found) if any(g in term for term, _ in lane.terms))
        for g in range(len(groups))
    )
    sizes = tuple(group.size for group in groups)
    return Layout(sizes, found, of_group, _families(len(groups), found, extents))


#: For each operator, axes of operands and results that its speed depends on.
_CHANNELS = {"Conv": 1, "ConvTranspose": 1, "FusedConv": 1}
_MATRICES = ("Gemm", "MatMul", "FusedGemm", "FusedMatMul")


def _long_axes(coupling: Coupling) -> Iterator[Labels]:
    for site in coupling.sites:
        if site is None:
            continue
        for name, place in _places(site):
            axes = coupling.axes.get(name)
            if axes is not None and -len(axes) <= place < len(axes):
                yield axes[place]


def _places(site: Site) -> Iterator[tuple[str, int]]:
    node = site.node
    if node.op_type in _CHANNELS:
        for name in (*node.input[:2], node.output[0]):
            yield name, 1
    elif node.op_type in _MATRICES:
        for name in (*node.input[:2], node.output[0]):
            yield name, -1
            yield name, -2


def _add_lane(
    coupling: Coupling,
    labels: Labels,
    group_of: Labels,
    lanes: dict[bytes, Lane],
    extents: dict[int, float],
) -> None:
    """Add the lane of an axis, and how far the indices of an atom lie apart in it."""
    key = coupling.atoms.resolve(labels).tobytes()
    if key in lanes:
        return
    atoms, positions = coupling.atoms.occurrences(labels)
    known = atoms < len(group_of)
    atoms, positions = atoms[known], positions[known]
    numbers = group_of[atoms]
    atoms, positions, numbers = (x[numbers >= 0] for x in (atoms, positions, numbers))
    if not len(atoms):
        return
    several = np.bincount(positions, minlength=len(labels)) > 1
    terms: Counter[tuple[int, ...]] = Counter()
    alone = np.bincount(numbers[~several[positions]])
    terms.update({(g,): int(count) for g, count in enumerate(alone) if count})
    shared: dict[int, set[int]] = {}
    for place, number in zip(
        positions[several[positions]].tolist(), numbers[several[positions]].tolist(), strict=True
    ):
        shared.setdefault(place, set()).add(number)
    terms.update(tuple(sorted(members)) for members in shared.values())
    if shared:
        unique, first = np.unique(atoms, return_index=True)
        last = np.append(first[1:], len(atoms)) - 1
        spans = positions[last] - positions[first]
        for number in np.unique(numbers).tolist():
            span = float(spans[group_of[unique] == number].mean())
            extents[number] = max(extents.get(number, 0.0), span / len(labels))
    lanes[key] = Lane(len(labels), len(labels) - terms.total(), tuple(terms.items()))


def _families(
    count: int, lanes: Sequence[Lane], extents: dict[int, float]
) -> tuple[tuple[int, ...], ...]:
    """Groups connected by indices that belong to several of them, nearest indices first."""
    parent = list(range(count))

    def root(group: int) -> int:
        while parent[group] != group:
            group = parent[group]
        return group

    for lane in lanes:
        for term, _ in lane.terms:
            for other in term[1:]:
                parent[root(other)] = root(term[0])
    families: dict[int, list[int]] = {}
    for group in range(count):
        families.setdefault(root(group), []).append(group)
    return tuple(
        tuple(sorted(family, key=lambda g: (extents.get(g, 0.0), g)))
        for family in families.values()
    )
