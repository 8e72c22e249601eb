"""Gradients of Pad."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.training.gradcheck import Case, Check, Fixed, gradient_tests

EVERY = ("static", "symbolic", "unranked")
F = np.float32


def ints(*values):
    return np.array(values, np.int64)


def at_run_time(*inputs, **options):
    """The case with its integer inputs as inputs of the model rather than constants."""
    case = Case("Pad", *inputs, **options)
    case.text += ", at run time"
    case.check_.fixed = set()
    return case


def padded(mode, *sizes):
    return lambda t, x, *_: t.nn.functional.pad(x, sizes, mode)


CASES = [
    Case("Pad", (2, 3), ints(1, 0, 0, 2), torch=padded("constant", 0, 2, 1, 0), modes=EVERY),
    Case("Pad", (3, 4), ints(1, -1, -2, 2), torch=padded("constant", -1, 2, 1, -2), modes=EVERY),
    Case("Pad", (2, 3), ints(2, 1), None, ints(1), torch=padded("constant", 2, 1), modes=EVERY),
    Case("Pad", (2, 3), ints(2, 1), None, ints(-1), torch=padded("constant", 2, 1), modes=EVERY),
    Case(
        "Pad",
        (2, 3),
        ints(1, 0, -1, 2),
        (1,),
        torch=lambda t, x, pads, value: t.cat(
            [value.expand(1, 5), t.cat([x[:1], value.expand(1, 2)], 1)]
        ),
        modes=EVERY,
    ),
    Case("Pad", (2, 3), ints(1, 0, 0, 2), (), Fixed(ints(0, 1)), modes=EVERY),
    Case(
        "Pad",
        (1, 2, 4, 5),
        ints(0, 0, 1, 3, 0, 0, 2, 4),
        mode="reflect",
        torch=padded("reflect", 3, 4, 1, 2),
        modes=EVERY,
    ),
    Case("Pad", (1, 2, 3), ints(2, 1), None, ints(-1), mode="reflect", modes=EVERY),
    Case(
        "Pad",
        (1, 1, 3, 4),
        ints(0, 0, 2, 0, 0, 0, 1, 5),
        mode="edge",
        torch=padded("replicate", 0, 5, 2, 1),
        modes=EVERY,
    ),
    Case(
        "Pad",
        (1, 1, 3, 4),
        ints(0, 0, 3, 1, 0, 0, 1, 4),
        mode="wrap",
        torch=padded("circular", 1, 4, 3, 1),
        modes=EVERY,
    ),
    Case("Pad", (2, 3), ints(0, 0, 0, 0), mode="edge", torch=lambda t, x, p: x * 1),
    Case("Pad", (2, 3), ints(0, 7, 0, 5), mode="wrap", modes=EVERY),
    Case("Pad", (4, 3), ints(-1, 2, 2, -1), mode="wrap", modes=EVERY),
    Case("Pad", (4, 3), ints(-1, 1, 1, -1), mode="reflect", modes=EVERY),
    Case("Pad", (4, 3), ints(-2, 2, 2, -1), mode="edge", modes=EVERY),
    *(
        at_run_time((3, 4), ints(1, 0, 2, 1), *rest, mode=mode, modes=modes)
        for mode in ("constant", "reflect", "edge", "wrap")
        for rest, modes in (([], EVERY), ([None, ints(-2, 1)], ("unranked",)))
    ),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(2, 4), *[st.integers(-1, 3)] * 2), min_size=1, max_size=2))
def test_constant(axes):
    sizes, before, after = zip(*axes, strict=True)
    Case("Pad", sizes, ints(*before, *after), (1,), modes=EVERY).check()


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@settings(max_examples=15)
@given(
    axes=st.lists(st.tuples(st.integers(1, 4), *[st.integers(0, 3)] * 2), min_size=1, max_size=2)
)
def test_repeated(mode, axes):
    most = {"reflect": -1, "edge": 9, "wrap": 0}[mode]
    axes = [(n, min(before, n + most), min(after, n + most)) for n, before, after in axes]
    sizes, before, after = zip(*axes, strict=True)
    Case("Pad", sizes, ints(*before, *after), mode=mode, modes=EVERY).check()


def test_axes_at_run_time():
    """Known sizes and margins do not say which axis they belong to."""
    nodes = [
        helper.make_node("Pad", ["x0", "x1", "", "x2"], ["padded"], mode="edge"),
        helper.make_node("Reshape", ["padded", "x3"], ["y0"]),
    ]
    values = {
        "x0": np.linspace(-1, 1, 9, dtype=F).reshape(3, 3),
        "x1": ints(2, 1),
        "x2": ints(1),
        "x3": ints(3, 6),
    }
    Check(nodes, values, ["y0"], {"x1", "x3"}).finite_differences()
