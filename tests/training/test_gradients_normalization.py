"""Gradients of LayerNormalization and its kin, LpNormalization, MeanVarianceNormalization."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import ModelError
from tests.training.gradcheck import Case, Draw, Fixed, gradient_tests

EVERY = ("static", "symbolic", "unranked")
#: Nothing infers the shape of the sum, so the checker of the other modes would object.
SUM = ("unranked",)


def layer(shape, axis=-1, bias=True, outputs=1, scale=None, modes=("static", "symbolic"), **more):
    axes = tuple(range(axis % len(shape), len(shape)))
    scale = shape[axes[0] :] if scale is None else scale
    epsilon = more.get("epsilon", 1e-5)

    def reference(x, scale, bias=0.0):
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        inverse = 1 / np.sqrt(variance + epsilon)
        return (x - mean) * inverse * scale + bias, mean, inverse

    def torch(t, x, scale, bias=0.0):
        mean = x.mean(axes, keepdim=True)
        inverse = (x.var(axes, correction=0, keepdim=True) + epsilon) ** -0.5
        return (x - mean) * inverse * scale + bias, mean, inverse

    return Case(
        "LayerNormalization",
        shape,
        *(
            Fixed(np.ones(scale, np.float32)) if more.get("seeded", (0,))[0] else scale
            for _ in range(2 if bias else 1)
        ),
        axis=axis,
        outputs=outputs,
        torch=torch,
        reference=reference,
        modes=modes,
        **more,
    )


def rms(shape, axis=-1, op="RMSNormalization", modes=("static", "symbolic"), **more):
    axes = tuple(range(axis % len(shape), len(shape)))
    epsilon = more.get("epsilon", 1e-5)

    def reference(x, scale):
        return x / np.sqrt((x * x).mean(axes, keepdims=True) + epsilon) * scale

    def torch(t, x, scale):
        return t.nn.functional.rms_norm(x, scale.shape, scale, epsilon)

    return Case(
        op,
        shape,
        shape[axes[0] :],
        axis=axis,
        torch=torch,
        reference=reference,
        modes=modes,
        **more,
    )


def skip(shape, skipped, beta=True, bias=True, outputs=1, seeded=None, simple=False, **more):
    """SkipLayerNormalization, or with `simple` SkipSimplifiedLayerNormalization (no beta)."""
    hidden, epsilon = shape[-1:], more.get("epsilon", 1e-12)

    def sides(rest):
        rest = list(rest)
        return rest.pop(0) if beta and not simple else 0, rest.pop(0) if bias else 0

    def reference(x, s, gamma, *rest):
        b, c = sides(rest)
        total = x + s + c
        centred = total if simple else total - total.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return unit * gamma + b, None, None, total

    def torch(t, x, s, gamma, *rest):
        b, c = sides(rest)
        total = x + s + c
        centred = total if simple else total - total.mean(-1, keepdim=True)
        unit = centred / ((centred**2).mean(-1, keepdim=True) + epsilon) ** 0.5
        return unit * gamma + b, None, None, total

    sequence = [hidden if beta else None] * (not simple) + [hidden if bias else None]
    while sequence and sequence[-1] is None:
        sequence.pop()
    return Case(
        "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization",
        shape,
        skipped,
        Fixed(np.ones(hidden, np.float32)) if seeded == (3,) else hidden,
        *sequence,
        domain="com.microsoft",
        torch=torch,
        reference=reference,
        outputs=outputs,
        seeded=seeded if seeded else (0,),
        **more,
    )


def lp(shape, p, axis, modes=EVERY):
    return Case(
        "LpNormalization",
        shape,
        p=p,
        axis=axis,
        avoid=(0.0,),
        torch=lambda t, x: t.nn.functional.normalize(x, p, axis),
        modes=modes,
    )


def mvn(shape, axes):
    given_axes = tuple(axes or (0, 2, 3))

    def torch(t, x):
        mean = x.mean(given_axes, keepdim=True)
        return (x - mean) / x.std(given_axes, correction=0, keepdim=True)

    def reference(x):
        return (x - x.mean(given_axes, keepdims=True)) / x.std(given_axes, keepdims=True)

    return Case(
        "MeanVarianceNormalization",
        shape,
        torch=torch,
        reference=reference,
        modes=("unranked",),
        **({"axes": list(axes)} if axes else {}),
    )


CASES = [
    layer((2, 3, 4), modes=EVERY),
    layer((2, 3, 4), bias=False),
    layer((2, 3, 4), 1, epsilon=0.1),
    layer((2, 3), 0),
    layer((2, 3, 4), -2, modes=EVERY),
    layer((2, 3, 4), outputs=3, seeded=(0,)),
    layer((2, 3, 4), 1, outputs=3, modes=EVERY[:2]),
    layer((2, 3), outputs=3, seeded=(1,)),
    layer((2, 3), outputs=3, seeded=(2,), modes=EVERY),
    layer((2, 2, 3), 1, scale=(1, 3)),
    layer((2, 3), scale=(1,)),
    rms((2, 3, 4), modes=EVERY),
    rms((2, 3, 4), 1, epsilon=0.1),
    rms((3, 2), 0),
    rms((2, 3), op="SimplifiedLayerNormalization", modes=("unranked",)),
    *(
        skip((2, 2, 4), skipped, simple=simple, **more)
        for simple in (False, True)
        for skipped, more in (
            ((2, 2, 4), {}),
            ((2, 4), {"epsilon": 0.1}),
            ((1, 2, 4), {"bias": False, "outputs": 4, "seeded": (0, 3), "modes": SUM}),
            ((2, 2, 4), {"beta": False, "outputs": 4, "seeded": (3,), "modes": SUM}),
            ((2, 2, 4), {"beta": False, "bias": False, "outputs": 4, "seeded": (0,)}),
        )
    ),
    lp((2, 3), 2, -1),
    lp((2, 3), 1, -1),
    lp((2, 3, 2), 2, 1),
    lp((2, 3, 2), 1, 0),
    mvn((2, 3, 2, 2), None),
    mvn((2, 3, 4), [1]),
    mvn((2, 3, 4), [0, 2]),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize("p", [1, 2])
def test_zeros_stay_without_gradient(p):
    case = Case("LpNormalization", np.zeros((2, 3), np.float32), p=p, reference=lambda x: x)
    np.testing.assert_array_equal(case.check_.gradients("static")["x0"], np.zeros((2, 3)))


@pytest.mark.parametrize("simple", [False, True])
def test_statistics_of_skip_normalizations_are_refused(simple):
    case = skip((2, 2, 4), (2, 2, 4), outputs=4, seeded=(1,), simple=simple)
    case.check_.reference = lambda x, *_: (x, x[..., :1], x[..., :1], x)
    with pytest.raises(ModelError, match="depends on the mean or deviation that Skip"):
        case.check_.gradients("static")


@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.integers(2, 3),
    st.data(),
    st.floats(1e-3, 1),
    st.booleans(),
)
def test_any_layer(shape, last, data, epsilon, centred):
    shape = (*shape, last)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    if centred:
        outputs = data.draw(st.sampled_from([1, 3]))
        layer(shape, axis, data.draw(st.booleans()), outputs, epsilon=epsilon).check()
    else:
        rms(shape, axis, epsilon=epsilon).check()


@settings(max_examples=15)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data(), st.sampled_from([1, 2]))
def test_any_norm(shape, data, p):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = Draw(tuple(shape), avoid=(0.0,))
    Case("LpNormalization", x, p=p, axis=axis, modes=EVERY).check()
