"""Distances from a teacher against PyTorch; what the teacher has to give."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.training.loss.append import LossConfig
from tests.training.lossrun import append, run

F = np.float32
SCORES = "(float[N,5] x) => (float[N,5] y) { y = Identity(x) }"
SOFTMAX = "(float[N,5] x) => (float[N,5] y) { y = Softmax(x) }"
SIGMOID = "(float[N,5] x) => (float[N,5] y) { y = Sigmoid(x) }"
CHANNELS = "(float[N,3,5] x) => (float[N,5,3] y) { s = Softmax(x) y = Transpose<perm=[0,2,1]>(s) }"


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 3, shape).astype(F)


def against(expected, found, x, teacher):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x.astype(np.float64), requires_grad=True)
    value = expected(torch, leaf, torch.tensor(teacher.astype(np.float64)))
    value.backward()
    assert found.loss == pytest.approx(value.item(), rel=1e-5)
    np.testing.assert_allclose(found.gradients["x"], leaf.grad.numpy(), rtol=1e-4, atol=1e-6)


def class_divergence(torch, s, t, temperature, axis):
    """As in the paper, over PyTorch's own divergence."""
    own = torch.log_softmax(s / temperature, axis).movedim(axis, -1).reshape(-1, s.shape[axis])
    aim = torch.softmax(t / temperature, axis).movedim(axis, -1).reshape(-1, s.shape[axis])
    divergence = torch.nn.functional.kl_div(own, aim, reduction="batchmean")
    return divergence * temperature**2


def unit_divergence(torch, s, t, temperature):
    own, aim = (torch.distributions.Bernoulli(logits=z / temperature) for z in (s, t))
    return torch.distributions.kl_divergence(aim, own).mean() * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_classes(temperature):
    x, teacher = draw(7, 5), draw(7, 5, seed=1)
    found = run(SOFTMAX, {"x": x}, None, LossConfig(temperature=temperature), teacher=teacher)
    against(lambda t, s, a: class_divergence(t, s, a, temperature, 1), found, x, teacher)
    assert list(found.names.teachers.values()) == ["x"]
    assert found.names.label_input is None
    assert found.names.correct is None
    expected = f"distillation by the divergence of classes at temperature {temperature:g} on"
    assert found.names.description == f"{expected} the input of Softmax 'y'"


def test_classes_at_positions():
    x, teacher = draw(2, 3, 5), draw(2, 3, 5, seed=1)
    found = run(CHANNELS, {"x": x}, None, teacher=teacher)
    against(lambda t, s, a: class_divergence(t, s, a, 4.0, 2), found, x, teacher)


def test_outputs_that_nothing_says_to_be_classes():
    x, teacher = draw(7, 5), draw(7, 5, seed=1)
    found = run(SCORES, {"x": x}, None, teacher=teacher)
    against(lambda t, s, a: t.nn.functional.mse_loss(s, a), found, x, teacher)
    assert found.names.description == "distillation by the mean squared error of output 'y'"
    assert list(found.names.teachers.values()) == ["y"]


def test_outputs_that_are_said_to_be_classes():
    x, teacher = draw(7, 5), draw(7, 5, seed=1)
    found = run(SCORES, {"x": x}, None, LossConfig("cross-entropy"), teacher=teacher)
    against(lambda t, s, a: class_divergence(t, s, a, 4.0, 1), found, x, teacher)


def test_the_axis_of_known_size_is_that_of_the_classes():
    x, teacher = draw(2, 3, 5), draw(2, 3, 5, seed=1)
    text = "(float[N,S,5] x) => (float[N,S,5] y) { y = Identity(x) }"
    found = run(text, {"x": x}, None, LossConfig("cross-entropy"), teacher=teacher)
    against(lambda t, s, a: class_divergence(t, s, a, 4.0, 2), found, x, teacher)


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_probabilities_compared_on_request(name):
    x, teacher = draw(7, 5), np.abs(draw(7, 5, seed=1))
    found = run(SOFTMAX, {"x": x}, None, LossConfig(name), teacher=teacher)
    kind = f"{name}_loss"
    against(lambda t, s, a: getattr(t.nn.functional, kind)(t.softmax(s, 1), a), found, x, teacher)
    assert list(found.names.teachers.values()) == ["y"]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_units(temperature):
    x, teacher = draw(7, 5), draw(7, 5, seed=1)
    found = run(SIGMOID, {"x": x}, None, LossConfig(temperature=temperature), teacher=teacher)
    against(lambda t, s, a: unit_divergence(t, s, a, temperature), found, x, teacher)
    assert list(found.names.teachers.values()) == ["x"]


@pytest.mark.parametrize("text", [SOFTMAX, SIGMOID, SCORES])
def test_nothing_to_learn_from_oneself(text):
    x = draw(7, 5) * 10
    found = run(text, {"x": x}, None, teacher=x)
    assert found.loss == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.gradients["x"], 0, atol=1e-6)


@pytest.mark.parametrize(("weight", "share"), [(None, 0.5), (0.2, 0.2), (1, 1.0)])
@pytest.mark.parametrize("text", [SOFTMAX, SCORES])
def test_mixed_with_labels(text, weight, share):
    """Labels say that raw outputs are class scores, so these are compared as such."""
    x, teacher = draw(7, 5), draw(7, 5, seed=1)
    labels = np.array([0, 1, 2, 3, 4, 0, 1])
    config = LossConfig(distill=True, distill_weight=weight)
    found = run(text, {"x": x}, labels, config, teacher=teacher)

    def expected(t, s, a):
        supervised = t.nn.functional.cross_entropy(s, t.tensor(labels))
        return (1 - share) * supervised + share * class_divergence(t, s, a, 4.0, 1)

    against(expected, found, x, teacher)
    assert found.correct == (x.argmax(1) == labels).sum()
    assert found.names.description.startswith(
        "distillation" if share == 1 else f"{1 - share:g} x cross-entropy on"
    )


def test_mixed_regression():
    x, teacher, labels = draw(7, 5), draw(7, 5, seed=1), draw(7, 5, seed=2)
    found = run(SCORES, {"x": x}, labels, LossConfig("l1", distill=True), teacher=teacher)
    target = labels.astype(np.float64)

    def expected(t, s, a):
        loss = t.nn.functional.l1_loss
        return 0.5 * loss(s, t.tensor(target)) + 0.5 * loss(s, a)

    against(expected, found, x, teacher)


def test_no_class_axis():
    with pytest.raises(UsageError, match="'y' has no class axis"):
        append("(float[N] x) => (float[N] y) { y = Neg(x) }", None, LossConfig("cross-entropy"))
