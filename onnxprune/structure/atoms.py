"""The algebra of coupled indices: sets of atoms, made equal by substitution.

Every index of every axis of every tensor carries a label, an integer that stands for a set of
atoms. An index is removed as soon as one atom of its set is; label 0, the empty set, is never
removed. Making two labels equal is a substitution, so what was stated once holds for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .forest import FIXED, Forest, Keys, Labels, mixed

__all__ = ["FIXED", "Atoms", "Labels"]


class Atoms(Forest):
    """Equations between sets of atoms, and axes that are products of axes."""

    def union(self, first: Labels, second: Labels) -> Labels:
        """The label of first[i] + second[j] at [i, j], flattened."""
        left, where_left = np.unique(self.resolve(first), return_inverse=True)
        right, where_right = np.unique(self.resolve(second), return_inverse=True)
        table = self._joined(np.repeat(left, len(right)), np.tile(right, len(left)))
        table = table.reshape(len(left), len(right))
        found = table[np.ix_(where_left.reshape(-1), where_right.reshape(-1))].reshape(-1)
        stay = found == FIXED
        if stay.any():  # go on with labels that know what froze them
            i, j = np.divmod(np.flatnonzero(stay), len(second))
            known = self.causes(first[i]) != 0
            found[stay] = np.where(known, first[i], second[j])
        return found

    def product(self, axes: Sequence[Labels]) -> Labels:
        """Labels of an axis that the given axes are merged into, the last varying fastest."""
        merged = axes[0]
        for axis in axes[1:]:
            merged = self.union(merged, axis)
        return merged

    def factors(self, labels: Labels, sizes: Sequence[int]) -> list[Labels]:
        """The inverse of `product`: labels of the axes of these sizes, made to fit."""
        if len(sizes) == 1:
            return [labels]
        first, rest = self._split(labels, sizes[0], math.prod(sizes[1:]))
        return [first, *self.factors(rest, sizes[1:])]

    def freeze(self, labels: Labels) -> None:
        """State that these indices are never removed."""
        if not labels.any():
            return
        _, atoms = self._leaves(labels)
        atoms = atoms[self._distinct(atoms)]
        self._replace(atoms, np.zeros_like(atoms), self.cause)

    def unify(self, first: Labels, second: Labels) -> None:
        """State that first[i] goes exactly where second[i] goes."""
        one, two = self.resolve(first), self.resolve(second)
        differ = one != two
        if not differ.any():
            return
        one, two = one[differ], two[differ]
        causes = self._inherited(first[differ], second[differ], one, two)
        while self._unify_atoms(one, two, causes) or self._substitute(one, two, causes):
            one, two = self.resolve(one), self.resolve(two)
            differ = one != two
            if not differ.any():
                return
            one, two, causes = one[differ], two[differ], causes[differ]
        self._merge(one, two)

    def marks(self, atoms: Iterable[int]) -> npt.NDArray[np.bool_]:
        """For every label, whether an index with it goes when these atoms go."""
        chosen = np.fromiter(atoms, np.int64)
        gone = np.zeros(self._count, bool)
        gone[self._leaves(chosen)[1]] = True
        unions = np.flatnonzero(self._left[: self._count])
        left, right = self._roots(self._left[unions]), self._roots(self._right[unions])
        while True:  # unions may be inside unions
            found = gone[left] | gone[right]
            if np.array_equal(found, gone[unions]):
                return gone[self._roots(np.arange(self._count))]
            gone[unions] = found

    # Equations, from the simplest form on: each step solves as many as it can at once.

    def _inherited(self, first: Labels, second: Labels, one: Labels, two: Labels) -> Labels:
        """Causes of what is frozen on one side and is going to be on the other."""
        causes = np.full(len(first), self.cause)
        for labels, found in ((first, one), (second, two)):
            stay = found == FIXED
            if stay.any():
                known = self.causes(labels[stay])
                causes[stay] = np.where(known != 0, known, self.cause)
        return causes

    def _unify_atoms(self, first: Labels, second: Labels, causes: Labels) -> bool:
        """Solve all equations between two atoms, or an atom and FIXED."""
        plain = (self._left[first] == 0) & (self._left[second] == 0)
        if not plain.any():
            return False
        first, second, causes = first[plain], second[plain], causes[plain]
        for atoms, labels in ((second, first), (first, second)):
            if atoms.all() and self._separate(atoms, labels):
                self._replace(atoms, labels, causes)
                return True
        atoms, index = np.unique(np.concatenate([first, second]), return_inverse=True)
        ends = index.reshape(2, -1)
        links = coo_array((np.ones(len(first), bool), (ends[0], ends[1])), (len(atoms),) * 2)
        _, part = connected_components(links, directed=False)
        _, least = np.unique(part, return_index=True)  # FIXED comes before all others
        known = np.zeros(len(least), np.int64)
        known[part[ends[0]]] = causes
        others = np.flatnonzero(least[part] != np.arange(len(atoms)))
        self._replace(atoms[others], atoms[least[part[others]]], known[part[others]])
        return True

    def _separate(self, atoms: Labels, labels: Labels) -> bool:
        """Whether no atom occurs twice, or among the labels."""
        if not self._distinct(atoms).all():
            return False
        place = self._place[labels]  # what `_distinct` has left there
        known = place < len(atoms)
        return not (atoms[place[known]] == labels[known]).any()

    def _substitute(self, first: Labels, second: Labels, causes: Labels) -> bool:
        """Put unions in the place of atoms; freeze unions that equal FIXED."""
        swap = self._left[first] != 0
        atoms, unions = np.where(swap, second, first), np.where(swap, first, second)
        frozen = atoms == FIXED
        if frozen.any():
            where, inside = self._leaves(unions[frozen])
            inside, place = np.unique(inside, return_index=True)
            self._replace(inside, np.zeros_like(inside), causes[frozen][where[place]])
            return True
        single = np.flatnonzero(self._left[atoms] == 0)
        single = single[np.unique(atoms[single], return_index=True)[1]]
        while len(single):
            where, inside = self._leaves(unions[single])
            circular = np.unique(where[np.isin(inside, atoms[single])])
            if not len(circular):
                self._replace(atoms[single], unions[single], causes[single])
                return True
            single = np.delete(single, circular)
        return False

    def _merge(self, first: Labels, second: Labels) -> None:
        """Solve equations between unions: few atoms that are the same at many places."""
        self._match(first, second)
        first, second = self.resolve(first), self.resolve(second)
        differ = first != second
        for pair in dict.fromkeys(
            zip(first[differ].tolist(), second[differ].tolist(), strict=True)
        ):
            self._unify_pair(*pair)

    def _match(self, first: Labels, second: Labels) -> None:
        """Make atoms equal that occur at the same places of the two sides.

        Of a[i] + b[j] = c[i] + d[j] this is the solution a = c, b = d.
        """
        (mine, places), (others, other_places) = self._places(first), self._places(second)
        alone, other_alone = ~np.isin(mine, others), ~np.isin(others, mine)
        keys = _ranked(places[alone])
        other_keys = _ranked(other_places[other_alone])
        _, here, there = np.intersect1d(keys, other_keys, return_indices=True)
        partners = mine[alone][here], others[other_alone][there]
        self._unify_atoms(*partners, np.zeros(len(here), np.int64))

    def _places(self, labels: Labels) -> tuple[Labels, Keys]:
        """Every atom, with a key for the set of positions at which it occurs."""
        positions, atoms = self._leaves(labels)
        unique, which = np.unique(atoms, return_inverse=True)
        return unique, _sums(mixed(positions), which.reshape(-1), len(unique))

    def _unify_pair(self, one: int, two: int) -> None:
        first, second = self.content(one), self.content(two)
        first, second = first - second, second - first
        if len(first) != 1 and (len(second) == 1 or not second):
            first, second = second, first
        if not first and not second:
            return
        if not first:
            self._bind(second, FIXED)
        elif len(first) == 1:
            atoms = np.array(sorted(second), np.int64)
            self._bind(first, int(self._composed(np.zeros_like(atoms), atoms, 1)[0]))
        else:  # the true solutions of a + b = c + d are too many to follow: all of them as one
            keep = min(first | second)
            self._bind((first | second) - {keep}, keep)

    def _bind(self, atoms: Iterable[int], label: int) -> None:
        array = np.array(sorted(atoms), np.int64)
        self._replace(array, np.full_like(array, label), self.cause)

    # Products.

    def _split(self, labels: Labels, rows: int, columns: int) -> tuple[Labels, Labels]:
        """Labels u, v with u[a] + v[b] equal to labels[a, b]."""
        table = labels.reshape(rows, columns)
        found = self.resolve(labels).reshape(rows, columns)
        if not found.any():
            return table[:, 0], table[0]
        if (found == found[:, :1]).all():
            return table[:, 0], np.zeros(columns, np.int64)
        if (found == found[:1]).all():
            return np.zeros(rows, np.int64), table[0]
        if self._left[found].any():
            known = self._factored(table)
            if known is None:
                self._cut(table)
                known = self._factored(table)
            if known is not None:
                return known
        first, second = self.fresh(rows), self.fresh(columns)
        self.unify(labels, self.union(first, second))
        return first, second

    def _cut(self, table: Labels) -> None:
        """Take atoms apart that cover some rows and some columns: one for each of the two."""
        rows, columns = table.shape
        positions, atoms = self._leaves(table.reshape(-1))
        unique, which = np.unique(atoms, return_inverse=True)
        which = which.reshape(-1)
        cells = np.bincount(which)
        counts, keys = [], []
        for lines in (positions // columns, positions % columns):
            pairs = np.unique(which * max(rows, columns) + lines)
            owner = pairs // max(rows, columns)
            counts.append(np.bincount(owner, minlength=len(unique)))
            keys.append(_sums(mixed(pairs % max(rows, columns)), owner, len(unique)))
        down, across = counts
        cut = np.flatnonzero((down * across == cells) & (down < rows) & (across < columns))
        if len(cut):
            parts = []
            for key in keys:
                _, index = np.unique(key[cut], return_inverse=True)
                parts.append(self.fresh(int(index.max()) + 1)[index.reshape(-1)])
            self._replace(unique[cut], self._joined(*parts), self.cause)

    def _factored(self, table: Labels) -> tuple[Labels, Labels] | None:
        """The two parts of a table of sets that is an outer union already."""
        rows, columns = table.shape
        positions, atoms = self._leaves(table.reshape(-1))
        covered, span = np.zeros(len(atoms), bool), self._count
        parts = []
        for lines, count, full in (
            (positions // columns, rows, columns),
            (positions % columns, columns, rows),
        ):
            pairs, which, cells = np.unique(
                lines * span + atoms, return_inverse=True, return_counts=True
            )
            whole = cells == full  # the atom is in all cells of the line
            covered |= whole[which.reshape(-1)]
            pairs = pairs[whole]
            parts.append(self._composed(pairs // span, pairs % span, count))
        return (parts[0], parts[1]) if covered.all() else None


def _ranked(keys: Keys) -> Keys:
    """Keys with their repetitions made different, in order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.searchsorted(ordered, ordered)
    ranked = np.empty_like(keys)
    ranked[order] = ordered + mixed(np.arange(len(keys)) - starts)
    return ranked


def _sums(keys: Keys, groups: Labels, count: int) -> Keys:
    total = np.zeros(count, np.uint64)
    np.add.at(total, groups, keys)
    return total
