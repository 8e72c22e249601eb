"""Labels and the sets of atoms that they stand for, as arrays: all of an axis at once.

A label is an atom, a union of two labels, or has been replaced by another label. Unions stay as
they were written; what they contain is read from the labels at their ends, so that replacing an
atom costs nothing for the unions that it is in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["FIXED", "Forest", "Keys", "Labels", "mixed"]

#: One label per index of an axis.
Labels = npt.NDArray[np.int64]
#: Hashes: equal sets have equal ones.
Keys = npt.NDArray[np.uint64]

#: The label of an index that is never removed.
FIXED = 0

_GROWING = ("_forward", "_alias", "_left", "_right", "_causes", "_key", "_in_union", "_place")
_SPARE_ROUNDS = 4  # of unions inside unions, before they are written flat


class Forest:
    """Labels, and what has been put in the place of which.

    `cause` is stored with every label that is frozen from now on, so that one can ask later what
    froze it.
    """

    def __init__(self) -> None:
        self.cause = 0
        self._count = 1
        self._changes = 0  # of atoms that are in unions
        self._forward: Labels = np.zeros(1024, np.int64)
        self._alias: Labels = np.zeros(1024, np.int64)
        self._left: Labels = np.zeros(1024, np.int64)
        self._right: Labels = np.zeros(1024, np.int64)
        self._causes: Labels = np.zeros(1024, np.int64)
        self._key: Keys = np.zeros(1024, np.uint64)
        self._in_union = np.zeros(1024, bool)
        self._known: dict[int, int] = {}  # labels of unions with a right key, by key
        self._frozen: dict[int, int] = {0: FIXED}  # by cause
        self._place: Labels = np.zeros(1024, np.int64)  # scratch of `_distinct`
        self._known_at: Labels = np.full(1024, -1, np.int64)  # `_changes` when `_key` was right

    def fresh(self, count: int) -> Labels:
        """Labels of `count` new atoms."""
        labels = self._reserve(count)
        self._key[labels] = mixed(labels)
        return labels

    def frozen(self, cause: int) -> int:
        """A label that stands for the empty set and knows a cause."""
        if cause not in self._frozen:
            label = self._reserve(1)
            self._forward[label], self._causes[label] = FIXED, cause
            self._frozen[cause] = int(label[0])
        return self._frozen[cause]

    def resolve(self, labels: Labels) -> Labels:
        """What the labels stand for now: FIXED, an atom, or a union of at least two atoms.

        Of what is resolved without an equation in between, equal sets have equal labels.
        """
        if len(labels) > 1 and not any(labels.strides):  # one label, for every index of an axis
            return np.broadcast_to(self.resolve(labels[:1]), labels.shape)
        found = self._roots(labels)
        unions = found[(self._left[found] != 0) & (self._known_at[found] != self._changes)]
        if len(unions):
            self._settle(unions[self._distinct(unions)])
            found = self._roots(found)
        shared: Labels = self._alias[found]
        return shared

    def content(self, label: int) -> frozenset[int]:
        """Atoms of a label's set, all of them free."""
        while (further := int(self._forward[label])) != label:
            label = further
        if not self._left[label]:
            return frozenset((label,)) if label != FIXED else frozenset()
        _, atoms = self._leaves(np.array([label], np.int64))
        return frozenset(atoms.tolist())

    def occurrences(self, labels: Labels) -> tuple[Labels, Labels]:
        """Pairs (atom, position) of every free atom in an axis, sorted by atom, then position."""
        positions, atoms = self._leaves(np.asarray(labels, np.int64))
        order = np.lexsort((positions, atoms))
        return atoms[order], positions[order]

    def causes(self, labels: Labels) -> Labels:
        """The `cause` at the time when each of these labels was frozen; 0 for those that are not.

        Labels that were FIXED from the start have no cause either.
        """
        self.resolve(np.asarray(labels, np.int64))  # unions of frozen atoms are frozen
        current = np.array(labels, np.int64)
        while True:
            further = self._forward[current]
            onward = (further != FIXED) & (further != current)
            if not onward.any():
                return np.where(self._forward[current] == FIXED, self._causes[current], 0)
            current[onward] = further[onward]

    def _reserve(self, count: int) -> Labels:
        start, self._count = self._count, self._count + count
        room = len(self._forward)
        if self._count > room:
            extra = max(self._count - room, room)
            for name in _GROWING:
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros(extra, old.dtype)]))
            self._known_at = np.concatenate([self._known_at, np.full(extra, -1, np.int64)])
        labels = np.arange(start, self._count, dtype=np.int64)
        self._forward[labels] = self._alias[labels] = labels
        return labels

    def _roots(self, labels: Labels) -> Labels:
        """Ends of the chains of replacements, which get shorter on the way.

        A chain that ends in FIXED keeps its last link, which knows the cause.
        """
        found = self._forward[labels]
        if (self._forward[found] == found).all():
            return found
        above = np.array(labels, np.int64)
        while True:
            further = self._forward[found]
            moved = further != found
            if not moved.any():
                break
            above[moved] = found[moved]
            found = further
        self._forward[labels] = np.where(found != FIXED, found, np.where(above == labels, 0, above))
        return found

    def _leaves(self, labels: Labels) -> tuple[Labels, Labels]:
        """Pairs (position, atom) of the atoms of all labels, sorted, without repetitions."""
        return self._expanded(labels)[:2]

    def _expanded(self, labels: Labels) -> tuple[Labels, Labels, int]:
        """As `_leaves`; and how deep the deepest union is."""
        where = np.arange(len(labels), dtype=np.int64)
        found, rounds = self._roots(labels), 0
        while (unions := self._left[found] != 0).any():
            inside = found[unions]
            parts = np.concatenate([self._left[inside], self._right[inside]])
            where = np.concatenate([where[~unions], where[unions], where[unions]])
            found = np.concatenate([found[~unions], self._roots(parts)])
            rounds += 1
        there = found != FIXED
        where, found = where[there], found[there]
        if rounds:
            pairs = where * self._count + found
            pairs.sort()
            pairs = pairs[np.diff(pairs, prepend=-1) != 0]
            where, found = np.divmod(pairs, self._count)
        return where, found, rounds

    def _distinct(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Which labels are the last of their kind: each occurs once among these."""
        order = np.arange(len(labels))
        self._place[labels] = order
        found: npt.NDArray[np.bool_] = self._place[labels] == order
        return found

    def _settle(self, unions: Labels) -> None:
        """Find out what is left of unions: nothing, an atom, or several and their key."""
        positions, atoms, rounds = self._expanded(unions)
        counts = np.bincount(positions, minlength=len(unions))
        empty, single, several = unions[counts == 0], unions[counts == 1], counts > 1
        if len(empty):
            left, right = self.causes(self._left[empty]), self.causes(self._right[empty])
            self._causes[empty] = np.where(left != 0, left, right)
            self._forward[empty] = FIXED
        self._forward[single] = atoms[counts[positions] == 1]
        left = unions[several]
        if not len(left):
            return
        keys = _summed(self._key[atoms], positions, len(unions))[several]
        if rounds > counts.max() + _SPARE_ROUNDS:
            flat = self._composed(positions, atoms, len(unions))[several]
            self._forward[left] = flat
            left = flat
        self._key[left], self._known_at[left] = keys, self._changes
        self._share(left, keys)

    def _share(self, unions: Labels, keys: Keys) -> None:
        """Let equal sets have one label, as long as no atom in a union is replaced.

        A second name and no replacement: of equal unions, one may be inside the other.
        """
        pairs = zip(keys.tolist(), unions.tolist(), strict=True)
        self._alias[unions] = [self._known.setdefault(*pair) for pair in pairs]

    def _joined(self, first: Labels, second: Labels) -> Labels:
        """Labels of first[i] + second[i], both of them resolved."""
        alone = (second == FIXED) | (first == second)
        result = np.where(alone, first, second)
        made = ~alone & (first != FIXED)
        labels = self._reserve(int(made.sum()))
        self._left[labels], self._right[labels] = first[made], second[made]
        self._in_union[first[made]] = self._in_union[second[made]] = True
        result[made] = labels
        return result

    def _composed(self, positions: Labels, atoms: Labels, count: int) -> Labels:
        """Labels of `count` sets, given the pairs (position, atom), sorted by position."""
        result = np.zeros(count, np.int64)
        starts = np.searchsorted(positions, np.arange(count))
        rank = np.arange(len(positions)) - starts[positions]
        for number in range(int(rank.max(initial=-1)) + 1):
            these = rank == number
            where = positions[these]
            result[where] = self._joined(result[where], atoms[these])
        return result

    def _replace(self, atoms: Labels, labels: Labels, causes: Labels | int) -> None:
        """Put labels in the place of free atoms, which are distinct and not in their sets."""
        self._forward[atoms] = labels
        self._causes[atoms] = causes
        inside = self._in_union[atoms]
        if inside.any():
            self._changes += 1
            self._known.clear()
            self._in_union[labels[inside]] = True


def mixed(numbers: Labels) -> Keys:
    """Numbers that look random: sums of different ones are practically never equal.

    The finalizer of splitmix64 (Steele, Lea and Flood 2014, Fast splittable pseudorandom number
    generators).
    """
    z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _summed(keys: Keys, groups: Labels, count: int) -> Keys:
    """Sums of keys by group, modulo 2 ** 64."""
    total = np.zeros(count, np.uint64)
    np.add.at(total, groups, keys)
    return total
