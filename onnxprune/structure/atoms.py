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

__all__ = ["FIXED", "Atoms", "Labels"]

#: One label per index of an axis.
Labels = npt.NDArray[np.int64]

#: The label of an index that is never removed.
FIXED = 0


class Atoms:
    """Atoms, sets of atoms, and what has been substituted for what.

    Atoms and sets share one numbering. `cause` is stored with every atom that is frozen from
    now on, so that one can ask later what froze it.
    """

    def __init__(self) -> None:
        self.cause = 0
        self._count = 1
        self._forward: Labels = np.zeros(1024, np.int64)
        self._causes = np.zeros(1024, np.int64)
        self._composite = np.zeros(1024, bool)
        self._in_set = np.zeros(1024, bool)  # the atom occurs in a set of several
        self._content: dict[int, frozenset[int]] = {}
        self._interned: dict[frozenset[int], int] = {}
        self._users: dict[int, list[int]] = {}

    def fresh(self, count: int) -> Labels:
        """Labels of `count` new atoms."""
        start = self._reserve(count)
        return np.arange(start, start + count, dtype=np.int64)

    def resolve(self, labels: Labels) -> Labels:
        """What the labels stand for now."""
        found = self._forward[labels]
        while True:
            further = self._forward[found]
            if np.array_equal(further, found):
                break
            found = further
        # Shorten the chain, except where it ends in FIXED: its links know the cause.
        free = found != FIXED
        self._forward[labels[free]] = found[free]
        return found

    def content(self, label: int) -> frozenset[int]:
        """Atoms of a label's set, all of them free."""
        label = self._find(label)
        if label == FIXED:
            return frozenset()
        return self._content[label] if self._composite[label] else frozenset((label,))

    def union(self, first: Labels, second: Labels) -> Labels:
        """The label of first[i] + second[j] at [i, j], flattened."""
        first, second = self.resolve(first), self.resolve(second)
        if not second.any():
            return np.repeat(first, len(second))
        if not first.any():
            return np.tile(second, len(first))
        ones, where_one = np.unique(first, return_inverse=True)
        twos, where_two = np.unique(second, return_inverse=True)
        left = [self.content(int(label)) for label in ones]
        right = [self.content(int(label)) for label in twos]
        table = self._intern_all([a | b for a in left for b in right])
        table = table.reshape(len(left), len(right))
        return table[np.ix_(where_one.reshape(-1), where_two.reshape(-1))].reshape(-1)

    def product(self, axes: Sequence[Labels]) -> Labels:
        """Labels of an axis that the given axes are merged into, the last varying fastest."""
        merged = np.zeros(1, np.int64)
        for axis in axes:
            merged = self.union(merged, axis)
        return merged

    def factors(self, labels: Labels, sizes: Sequence[int]) -> list[Labels]:
        """The inverse of `product`: labels of the axes of these sizes, made to fit."""
        if len(sizes) == 1:
            return [self.resolve(labels)]
        first, rest = self._split(labels, sizes[0], math.prod(sizes[1:]))
        return [first, *self.factors(rest, sizes[1:])]

    def freeze(self, labels: Labels) -> None:
        """State that these indices are never removed."""
        found = self.resolve(labels)
        self.unify(found, np.zeros_like(found))

    def unify(self, first: Labels, second: Labels) -> None:
        """State that first[i] goes exactly where second[i] goes."""
        first, second = self.resolve(first), self.resolve(second)
        differ = first != second
        if not differ.any():
            return
        first, second = first[differ], second[differ]
        if self._bind_all(second, first) or self._bind_all(first, second):
            return
        if self._composite[first].any() and self._composite[second].any():
            self._match(first, second)
        pairs = dict.fromkeys(zip(first.tolist(), second.tolist(), strict=True))
        for one, two in pairs:
            self._unify_pair(one, two)

    def marks(self, atoms: Iterable[int]) -> npt.NDArray[np.bool_]:
        """For every resolved label, whether an index with it goes when these atoms go."""
        gone = np.zeros(self._count, bool)
        for atom in atoms:
            gone[sorted(self.content(atom))] = True
        for label, content in self._content.items():
            gone[label] = any(gone[atom] for atom in content)
        return gone

    def occurrences(self, labels: Labels) -> tuple[Labels, Labels]:
        """Pairs (atom, position) of every free atom in an axis, sorted by atom, then position."""
        found = self.resolve(labels)
        several = self._composite[found]
        positions = np.flatnonzero((found != FIXED) & ~several)
        atoms = found[positions]
        extra = [
            (atom, position)
            for position in np.flatnonzero(several).tolist()
            for atom in self._content[int(found[position])]
        ]
        if extra:
            more = np.array(extra, np.int64)
            atoms = np.concatenate([atoms, more[:, 0]])
            positions = np.concatenate([positions, more[:, 1]])
        order = np.lexsort((positions, atoms))
        return atoms[order], positions[order]

    def causes(self, labels: Labels) -> Labels:
        """The `cause` at the time when each of these labels was frozen; 0 for those that are not.

        Labels that were FIXED from the start have no cause either.
        """
        current = np.asarray(labels, np.int64)
        while True:
            further = self._forward[current]
            onward = (further != FIXED) & (further != current)
            if not onward.any():
                return np.where(self._forward[current] == FIXED, self._causes[current], 0)
            current = np.where(onward, further, current)

    def _reserve(self, count: int) -> int:
        start, self._count = self._count, self._count + count
        room = len(self._forward)
        if self._count > room:
            extra = max(self._count - room, room)
            self._forward = np.concatenate([self._forward, np.zeros(extra, np.int64)])
            self._causes = np.concatenate([self._causes, np.zeros(extra, np.int64)])
            self._composite = np.concatenate([self._composite, np.zeros(extra, bool)])
            self._in_set = np.concatenate([self._in_set, np.zeros(extra, bool)])
        self._forward[start : self._count] = np.arange(start, self._count)
        return start

    def _find(self, label: int) -> int:
        while True:
            further = int(self._forward[label])
            if further == label:
                return label
            label = further

    def _intern(self, atoms: frozenset[int]) -> int:
        """The label of a set of free atoms."""
        return int(self._intern_all([atoms])[0])

    def _intern_all(self, sets: list[frozenset[int]]) -> Labels:
        """The labels of sets of free atoms."""
        found: list[int] = []
        made: list[frozenset[int]] = []
        start = self._count
        for atoms in sets:
            if len(atoms) < 2:
                found.append(next(iter(atoms), FIXED))
                continue
            label = self._interned.get(atoms)
            if label is None:
                label = self._interned[atoms] = start + len(made)
                self._content[label] = atoms
                made.append(atoms)
                for atom in atoms:
                    self._users.setdefault(atom, []).append(label)
            found.append(label)
        if made:
            self._reserve(len(made))
            self._composite[start : self._count] = True
            self._in_set[list(frozenset().union(*made))] = True
        return np.array(found, np.int64)

    def _bind(self, atom: int, label: int) -> None:
        """Put a label in the place of a free atom, in every set that has it."""
        self._forward[atom] = label
        self._causes[atom] = self.cause
        for user in self._users.pop(atom, ()):
            if self._forward[user] == user:
                parts = [self.content(member) for member in self._content.pop(user)]
                self._forward[user] = self._intern(frozenset().union(*parts))
                self._causes[user] = self.cause

    def _bind_all(self, atoms: Labels, labels: Labels) -> bool:
        """Bind many atoms at once where none depends on another; False where that is not so."""
        simple = (atoms != FIXED) & ~self._composite[atoms] & ~self._in_set[atoms]
        if not simple.all():
            return False
        if labels.any() and (np.isin(labels, atoms).any() or not _distinct(atoms)):
            return False
        self._forward[atoms] = labels
        self._causes[atoms] = self.cause
        return True

    def _match(self, first: Labels, second: Labels) -> None:
        """Make atoms equal that occur at the same places of the two sides.

        Of a[i] + b[j] = c[i] + d[j] this is the solution a = c, b = d.
        """
        mine, others = self._places(first), self._places(second)
        free: dict[bytes, list[int]] = {}
        for atom in mine.keys() - others.keys():
            free.setdefault(mine[atom], []).append(atom)
        for atom in sorted(others.keys() - mine.keys()):
            partners = free.get(others[atom])
            if partners:
                self._unify_pair(min(partners), atom)
                partners.remove(min(partners))

    def _places(self, labels: Labels) -> dict[int, bytes]:
        """Every atom with the positions at which it occurs."""
        atoms, positions = self.occurrences(labels)
        unique, start = np.unique(atoms, return_index=True)
        parts = np.split(positions, start[1:])
        return {atom: part.tobytes() for atom, part in zip(unique.tolist(), parts, strict=True)}

    def _unify_pair(self, one: int, two: int) -> None:
        first, second = self.content(one), self.content(two)
        first, second = first - second, second - first
        if len(first) != 1 and (len(second) == 1 or not second):
            first, second = second, first
        if not first:
            for atom in second:
                self._bind(atom, FIXED)
        elif len(first) == 1:
            (atom,) = first
            self._bind(atom, self._intern(second))
        else:  # the true solutions of a + b = c + d are too many to follow: all of them as one
            keep = min(first | second)
            for atom in (first | second) - {keep}:
                self._bind(atom, keep)

    def _split(self, labels: Labels, rows: int, columns: int) -> tuple[Labels, Labels]:
        """Labels u, v with u[a] + v[b] equal to labels[a, b]."""
        table = self.resolve(labels).reshape(rows, columns)
        if (table == table[:, :1]).all():
            return table[:, 0].copy(), np.zeros(columns, np.int64)
        if (table == table[:1]).all():
            return np.zeros(rows, np.int64), table[0].copy()
        if self._composite[table].any():
            known = self._factored(table) or self._factored(self._cut(table))
            if known is not None:
                return known
        first, second = self.fresh(rows), self.fresh(columns)
        self.unify(table.reshape(-1), self.union(first, second))
        return self.resolve(first), self.resolve(second)

    def _cut(self, table: Labels) -> Labels:
        """Take atoms apart that cover some rows and some columns: one for each of the two."""
        rows, columns = table.shape
        parts: dict[tuple[str, bytes], int] = {}
        for atom, where in self._places(table.reshape(-1)).items():
            cells = np.frombuffer(where, np.int64)
            across, down = np.unique(cells % columns), np.unique(cells // columns)
            if len(across) * len(down) != len(cells) or columns == len(across) or rows == len(down):
                continue
            keys = (("rows", down.tobytes()), ("columns", across.tobytes()))
            for key in keys:
                if key not in parts:
                    parts[key] = int(self.fresh(1)[0])
            self._bind(atom, self._intern(frozenset(parts[key] for key in keys)))
        return self.resolve(table)

    def _factored(self, table: Labels) -> tuple[Labels, Labels] | None:
        """The two parts of a table of sets that is an outer union already."""
        sets = [[self.content(int(label)) for label in row] for row in table]
        rows = [frozenset.intersection(*row) for row in sets]
        columns = [frozenset.intersection(*column) for column in zip(*sets, strict=True)]
        for row, line in zip(rows, sets, strict=True):
            if any(row | column != cell for column, cell in zip(columns, line, strict=True)):
                return None
        return self._intern_all(rows), self._intern_all(columns)


def _distinct(labels: Labels) -> bool:
    return len(np.unique(labels)) == len(labels)
