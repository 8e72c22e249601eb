"""Learning-rate schedules: properties, and PyTorch's own schedulers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.training.update.schedules import rate_at

NAMES = ("constant", "cosine", "step")
names = st.sampled_from(NAMES)
bases = st.floats(0, 10)
lengths = st.integers(1, 10_000)


@given(names, bases, lengths)
def test_starts_at_the_base_rate(schedule, base, steps):
    assert rate_at(schedule, base, 1, steps) == base


@given(names, bases, lengths, st.data())
def test_never_rises_and_stays_between_zero_and_the_base(schedule, base, steps, data):
    step = data.draw(st.integers(1, steps))
    rate = rate_at(schedule, base, step, steps)
    assert 0 <= rate <= base
    if step < steps:
        assert rate_at(schedule, base, step + 1, steps) <= rate


@given(bases, lengths, st.data())
def test_constant_is_constant(base, steps, data):
    assert rate_at("constant", base, data.draw(st.integers(1, steps)), steps) == base


@given(lengths, st.data())
def test_cosine_is_point_symmetric(steps, data):
    before = data.draw(st.integers(0, steps - 1))
    mirrored = steps - before
    sum_ = rate_at("cosine", 1, before + 1, steps)
    sum_ += rate_at("cosine", 1, mirrored + 1, steps) if before else 0.0
    assert sum_ == pytest.approx(1)


def test_cosine_ends_just_above_zero():
    assert 0 < rate_at("cosine", 1, 1000, 1000) < 1e-5


@pytest.mark.parametrize(
    ("steps", "rates"),
    [
        (8, [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        (5, [1, 1, 1, 0.1, 0.01]),
        (2, [1, 0.1]),
        (1, [1]),
    ],
)
def test_step_drops_at_half_and_three_quarters(steps, rates):
    assert [rate_at("step", 1, step, steps) for step in range(1, steps + 1)] == rates


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_equals_torch(steps):
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler

    def rates(make):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler = make(optimizer)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return pytest.approx(found)

    drops = [-(-steps // 2), -(-3 * steps // 4)]
    steps_ = range(1, steps + 1)
    cosine = rates(lambda optimizer: schedulers.CosineAnnealingLR(optimizer, steps))
    assert [rate_at("cosine", 0.1, step, steps) for step in steps_] == cosine
    dropped = rates(lambda optimizer: schedulers.MultiStepLR(optimizer, drops))
    assert [rate_at("step", 0.1, step, steps) for step in steps_] == dropped


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("linear", 0.1, 1, 2), "'linear' is unknown: choose one of constant, cosine, step"),
        (("cosine", -0.1, 1, 2), "the learning rate is -0.1"),
        (("cosine", float("nan"), 1, 2), "the learning rate is nan"),
        (("cosine", float("inf"), 1, 2), "the learning rate is inf"),
        (("cosine", 0.1, 0, 2), "step 0 is not one of the 2 steps"),
        (("cosine", 0.1, 3, 2), "step 3 is not one of the 2 steps"),
    ],
)
def test_refuses(arguments, words):
    with pytest.raises(UsageError, match=words):
        rate_at(*arguments)
