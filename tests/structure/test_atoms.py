"""The algebra: sets of atoms, equations between them, products and factors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.structure.atoms import Atoms


def sets(atoms: Atoms, labels: np.ndarray) -> list[frozenset[int]]:
    return [atoms.content(int(label)) for label in labels]


def test_fresh_atoms_are_their_own_sets() -> None:
    atoms = Atoms()
    labels = atoms.fresh(3)
    assert sets(atoms, labels) == [frozenset((int(label),)) for label in labels]
    assert not set(labels) & set(atoms.fresh(3000))


def test_single_atoms_are_substituted() -> None:
    atoms = Atoms()
    one, two, three = (atoms.fresh(4) for _ in range(3))
    atoms.unify(one, two)
    atoms.unify(two, three[::-1])
    np.testing.assert_array_equal(atoms.resolve(one), atoms.resolve(three[::-1]))
    assert len(set(atoms.resolve(one).tolist())) == 4


def test_meeting_the_empty_set_freezes() -> None:
    atoms = Atoms()
    one, two = atoms.fresh(4), atoms.fresh(4)
    atoms.unify(one, two)
    atoms.unify(one, np.array([0, two[1], 0, two[3]]))
    assert [bool(label) for label in atoms.resolve(two)] == [False, True, False, True]


def test_the_common_part_is_cancelled() -> None:
    atoms = Atoms()
    a, b, c = (atoms.fresh(1) for _ in range(3))
    atoms.unify(atoms.union(a, b), atoms.union(a, c))
    np.testing.assert_array_equal(atoms.resolve(b), atoms.resolve(c))
    assert atoms.resolve(a) != atoms.resolve(b)
    atoms.unify(atoms.union(a, b), a)
    assert atoms.resolve(b) == 0 and atoms.resolve(a) != 0


def test_sets_without_solution_become_one_atom() -> None:
    atoms = Atoms()
    one = atoms.product([atoms.fresh(2), atoms.fresh(3)])
    two = atoms.product([atoms.fresh(3), atoms.fresh(2)])
    atoms.unify(one, two)
    found = sets(atoms, np.concatenate([one, two]))
    assert len(set(found)) == 1 and len(found[0]) == 1


def test_two_products_are_matched_factor_by_factor() -> None:
    atoms = Atoms()
    one = [atoms.fresh(3), atoms.fresh(2)]
    two = [atoms.fresh(3), atoms.fresh(2)]
    atoms.unify(atoms.product(one), atoms.product(two))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(atoms.resolve(first), atoms.resolve(second))
    assert len(set(np.concatenate([atoms.resolve(part) for part in one]).tolist())) == 5


def test_a_split_axis_is_the_product_of_its_factors() -> None:
    atoms = Atoms()
    axis = atoms.fresh(24)
    parts = atoms.factors(axis, (2, 3, 4))
    assert [len(part) for part in parts] == [2, 3, 4]
    assert sets(atoms, axis) == sets(atoms, atoms.product(parts))
    again = atoms.factors(axis, (2, 3, 4))
    for part, same in zip(parts, again, strict=True):
        assert sets(atoms, part) == sets(atoms, same)
    assert all(len(s) == 3 for s in sets(atoms, axis))


def test_factors_of_repeated_and_of_frozen_labels() -> None:
    atoms = Atoms()
    channels = atoms.fresh(3)
    first, second = atoms.factors(np.repeat(channels, 4), (3, 4))
    np.testing.assert_array_equal(first, channels)
    assert not second.any()
    first, second = atoms.factors(np.tile(channels, 2), (2, 3))
    np.testing.assert_array_equal(second, channels)
    assert not first.any()


def test_factors_of_a_shuffled_product_are_cut_finer() -> None:
    """(k, g) split into two halves of k: neither k nor g are lost."""
    atoms = Atoms()
    k, g = atoms.fresh(8), atoms.fresh(2)
    axis = atoms.product([k, g])
    half, _ = atoms.factors(axis, (2, 8))
    assert len(set().union(*sets(atoms, axis))) == 2 + 4 + 2
    assert all(sets(atoms, half))


def test_marks_say_which_indices_go() -> None:
    atoms = Atoms()
    parts = [atoms.fresh(2), atoms.fresh(3)]
    axis = atoms.product(parts)
    gone = atoms.marks([int(parts[0][1])])
    assert gone[atoms.resolve(axis)].tolist() == [False] * 3 + [True] * 3
    gone = atoms.marks([int(parts[1][0])])
    assert gone[atoms.resolve(axis)].tolist() == [True, False, False] * 2


def test_occurrences_list_every_atom_of_an_axis() -> None:
    atoms = Atoms()
    parts = [atoms.fresh(2), np.zeros(1, np.int64), atoms.fresh(2)]
    found, positions = atoms.occurrences(atoms.product([parts[0], parts[2]]))
    a, b, c, d = (int(x) for part in parts for x in part if x)
    pairs = list(zip(found.tolist(), positions.tolist(), strict=True))
    assert pairs == [(a, 0), (a, 1), (b, 2), (b, 3), (c, 0), (c, 2), (d, 1), (d, 3)]


def test_causes_are_those_of_the_freeze() -> None:
    atoms = Atoms()
    one, two = atoms.fresh(2), atoms.fresh(2)
    atoms.cause = 5
    atoms.unify(one, two)
    atoms.cause = 7
    atoms.freeze(two[:1])
    atoms.cause = 9
    assert atoms.causes(one).tolist() == [7, 0]


@settings(max_examples=150)
@given(st.data())
def test_every_equation_holds_in_the_end(data: st.DataObject) -> None:
    """Whatever is stated in whatever order: all equations hold, and go on holding."""
    atoms = Atoms()
    axes = [atoms.fresh(6) for _ in range(4)]
    axes += [atoms.product([atoms.fresh(2), atoms.fresh(3)]) for _ in range(2)]
    equations: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(data.draw(st.integers(1, 8))):
        one, two = (axes[data.draw(st.integers(0, len(axes) - 1))] for _ in range(2))
        kind = data.draw(st.sampled_from(["unify", "freeze", "split", "shuffle"]))
        if kind == "freeze":
            one, two = one[:1], np.zeros(1, np.int64)
        elif kind == "split":
            rows = data.draw(st.sampled_from([2, 3]))
            two = atoms.product(atoms.factors(one, (rows, 6 // rows)))
        elif kind == "shuffle":
            two = two[np.array(data.draw(st.permutations(range(6))))]
        atoms.unify(one, two)
        equations.append((one, two))
        for first, second in equations:
            assert sets(atoms, first) == sets(atoms, second)
