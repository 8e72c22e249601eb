"""The graph that is analysed: channel shuffles become a Gather, what looks like one does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

W = {"w": (8, 4, 1, 1), "v": (3, 8, 1, 1)}


def chain(split: np.ndarray, perm: str, merged: np.ndarray, more: str = "", **options) -> Case:
    """Channels of h split into factors, transposed, and merged again into d."""
    text = (
        f"h = Conv(x, w)\na = Reshape(h, s)\nc = Transpose<perm={perm}>(a)\nd = Reshape(c, t)\n"
        f"g = Relu(d)\n{more or 'y = Conv(g, v)'}"
    )
    weights = {**W, "s": split, "t": merged, **options.pop("weights", {})}
    return Case(text, weights, [], **options)


HALVES, WHOLE = ints(0, 2, 4, 6, 6), ints(0, 8, 6, 6)
SWAPPED = "[0,2,1,3,4]"
SHUFFLES = {
    "of channels": chain(HALVES, SWAPPED, WHOLE),
    "of columns": chain(ints(0, 8, 6, 2, 3), "[0,1,2,4,3]", WHOLE),
    "of channels named as the order": chain(
        HALVES, SWAPPED, WHOLE, "d_order = Conv(g, v)\ny = Abs(d_order)"
    ),
    "two of them": chain(
        HALVES, SWAPPED, WHOLE,
        "e = Reshape(g, s)\nf = Transpose<perm=[0,2,1,3,4]>(e)\ni = Reshape(f, t)\ny = Conv(i, v)",
    ),
}  # fmt: skip
OTHERS = {
    "no exchange": chain(HALVES, "[0,1,2,3,4]", WHOLE),
    "rows and columns too": chain(HALVES, "[0,2,1,4,3]", WHOLE),
    "factors of another size": chain(ints(0, 2, 24, 3, 2), SWAPPED, WHOLE),
    "factors of the other axis": chain(ints(0, 8, 2, 3, 6), SWAPPED, WHOLE),
    "merged to another shape": chain(
        HALVES, SWAPPED, ints(0, 4, 12, 6), weights={"v": (3, 4, 1, 1)}
    ),
    "more factors": chain(ints(0, 2, 2, 2, 6, 6), "[0,2,1,3,4,5]", WHOLE),
    "a sum of the split": chain(
        HALVES, SWAPPED, WHOLE, "b = ReduceMean<keepdims=0>(a)\ni = Mul(g, b)\ny = Conv(i, v)"
    ),
    "a sum of the transposed": chain(
        HALVES, SWAPPED, WHOLE, "b = ReduceMean<keepdims=0>(c)\ni = Mul(g, b)\ny = Conv(i, v)"
    ),
    "an open axis": chain(
        ints(0, 8, 2, -1, 6), "[0,1,3,2,4]", ints(0, 8, -1, 6), free=(1,)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*SHUFFLES, *OTHERS])
def test_shuffles(name: str) -> None:
    case = {**SHUFFLES, **OTHERS}[name]
    coupling = prove(built(case), lambda batch: feed(case, batch))
    operators = [node.op_type for node in coupling.prepared.proto.graph.node]
    gathers = len([n for n in case.nodes.splitlines() if "Transpose" in n]) * (name in SHUFFLES)
    assert operators.count("Gather") == gathers
    assert ("Transpose" in operators) == (name in OTHERS)
