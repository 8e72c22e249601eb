"""Clipping by the global norm, against PyTorch's and against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnxprune.errors import UsageError
from onnxprune.training.update.clipping import append_clipping
from tests.training.appending import Runner, empty_graph

F = np.float32
SHAPES = ((5, 7), (), (3,), (2, 3, 1, 2))


def clipped(gradients, max_norm):
    proto, b = empty_graph()
    names = [f"g{i}" for i in range(len(gradients))]
    for name, gradient in zip(names, gradients, strict=True):
        b.input(name, TensorProto.FLOAT, gradient.shape)
    run = Runner(b, proto, append_clipping(b, names, max_norm))
    return run(dict(zip(names, gradients, strict=True)))


def drawn(seed, scale=1.0):
    random = np.random.default_rng(seed)
    return [np.asarray(scale * random.standard_normal(shape), np.float32) for shape in SHAPES]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 5.0, 1e3])
def test_equals_torch(count, max_norm):
    torch = pytest.importorskip("torch")
    gradients = drawn(1)[:count]
    parameters = [torch.zeros(gradient.shape, requires_grad=True) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    for found, parameter in zip(clipped(gradients, max_norm), parameters, strict=True):
        np.testing.assert_allclose(found, parameter.grad.numpy(), rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 100), st.floats(1e-3, 100))
def test_norm_is_the_smaller_of_both(seed, scale, max_norm):
    gradients = drawn(seed, scale)

    def norm(arrays):
        return math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in arrays))

    before = norm(gradients)
    found = clipped(gradients, max_norm)
    assert norm(found) == pytest.approx(min(before, max_norm * before / (before + 1e-6)), rel=1e-5)
    if before < max_norm * 0.999:
        for gradient, same in zip(gradients, found, strict=True):
            np.testing.assert_array_equal(same, gradient)


@pytest.mark.parametrize("shape", [(1000, 1100), (3, 5, 70001), (1048583,)])
def test_norm_of_a_large_gradient(shape):
    gradient = np.random.default_rng(3).standard_normal(shape, F)
    exact = math.sqrt(float(np.square(gradient, dtype=np.float64).sum()))
    (found,) = clipped([gradient], 1.0)
    tolerance = 1e-6 if len(shape) > 1 else 1e-4  # a prime size has no rows
    np.testing.assert_allclose(found[..., :5] * exact, gradient[..., :5], rtol=tolerance)


def test_zero_gradients_stay_zero():
    for found in clipped([np.zeros(shape, np.float32) for shape in SHAPES], 1.0):
        np.testing.assert_array_equal(found, 0)


def test_nothing_to_clip():
    _, b = empty_graph()
    assert append_clipping(b, [], 1.0) == []


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, math.inf])
def test_refuses_norms_without_sense(max_norm):
    _, b = empty_graph()
    with pytest.raises(UsageError, match="largest gradient norm is"):
        append_clipping(b, [], max_norm)
