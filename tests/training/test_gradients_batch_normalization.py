"""The gradient of BatchNormalization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.gradcheck import Case, Draw, Fixed, gradient_tests

FLOAT = np.float32


def frozen(shape, **attributes):
    channels = (shape[1] if len(shape) > 1 else 1,)
    column = (-1, *[1] * (len(shape) - 2)) if len(shape) > 1 else (1,)

    def by_hand(t, x, *rest):  # PyTorch's own gives the statistics no gradient
        s, b, m, v = (value.reshape(column) for value in rest)
        return (x - m) / (v + attributes.get("epsilon", 1e-5)) ** 0.5 * s + b

    return Case(
        "BatchNormalization",
        shape,
        channels,
        channels,
        channels,
        Draw(channels, 0.3, 2),
        torch=by_hand,
        **attributes,
    )


def of_batch(shape, **attributes):
    channels = (shape[1] if len(shape) > 1 else 1,)
    epsilon = attributes.get("epsilon", 1e-5)
    axes = (0, *range(2, len(shape)))

    def reference(x, scale, bias, *_):
        column = (-1, *[1] * (len(shape) - 2)) if len(shape) > 1 else (1,)
        deviation = np.sqrt(x.var(axes, keepdims=True) + epsilon)
        unit = (x - x.mean(axes, keepdims=True)) / deviation
        return unit * scale.reshape(column) + bias.reshape(column)

    return Case(
        "BatchNormalization",
        shape,
        channels,
        channels,
        Fixed(np.zeros(channels, np.float32)),
        Fixed(np.ones(channels, np.float32)),
        torch=lambda t, x, s, b, m, v: t.nn.functional.batch_norm(
            x, m.detach().clone(), v.detach().clone(), s, b, True, 0.1, epsilon
        ),
        reference=reference,
        seeded=(0,),
        outputs=3,
        training_mode=1,
        **attributes,
    )


CASES = [
    frozen((2, 3)),
    frozen((2, 3, 4)),
    frozen((2, 3, 2, 2), epsilon=0.1),
    frozen((1, 2, 2, 1, 2)),
    of_batch((4, 3)),
    of_batch((2, 3, 4)),
    of_batch((2, 3, 2, 2), epsilon=0.1),
    of_batch((2, 3, 2, 2), momentum=0.3),
    of_batch((2, 2, 2, 1, 2)),
]

test_finite_differences, test_torch = gradient_tests(CASES)


def test_vectors_are_one_channel():
    frozen((4,)).check()
    of_batch((4,)).check()


@settings(max_examples=15)
@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=4),
    st.floats(1e-3, 1),
    st.booleans(),
)
def test_any_shape(shape, epsilon, training):
    shape = (2 * shape[0], *shape[1:])
    (of_batch if training else frozen)(shape, epsilon=epsilon).check()


def test_running_statistics_pass_no_gradient():
    model = of_batch((2, 3, 2)).check_.model()
    builder = GraphBuilder(model)
    seeds = {name: builder.zeros_like("x1") for name in ("y1", "y2")}
    assert pull_back(builder, seeds, ["x0", "x1", "x2"]) == {}


def test_unknown_rank_is_refused():
    with pytest.raises(ModelError, match="the rank of 'x0' is unknown"):
        frozen((2, 3)).check_.gradients("unranked")
