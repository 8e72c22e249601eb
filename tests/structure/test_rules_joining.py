"""Rules that join, split, pick and repeat channels between convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.structure.graphs import between, built, feed, ints
from tests.structure.proof import prove

PART = {"v": (3, 4, 1, 1)}

CASES = {
    "concat": between(
        "a = Conv(x, k)\ng = Concat<axis=1>(a, h, x)",
        [5, 8],
        {"k": (5, 4, 1, 1), "v": (3, 17, 1, 1)},
    ),
    "split": between(
        "a, c = Split<axis=1>(h, s)\nd = Conv(a, k)\ng = Concat<axis=1>(c, d)",
        [2, 3, 5],
        {"s": ints(3, 5), "k": (2, 3, 1, 1), "v": (3, 7, 1, 1)},
    ),
    "split evenly": between("a, c = Split<axis=1>(h)\ng = Mul(a, c)", [4], {"v": (3, 4, 1, 1)}),
    "split by number": between(
        "a, c = Split<axis=1, num_outputs=2>(h)\nd = Relu(a)\ng = Concat<axis=1>(c, d)",
        [8],
        opset=18,
    ),
    "split by attribute": between(
        "a, c = Split<axis=1, split=[2,6]>(h)\nd = Relu(c)\ng = Concat<axis=1>(d, a)",
        [8],
        opset=11,
    ),
    "slice": between(
        "g = Slice(h, s, e, a)",
        [3, 5],
        {"s": ints(2, -4), "e": ints(-1, 100), "a": ints(1, 2), "v": (3, 5, 1, 1)},
    ),
    "slice by attribute": between(
        "g = Slice<starts=[1], ends=[5], axes=[1]>(h)", [4, 4], {"v": (3, 4, 1, 1)}, opset=9
    ),
    "slice by short numbers": between(
        "g = Slice(h, s, e, a)",
        [3, 5],
        {**{k: np.array([n], np.int32) for k, n in (("s", 2), ("e", -1), ("a", 1))},
         "v": (3, 5, 1, 1)},
    ),
    "slice one after the other": between(
        "g = Slice(h, s, e, a, t)",
        [3, 5],
        {"s": ints(2), "e": ints(-1), "a": ints(-3), "t": ints(1), "v": (3, 5, 1, 1)},
    ),
    "slice every other": between(
        "g = Slice(h, s, e, a, t)",
        [],
        {"s": ints(0), "e": ints(8), "a": ints(1), "t": ints(2), "v": (3, 4, 1, 1)},
    ),
    "slice every other row": between(
        "g = Slice(h, s, e, a, t)",
        [8],
        {"s": ints(0), "e": ints(8), "a": ints(2), "t": ints(2)},
    ),
    "split, untouched": between(
        "a, c = Split<axis=2, split=[2,4]>(h)\nd = GlobalMaxPool(c)\ng = Add(a, d)", [8], opset=11
    ),
    "split without its last part": between(
        "a, _ = Split<axis=-3>(h, s)\ng = Relu(a)", [3, 5],
        {"s": ints(3, 5), "v": (3, 3, 1, 1)},
    ),
    "gather": between(
        "g = Gather<axis=1>(h, i)", [1, 3, 4], {"i": ints(7, 1, 1, -6, 0), "v": (3, 5, 1, 1)}
    ),
    "gather one": between(
        "a = Gather<axis=1>(h, i)\nc = Unsqueeze(a, j)\nd = Mul(h, c)\ng = Relu(d)",
        [7],
        {"i": np.array(2, np.int64), "j": ints(1)},
    ),
    "tile channels": between(
        "g = Tile(h, s)", [8], {"s": ints(1, 2, 1, 1), "v": (3, 16, 1, 1)}
    ),
    "tile one channel": between(
        "a = Conv(x, k)\nc = Tile(a, s)\ng = Add(c, h)",
        [8],
        {"k": (1, 4, 1, 1), "s": ints(1, 8, 1, 1)},
    ),
    "expand one channel": between(
        "a = Conv(x, k)\nc = Expand(a, s)\ng = Add(c, h)",
        [8],
        {"k": (1, 4, 1, 1), "s": ints(8, 1, 1)},
    ),
    "zeros of a shape": between(
        "a = Shape(h)\nc = ConstantOfShape(a)\nd = Size(h)\ne = Cast<to=1>(d)\n"
        "f = Add(c, e)\ng = Add(h, f)",
        [8],
        free=(1, 2),
    ),
    "a size as a tensor": between(
        "a = Size(h)\nc = Cast<to=1>(a)\nd = Unsqueeze(c, four)\ng = Div(h, d)",
        [8],
        {"four": ints(0, 1, 2, 3)},
        free=(1, 2),
    ),
    "sizes of two axes": between(
        "a = Shape<start=1, end=3>(h)\nc = Cast<to=1>(a)\nd = ReduceProd<keepdims=0>(c)\n"
        "g = Div(h, d)",
        [8],
        free=(1, 2),
    ),
    "expand as a shape": between(
        "a = Conv(x, k)\nt = Shape(h)\nc = Expand(a, t)\ng = Sub(h, c)",
        [8],
        {"k": (1, 4, 1, 1)},
        free=(1, 2),
    ),
    "shuffle": between(
        "a = Reshape(h, s)\nc = Transpose<perm=[0,2,1,3,4]>(a)\nd = Reshape(c, t)\ng = Relu(d)",
        [8],
        {"s": ints(0, 2, 4, 6, 6), "t": ints(0, 8, 6, 6)},
    ),
    "a part of every axis": between(
        "g = Slice(h, s, e)", [4, 4], {"s": ints(0, 2, 0, 0), "e": ints(99, 6, 6, 6), **PART}
    ),
    "a part of the first axes": between(
        "g = Slice<starts=[0,2], ends=[99,6]>(h)", [4, 4], PART, opset=9
    ),
    "split along the first axis": between(
        "a = Transpose<perm=[1,0,2,3]>(h)\nc, d = Split(a, p)\ne = Concat<axis=0>(d, c)\n"
        "g = Transpose<perm=[1,0,2,3]>(e)",
        [8],
        {"p": ints(3, 5)},
    ),
    **{
        f"split in halves, opset {opset}": between(
            "a, c = Split<axis=1>(h)\nd = Sigmoid(a)\ng = Concat<axis=1>(c, d)", [8], opset=opset
        )
        for opset in (12, 13)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    prove(built(case), lambda batch: feed(case, batch), case.sizes)
