"""How many atoms each group keeps, and which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.structure.analysis import Coupling, analyse
from onnxprune.structure.choice import LEAST, Chooser
from onnxprune.structure.groups import Group, find_groups
from onnxprune.structure.importance import magnitudes
from onnxprune.structure.lanes import lay_out
from onnxprune.structure.removal import remove_coupled
from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import run


def found(case: Case) -> tuple[Coupling, list[Group]]:
    coupling = analyse(built(case))
    return coupling, find_groups(coupling)


def chooser(case: Case, scope: str = "layer", align: int = 8) -> Chooser:
    coupling, groups = found(case)
    return Chooser(coupling, groups, magnitudes(coupling, groups), scope=scope, align=align)  # type: ignore[arg-type]


def chain(*sizes: int) -> Case:
    """Convolutions one after the other, with these channels between them."""
    ends = (4, *sizes, 3)
    lines = [f"h{i} = Conv(h{i - 1}, w{i})" for i in range(1, len(ends))]
    weights = {f"w{i}": (ends[i], ends[i - 1], 1, 1) for i in range(1, len(ends))}
    text = "\n".join(lines).replace("h0", "x").replace(f"h{len(ends) - 1} =", "y =")
    return Case(text, weights, [])


def test_layer_scope_rounds_what_is_kept_up() -> None:
    assert chooser(chain(64, 20, 17)).at_share(0.5).counts == (32, 16, 16)
    assert chooser(chain(64, 20, 17)).at_share(0.7).counts == (24, 8, 8)
    assert chooser(chain(64, 20, 17), align=1).at_share(0.7).counts == (20, 6, 6)
    assert chooser(chain(64, 100), align=32).at_share(0.6).counts == (32, 64)


def test_short_axes_are_rounded_to_less() -> None:
    # Of 12 channels no two eights can be made: fours will do, and of 4 channels twos.
    assert chooser(chain(12, 4, 3, 2)).at_share(0.7).counts == (4, 2, 1, 1)


def test_nothing_goes_where_that_would_only_break_an_alignment() -> None:
    assert chooser(chain(16, 24)).at_share(0.1).counts == (16, 24)
    assert chooser(chain(16)).at_share(0.1).share == 0


def test_the_least_important_go() -> None:
    model = chain(8)
    weights = dict(model.weights)
    order = np.array([5, 0, 7, 2, 1, 6, 3, 4], np.float32)
    weights["w1"] = np.broadcast_to((order + 1).reshape(8, 1, 1, 1), (8, 4, 1, 1)).copy()
    weights["w2"] = np.ones((3, 8, 1, 1), np.float32)
    chosen = chooser(Case(model.nodes, weights, []))
    (group,) = chosen.groups
    gone = set(chosen.at_share(0.5).atoms)
    assert [i for i, atom in enumerate(group.atoms.tolist()) if atom in gone] == [1, 3, 4, 6]


def test_parts_of_a_concat_are_rounded_together() -> None:
    case = Case(
        "a = Conv(x, w)\nb = Conv(x, v)\nc = Concat<axis=1>(a, x, b)\ny = Conv(c, u)",
        {"w": (32, 4, 1, 1), "v": (24, 4, 1, 1), "u": (3, 60, 1, 1)},
        [],
    )
    chosen = chooser(case)
    counts = chosen.at_share(0.5).counts
    assert counts == (16, 12)  # with the 4 of x they are 32
    lanes = {lane.length: lane for lane in chosen.layout.lanes}
    assert lanes[60].fixed == 4
    assert lanes[60].kept(counts, chosen.layout.sizes) == 32


HEADS = Case(
    "h = MatMul(x, w)\na = Reshape(h, s)\nb = Relu(a)\nc = Reshape(b, t)\ny = MatMul(c, v)",
    {"w": (6, 96), "s": ints(0, 6, 16), "t": ints(0, 96), "v": (96, 3)},
    [],
    (6,),
)


def test_heads_go_before_their_dimensions() -> None:
    chosen = chooser(HEADS)
    sizes = chosen.layout.sizes
    (family,) = chosen.layout.families
    assert [sizes[group] for group in family] == [6, 16]  # outermost first

    def kept(share: float) -> dict[int, int]:
        return {sizes[g]: n for g, n in enumerate(chosen.at_share(share).counts)}

    assert kept(0.5) == {6: 3, 16: 16}
    assert kept(0.9) == {6: 1, 16: 16}  # half of the dimensions would be a tenth: not asked for
    assert kept(0.95) == {6: 1, 16: 8}


def test_global_scope_takes_where_scores_are_low() -> None:
    coupling, groups = found(chain(64, 64))
    scores = [np.linspace(0.1, 0.2, 64), np.linspace(1, 2, 64)]
    chosen = Chooser(coupling, groups, scores, scope="global", align=8)
    choice = chosen.at_share(0.25)
    assert choice.counts == (32, 64)
    assert choice.share == 0.25
    # However low they are, some stay: a quarter of what is left on average.
    assert chosen.at_share(0.5).counts[0] == 64 * LEAST * 0.5
    assert chosen.at_share(0.5).share == pytest.approx(0.5, abs=0.05)


def test_nothing_of_an_axis_would_be_left() -> None:
    """Two halves of one group: each half is an axis that must not vanish."""
    case = Case(
        "h = Conv(x, w)\na, b = Split<axis=1>(h)\nc = Relu(a)\nd = Abs(b)\n"
        "e = Concat<axis=1>(c, d)\ny = Conv(e, v)",
        {"w": np.concatenate([np.full((8, 4, 1, 1), 0.01), np.ones((8, 4, 1, 1))]).astype("f4"),
         "v": np.ones((3, 16, 1, 1), np.float32)},
        [],
        opset=17,
    )  # fmt: skip
    chosen = chooser(case, align=1)
    choice = chosen.at_share(0.5)
    assert choice.counts == (8,)
    settled = chosen.without_holes(choice)
    assert settled.counts == (9,)
    assert set(settled.atoms) < set(choice.atoms)
    smaller = remove_coupled(built(case), chosen.coupling, settled.atoms)
    assert run(smaller, feed(case, 2))[0].shape == (2, 3, 6, 6)


def test_a_model_without_groups() -> None:
    chosen = chooser(Case("y = Conv(x, w)", {"w": (3, 4, 1, 1)}, []))
    for scope_share in (0.0, 0.5, 0.9):
        assert chosen.without_holes(chosen.at_share(scope_share)).atoms == ()
        assert chosen.at_share(scope_share).share == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(2, 70), min_size=1, max_size=4),
    st.floats(0, 0.99),
    st.sampled_from(["layer", "global"]),
    st.sampled_from([1, 4, 8, 12, 32]),
)
def test_whatever_is_asked(sizes: Sequence[int], share: float, scope: str, align: int) -> None:
    chosen = chooser(chain(*sizes), scope, align)
    choice = chosen.at_share(share)
    groups = dict(zip(chosen.layout.sizes, choice.counts, strict=True))
    assert all(1 <= kept <= size for size, kept in groups.items())
    gone = set(choice.atoms)
    for group, count in zip(chosen.groups, choice.counts, strict=True):
        assert len(gone.intersection(group.atoms.tolist())) == group.size - count
    if scope == "layer":
        for size, kept in groups.items():
            assert kept >= size * (1 - share) - 1e-6
            multiple = -(-kept // align) * align
            if size >= 2 * align and multiple <= size:
                assert kept == multiple
    assert 0 <= choice.share < 1


def test_lanes_of_a_grouped_convolution() -> None:
    case = Case(
        "h = Conv(x, w)\na = Conv<group=8>(h, k)\ny = Conv(a, v)",
        {"w": (32, 4, 1, 1), "k": (16, 4, 3, 3), "v": (3, 16, 1, 1)},
        [],
    )
    coupling, groups = found(case)
    layout = lay_out(coupling, groups)
    assert [[layout.sizes[g] for g in family] for family in layout.families] == [[8, 4, 2]]
    assert {lane.length for lane in layout.lanes} == {32, 16, 4}
