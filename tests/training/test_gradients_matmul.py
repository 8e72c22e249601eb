"""Gradients of matrix products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.gradcheck import Case, gradient_tests

SHAPES = [
    ((2, 3), (3, 4)),
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((3,), (2, 3, 4)),
    ((2, 2, 3), (3,)),
    ((2, 5, 3), (3, 4)),
    ((2, 1, 2, 3), (3, 4)),
    ((2, 3), (2, 3, 4)),
    ((2, 2, 3), (2, 3, 2)),
    ((2, 2, 3), (1, 3, 2)),
    ((1, 2, 3), (2, 3, 2)),
    ((2, 1, 2, 3), (3, 3, 2)),
    ((1, 1), (1, 1)),
]
CONTRIB = {"domain": "com.microsoft"}


def turned(x, turn):
    return np.swapaxes(x, -1, -2) if turn and x.ndim > 1 else x


def fused(left, right, **attributes):
    """FusedMatMul with its numpy and PyTorch twins."""
    alpha = attributes.get("alpha", 1.0)
    turn = attributes.get("transA", 0), attributes.get("transB", 0)
    return Case(
        "FusedMatMul",
        left,
        right,
        **CONTRIB,
        **attributes,
        reference=lambda a, b: alpha * (turned(a, turn[0]) @ turned(b, turn[1])),
        torch=lambda t, a, b: alpha * ((a.mT if turn[0] else a) @ (b.mT if turn[1] else b)),
    )


def gemm(bias, turn_left=0, turn_right=0, alpha=1.0, beta=1.0):
    left = (3, 2) if turn_left else (2, 3)
    right = (4, 3) if turn_right else (3, 4)

    def by_torch(t, a, b, c=0):
        return alpha * ((a.T if turn_left else a) @ (b.T if turn_right else b)) + beta * c

    flags = {"transA": turn_left, "transB": turn_right, "alpha": alpha, "beta": beta}
    return Case("Gemm", left, right, bias, torch=by_torch, **flags)


CASES = [
    *(Case("MatMul", left, right, torch=lambda t, a, b: a @ b) for left, right in SHAPES),
    *(fused(left, right, alpha=0.7) for left, right in SHAPES),
    fused((3, 2), (3, 4), transA=1),
    fused((2, 3), (4, 3), transB=1, alpha=2.0),
    fused((2, 3, 2), (2, 4, 3), transA=1, transB=1),
    fused((2, 5, 3), (4, 3), transB=1),
    *(gemm(bias) for bias in (None, (4,), (2, 4), (2, 1), (1, 4), (1,), (), (1, 1))),
    *(gemm((4,), left, right, 0.5, 1.5) for left in (0, 1) for right in (0, 1)),
    gemm((2, 1), 1, 0),
    gemm((4,), beta=2.0),
    Case("Gemm", (2, 3), (3, 4), torch=lambda t, a, b: a @ b),
    Case("Gemm", (2, 3), (3, 4), (4,), torch=lambda t, a, b, c: a @ b + c),
    gemm((4,), 0, 1),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((2, 3), (3, 4), ["Gemm", "Gemm"]),
        ((2, 5, 3), (3, 4), ["Transpose", "MatMul", "Flatten", "Flatten", "Gemm"]),
        ((2, 5, 3), (2, 3, 4), ["Transpose", "MatMul", "Transpose", "MatMul"]),
    ],
)
def test_fast_forms(left, right, expected):
    model = Case("MatMul", left, right).check_.model()
    pull_back(GraphBuilder(model), {"y0": "y0"}, ["x0", "x1"])
    assert [node.op_type for node in model.graph.node[1:]] == expected


@settings(max_examples=25)
@given(st.data())
def test_matmul_of_any_ranks(data):
    sizes = st.integers(1, 3)
    rows, inner, columns = data.draw(sizes), data.draw(sizes), data.draw(sizes)
    batch = data.draw(st.lists(sizes, max_size=2))
    sides = []
    for matrix, vector in (((rows, inner), (inner,)), ((inner, columns), (inner,))):
        if data.draw(st.integers(0, 4)) == 0:
            sides.append(vector)
            continue
        kept = [size if data.draw(st.booleans()) else 1 for size in batch]
        sides.append((*kept[data.draw(st.integers(0, len(kept))) :], *matrix))
    Case("MatMul", *sides).check()


def test_transposed_batch_is_refused():
    case = Case(
        "FusedMatMul",
        (2, 2, 2),
        (2, 2, 2),
        **CONTRIB,
        transBatchA=1,
        reference=lambda a, b: a @ b,
    )
    with pytest.raises(ModelError, match="FusedMatMul 'node' transposes batch axes"):
        case.check()


@settings(max_examples=20)
@given(
    st.sampled_from([None, (4,), (2, 4), (2, 1), (1, 4), ()]),
    st.integers(0, 1),
    st.integers(0, 1),
    st.floats(0.2, 3),
    st.floats(0.2, 3),
)
def test_any_gemm(bias, turn_left, turn_right, alpha, beta):
    gemm(bias, turn_left, turn_right, alpha, beta).check()
