"""Optimizers against PyTorch's, against their formulas in float64, and held weights at zero."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.errors import UsageError
from onnxprune.training.update.clipping import append_clipping
from onnxprune.training.update.optimizers import (
    Optimizer,
    Slot,
    append_updates,
    mask_gradients,
    state_factors,
    state_names,
)
from tests.training.appending import Runner, empty_graph

SHAPES = ((6, 5), (), (4,), (2, 3, 2, 2))
STEPS = 50
CASES = {
    "adamw": Optimizer(),
    "adamw, decay": Optimizer(l2=0.1),
    "adamw, other numbers": Optimizer(betas=(0.5, 0.9), epsilon=1e-3, l2=0.02),
    "adamw, slow moments": Optimizer(betas=(0.99, 0.99999), epsilon=1e-12),
    "adamw, no first moment": Optimizer(betas=(0.0, 0.999)),
    "sgd": Optimizer("sgd", momentum=0),
    "sgd, decay": Optimizer("sgd", momentum=0, l2=0.1),
    "sgd, momentum": Optimizer("sgd", momentum=0.9, l2=0.01),
    "sgd, nesterov": Optimizer("sgd", momentum=0.8, nesterov=True, l2=0.01),
    "sgd, nesterov without decay": Optimizer("sgd", momentum=0.8, nesterov=True),
}
each = pytest.mark.parametrize("optimizer", CASES.values(), ids=CASES)


class Training:
    """Weights and states that an optimizer's graph updates."""

    def __init__(self, optimizer, weights, masks=None, decays=None, clip=None):
        proto, b = empty_graph()
        count = len(weights)
        masks, decays = masks or [None] * count, decays or [True] * count
        self.factors = [*state_factors(optimizer).values()]
        rate = b.input("rate", TensorProto.FLOAT, [])
        step = b.input("step", TensorProto.INT64, [])
        self.fixed, self.values, slots = {}, {}, []
        for i, (weight, mask, decay) in enumerate(zip(weights, masks, decays, strict=True)):
            states = tuple(f"{name} {i}" for name in state_names(optimizer))
            for name in (f"w{i}", f"g{i}", *states):
                b.input(name, TensorProto.FLOAT, weight.shape)
                self.values[name] = np.zeros_like(weight)
            self.values[f"w{i}"] = weight
            del self.values[f"g{i}"]
            if mask is not None:
                self.fixed[f"k{i}"] = mask
                b.input(f"k{i}", TensorProto.FLOAT, weight.shape)
            held = None if mask is None else f"k{i}"
            slots.append(Slot(f"w{i}", f"g{i}", states, held, decay))
        if clip is not None:
            slots = mask_gradients(b, slots)
            found = append_clipping(b, [slot.gradient for slot in slots], clip)
            slots = [replace(slot, gradient=g) for slot, g in zip(slots, found, strict=True)]
        updated = append_updates(b, optimizer, slots, rate, step)
        news = [name for new in updated for name in (new.weight, *new.states)]
        for name, new in zip(self.values, news, strict=True):
            assert b.shape(new) == self.values[name].shape
        read = {name for node in proto.graph.node for name in node.input}
        assert read.issuperset(tensor.name for tensor in proto.graph.initializer)
        self.run = Runner(b, proto, news)
        self.done = 0

    def step(self, gradients, rate):
        self.done += 1
        feeds = {f"g{i}": gradient for i, gradient in enumerate(gradients)}
        feeds |= {"rate": np.array(rate, np.float32), "step": np.array(self.done, np.int64)}
        read = {info.name for info in self.run.session.get_inputs()}
        feeds = {k: v for k, v in (feeds | self.fixed | self.values).items() if k in read}
        self.values = dict(zip(self.values, self.run(feeds), strict=True))

    def weights(self):
        return [value for name, value in self.values.items() if name.startswith("w")]

    def states(self, i):
        """Conventional values of the states of a weight."""
        found = [value for name, value in self.values.items() if name.endswith(f" {i}")]
        return [value * factor for value, factor in zip(found, self.factors, strict=True)]


def drawn(random, shapes=SHAPES):
    return [np.asarray(random.standard_normal(shape), np.float32) for shape in shapes]


def rate_of(step):
    return float(np.float32(0.01 / (1 + step % 7)))


@each
def test_equals_torch(optimizer):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    weights = drawn(random)
    parameters = [torch.tensor(weight, requires_grad=True) for weight in weights]
    if optimizer.name == "adamw":
        theirs = torch.optim.AdamW(
            parameters, betas=optimizer.betas, eps=optimizer.epsilon, weight_decay=optimizer.l2
        )
    else:
        theirs = torch.optim.SGD(
            parameters,
            momentum=optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.l2,
        )
    ours = Training(optimizer, weights)
    for step in range(STEPS):
        gradients = drawn(random)
        ours.step(gradients, rate_of(step))
        theirs.param_groups[0]["lr"] = rate_of(step)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        theirs.step()
    names = {
        "adamw": ("exp_avg", "exp_avg_sq"),
        "sgd": ("momentum_buffer",) if optimizer.momentum else (),
    }[optimizer.name]
    for i, (found, parameter) in enumerate(zip(ours.weights(), parameters, strict=True)):
        expected = parameter.detach().numpy()
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
        for state, name in zip(ours.states(i), names, strict=True):
            expected = theirs.state[parameter][name].numpy()
            assert np.abs(state - expected).max() <= 2e-6 * np.abs(expected).max()


def reference(optimizer, weight, gradients, decays=True):
    """The formulas of PyTorch's documentation, in float64: the weight and its states."""
    w, l2 = weight.astype(np.float64), optimizer.l2 if decays else 0.0
    m = v = np.zeros_like(w)
    for step, gradient in enumerate(gradients):
        g, rate = gradient.astype(np.float64), rate_of(step)
        if optimizer.name == "sgd":
            g = g + l2 * w
            m = optimizer.momentum * m + g
            w = w - rate * (g + optimizer.momentum * m if optimizer.nesterov else m)
        else:
            beta1, beta2 = optimizer.betas
            w = w - rate * l2 * w
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            corrected = m / (1 - beta1 ** (step + 1))
            root = np.sqrt(v / (1 - beta2 ** (step + 1)))
            w = w - rate * corrected / (root + optimizer.epsilon)
    return w, (m, v)[: len(state_names(optimizer))]


@each
def test_equals_the_formulas_in_float64(optimizer):
    random = np.random.default_rng(1)
    weights = drawn(random)
    # One of the weights sees gradients as small as epsilon.
    scales = (1, 1, 1e-9, 100)
    steps = [
        [np.asarray(g * s, np.float32) for g, s in zip(drawn(random), scales, strict=True)]
        for _ in range(STEPS)
    ]
    decays = [True, True, False, True]
    ours = Training(optimizer, weights, decays=decays)
    for step, gradients in enumerate(steps):
        ours.step(gradients, rate_of(step))
    for i, found in enumerate(ours.weights()):
        expected, states = reference(optimizer, weights[i], [s[i] for s in steps], decays[i])
        for value, exact in zip((found, *ours.states(i)), (expected, *states), strict=True):
            assert np.abs(value - exact).max() <= 2e-6 * np.abs(exact).max()


def test_first_steps_of_adamw_are_as_long_as_the_rate():
    weight = np.zeros(3, np.float32)
    ours = Training(Optimizer(betas=(0.9, 0.999999)), [weight])
    ours.step([np.array([1e-3, -5, 700], np.float32)], 0.25)
    np.testing.assert_allclose(ours.weights()[0], [-0.25, 0.25, -0.25], rtol=1e-5)


def test_late_steps_of_adamw_have_no_bias_correction():
    ours = Training(Optimizer(), [np.zeros((), np.float32)])
    ours.done = 10**9
    ours.step([np.array(1, np.float32)], 1.0)
    assert ours.weights()[0] == pytest.approx(-0.1 / math.sqrt(0.001), rel=1e-6)


@each
def test_weights_that_do_not_decay(optimizer):
    weight = np.full((3, 2), 2, np.float32)
    ours = Training(optimizer, [weight, weight], decays=[True, False])
    for _ in range(3):
        ours.step([np.zeros_like(weight)] * 2, 0.1)
    decaying, still = ours.weights()
    np.testing.assert_array_equal(still, weight)
    assert (decaying < weight).all() == bool(optimizer.l2)


GRADIENTS = (0.0, -0.0, 1.0, -1.0, 1e-42, -1e-42, 1e-45, 3e38, -3e38, 1e-20)


@each
@pytest.mark.parametrize("clip", [None, 0.5])
def test_held_weights_stay_positive_zero_bit_for_bit(optimizer, clip):
    random = np.random.default_rng(2)
    mask = np.asarray(random.integers(0, 2, (8, 5)), np.float32)
    weight = np.where(mask == 1, random.standard_normal((8, 5)), 0).astype(np.float32)
    ours = Training(optimizer, [weight], [mask], clip=clip)
    hard = itertools.cycle(GRADIENTS)
    for step in range(300):
        gradient = np.asarray(random.standard_normal((8, 5)), np.float32)
        gradient[mask == 0] = list(itertools.islice(hard, int((mask == 0).sum())))
        ours.step([gradient], rate_of(step) * (30 if step % 2 else 1))
    for name, value in ours.values.items():
        held = value[mask == 0]
        assert (held == 0).all(), name
    assert not ours.weights()[0][mask == 0].view(np.int32).any()
    moved = ours.weights()[0][mask == 1]
    assert np.isfinite(moved).all()
    assert (moved != weight[mask == 1]).all()


@each
def test_held_weights_at_negative_zero_stay_zero(optimizer):
    weight = np.array([-0.0, 1.0], np.float32)
    ours = Training(optimizer, [weight], [np.array([0, 1], np.float32)])
    for step in range(20):
        ours.step([np.array([3.0 - step, 1.0], np.float32)], 0.1)
    assert ours.weights()[0][0] == 0


def test_masked_gradients_are_not_clipped_for_what_is_held():
    weight, mask = np.zeros(2, np.float32), np.array([0, 1], np.float32)
    ours = Training(Optimizer("sgd", momentum=0), [weight], [mask], clip=1.0)
    ours.step([np.array([1e6, 0.5], np.float32)], 1.0)
    np.testing.assert_array_equal(ours.weights()[0], [0, -0.5])


def test_states():
    assert state_names(Optimizer()) == ("first_moment", "second_moment")
    assert state_names(Optimizer("sgd")) == ("momentum",)
    assert state_names(Optimizer("sgd", momentum=0)) == ()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "adam"}, "'adam' is unknown: choose one of adamw, sgd"),
        ({"momentum": 1.0}, "momentum has the value 1.0"),
        ({"momentum": -0.1}, "momentum has the value -0.1"),
        ({"betas": (0.9,)}, "give two"),
        ({"betas": (0.9, 1.0)}, "betas has the value 1.0"),
        ({"betas": (math.nan, 0.9)}, "betas has the value nan"),
        ({"nesterov": True}, "nesterov needs sgd"),
        ({"name": "sgd", "momentum": 0, "nesterov": True}, "nesterov needs sgd with momentum"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": 1e-60}, "epsilon is 1e-60"),
        ({"epsilon": math.inf}, "epsilon is inf"),
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"l2": math.nan}, "l2 is nan"),
    ],
)
def test_refuses(fields, words):
    with pytest.raises(UsageError, match=words):
        Optimizer(**fields)
