"""Gradients of views, Transpose, Expand and Tile."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.gradcheck import Case, gradient_tests

EVERY = ("static", "symbolic", "unranked")


def ints(*values):
    return np.array(values, np.int64)


CASES = [
    Case("Reshape", (2, 3, 4), ints(4, 6), torch=lambda t, x, s: x.reshape(4, 6), modes=EVERY),
    Case("Reshape", (2, 3, 4), ints(0, -1), torch=lambda t, x, s: x.reshape(2, 12), modes=EVERY),
    Case("Reshape", (2, 3), ints(-1), torch=lambda t, x, s: x.reshape(-1)),
    Case("Reshape", (1, 1), ints(), torch=lambda t, x, s: x.reshape([])),
    Case("Reshape", (), ints(1, 1), torch=lambda t, x, s: x.reshape(1, 1)),
    Case("Reshape", (0, 3), ints(3, 0), allowzero=1, torch=lambda t, x, s: x.reshape(3, 0)),
    Case("Flatten", (2, 3, 4), torch=lambda t, x: x.reshape(2, 12), modes=EVERY),
    Case("Flatten", (2, 3, 4), axis=0, torch=lambda t, x: x.reshape(1, 24)),
    Case("Flatten", (2, 3, 4), axis=-1, torch=lambda t, x: x.reshape(6, 4)),
    Case("Squeeze", (2, 1, 3, 1), torch=lambda t, x: x.squeeze(), modes=("static",)),
    Case("Squeeze", (2, 1, 3, 1), ints(-1), torch=lambda t, x, a: x.squeeze(-1), modes=EVERY),
    Case("Squeeze", (2, 1, 3, 1), ints(3, 1), torch=lambda t, x, a: x.squeeze(), modes=EVERY),
    Case("Unsqueeze", (2, 3), ints(1), torch=lambda t, x, a: x.unsqueeze(1), modes=EVERY),
    Case("Unsqueeze", (2, 3), ints(-1, 0), torch=lambda t, x, a: x[None, :, :, None], modes=EVERY),
    Case("Transpose", (2, 3, 4), torch=lambda t, x: x.permute(2, 1, 0), modes=EVERY),
    Case("Transpose", (2, 3, 4), perm=[1, 2, 0], torch=lambda t, x: x.permute(1, 2, 0)),
    Case("Expand", (3, 1), ints(2, 1, 4), torch=lambda t, x, s: x.expand(2, 3, 4), modes=EVERY),
    Case("Expand", (2, 3), ints(1), torch=lambda t, x, s: x * 1),
    Case("Expand", (), ints(2, 2), torch=lambda t, x, s: x.expand(2, 2)),
    Case("Tile", (2, 3), ints(2, 3), torch=lambda t, x, r: x.repeat(2, 3), modes=EVERY),
    Case("Tile", (2, 3), ints(1, 2), torch=lambda t, x, r: x.repeat(1, 2)),
    Case("Tile", (2, 3), ints(1, 1), torch=lambda t, x, r: x * 1),
    Case("Tile", (2,), ints(3), torch=lambda t, x, r: x.repeat(3)),
    Case("Tile", (2, 3), ints(0, 2), torch=lambda t, x, r: x.repeat(0, 2)),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@settings(max_examples=25)
@given(st.permutations(range(4)), st.lists(st.integers(1, 3), min_size=4, max_size=4))
def test_transpose(order, shape):
    Case("Transpose", tuple(shape), perm=list(order)).check()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=3))
def test_tile(sizes):
    shape = tuple(size for size, _ in sizes)
    Case("Tile", shape, ints(*(count for _, count in sizes)), modes=EVERY).check()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=4), st.data())
def test_expand(sizes, data):
    """Any subset of axes expands, leading ones may be absent."""
    lead = data.draw(st.integers(0, len(sizes)))
    shape = [1 if grows else size for size, grows in sizes][lead:]
    Case("Expand", tuple(shape), ints(*(size for size, _ in sizes)), modes=EVERY).check()
