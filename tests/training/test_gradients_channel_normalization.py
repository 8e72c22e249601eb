"""Gradients of InstanceNormalization, GroupNormalization and LRN."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.training.gradcheck import Case, gradient_tests


def instance(shape, **attributes):
    epsilon = attributes.get("epsilon", 1e-5)
    return Case(
        "InstanceNormalization",
        shape,
        shape[1:2],
        shape[1:2],
        torch=lambda t, x, s, b: t.nn.functional.instance_norm(x, None, None, s, b, eps=epsilon),
        reference=lambda x, s, b: grouped(x, s, b, shape[1], epsilon),
        **attributes,
    )


def grouped(x, scale, bias, groups, epsilon):
    """GroupNormalization in numpy."""
    parts = x.reshape(x.shape[0], groups, -1)
    deviation = np.sqrt(parts.var(2, keepdims=True) + epsilon)
    unit = ((parts - parts.mean(2, keepdims=True)) / deviation).reshape(x.shape)
    column = (-1, *[1] * (x.ndim - 2))
    return unit * scale.reshape(column) + bias.reshape(column)


def group(shape, groups, **attributes):
    epsilon = attributes.get("epsilon", 1e-5)
    case = Case(
        "GroupNormalization",
        shape,
        shape[1:2],
        shape[1:2],
        num_groups=groups,
        torch=lambda t, x, s, b: t.nn.functional.group_norm(x, groups, s, b, epsilon),
        reference=lambda x, s, b: grouped(x, s, b, groups, epsilon),
        **attributes,
    )
    return shaped(case)


def shaped(case):
    """The case with the shape of its input stated for its output, where ONNX does not infer it."""
    node = case.check_.nodes[0]
    node.output[0] = "raw"
    case.check_.nodes = [
        node,
        helper.make_node("Shape", ["x0"], ["shape"]),
        helper.make_node("Reshape", ["raw", "shape"], ["y0"]),
    ]
    return case


def lrn(shape, size, **attributes):
    alpha, beta = attributes.get("alpha", 1e-4), attributes.get("beta", 0.75)
    bias = attributes.get("bias", 1.0)

    def reference(x):
        before, after = (size - 1) // 2, size // 2
        square = np.stack(
            [(x[:, max(0, c - before) : c + after + 1] ** 2).sum(1) for c in range(x.shape[1])],
            1,
        )
        return x / (bias + alpha / size * square) ** beta

    return Case(
        "LRN",
        shape,
        size=size,
        reference=reference,
        torch=lambda t, x: t.nn.functional.local_response_norm(x, size, alpha, beta, bias),
        **attributes,
    )


CASES = [
    instance((2, 3, 4)),
    instance((2, 3, 2, 2), epsilon=0.1),
    instance((1, 2, 2, 3, 2)),
    group((2, 4, 3), 2),
    group((2, 4, 2, 2), 1, epsilon=0.1),
    group((1, 4, 2, 2), 4),
    group((2, 6, 2), 3, stash_type=1),
    lrn((2, 4, 2, 2), 3, alpha=0.5, beta=0.6, bias=1.5),
    lrn((1, 6, 2, 2), 5, alpha=2.0),
    lrn((1, 4, 1, 2), 1, alpha=0.5),
    lrn((1, 2, 2, 2), 7, alpha=2.0),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@settings(max_examples=15)
@given(
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 3),
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
    st.floats(1e-3, 1),
)
def test_any_groups(batch, groups, each, space, epsilon):
    shape = (batch, groups * each, *space, 2)
    group(shape, groups, epsilon=epsilon).check()
    instance(shape, epsilon=epsilon).check()


@settings(max_examples=15)
@given(st.integers(1, 5), st.sampled_from([1, 3, 5, 7]), st.floats(0.1, 2), st.floats(0.2, 1.5))
def test_any_window(channels, size, alpha, beta):
    lrn((2, channels, 1, 2), size, alpha=alpha, beta=beta, bias=1.5).check()
