"""Allocations against linear programming, and configurations against what they are to leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from onnxprune.config import PruneConfig
from onnxprune.graph.layers import find_layers
from onnxprune.model.sources import read
from onnxprune.pruning.once import prune_once
from onnxprune.pruning.plan import LayerPlan, make_plan
from onnxprune.search.ways import Allocation, Curve, ThresholdWay, _hull, with_shares
from tests.builders import mlp

BASE = PruneConfig(sparsity=0.0)
MODEL = read(mlp((12, 30, 20, 5)))
SCAN = find_layers(MODEL)
PLANS = make_plan(MODEL, SCAN, quality=0.0)


def curve(plan: LayerPlan, costs: list[float]) -> Curve:
    gone = np.linspace(0, 0.9, len(costs) + 1) * plan.statistics.size
    return Curve(plan, *_hull(gone, np.maximum.accumulate([0.0, *costs])))


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 9)), min_size=1, max_size=8))
def test_a_hull_lies_below_and_bends_upwards(steps: list[tuple[int, float]]) -> None:
    x = np.cumsum([0, *(step for step, _ in steps)]).astype(float)
    y = np.cumsum([0.0, *(rise for _, rise in steps)])
    hull_x, hull_y = _hull(x, y)
    assert (hull_x[0], hull_y[0], hull_x[-1], hull_y[-1]) == (x[0], y[0], x[-1], y[-1])
    assert (np.interp(x, hull_x, hull_y) <= y + 1e-9).all()
    slopes = np.diff(hull_y) / np.diff(hull_x)
    assert (np.diff(slopes) >= -1e-9).all()
    assert set(zip(hull_x, hull_y, strict=True)) <= set(zip(x, y, strict=True))


def test_a_hull_leaves_out_what_is_no_number() -> None:
    x, y = _hull(np.array([0.0, 1, 2, 2, 3]), np.array([0.0, 1, 1.5, 1.5, np.inf]))
    assert (x.tolist(), y.tolist()) == ([0, 2], [0, 1.5])


@given(
    st.lists(st.lists(st.floats(0, 5), min_size=3, max_size=3), min_size=3, max_size=3),
    st.floats(0, 0.89),
)
def test_the_least_sum_of_costs(costs: list[list[float]], share: float) -> None:
    """Linear programming over the pieces of the hulls finds no cheaper way."""
    curves = [curve(plan, own) for plan, own in zip(PLANS, costs, strict=True)]
    total = share * sum(plan.statistics.size for plan in PLANS)
    gone = Allocation(curves).gone(total)
    assert gone is not None
    assert sum(gone.values()) == pytest.approx(total, abs=1e-6)
    cost = sum(np.interp(gone[c.plan.layer.address], c.gone, c.cost) for c in curves)
    sizes = np.concatenate([np.diff(c.gone) for c in curves])
    slopes = np.concatenate([np.diff(c.cost) / np.diff(c.gone) for c in curves])
    best = linprog(slopes, A_eq=[np.ones(len(sizes))], b_eq=[total], bounds=[(0, s) for s in sizes])
    assert cost == pytest.approx(best.fun, abs=1e-6)


def test_more_than_can_go() -> None:
    curves = [curve(plan, [1.0]) for plan in PLANS]
    size = sum(plan.statistics.size for plan in PLANS)
    assert Allocation(curves).gone(0.9 * size) is not None
    assert Allocation(curves).gone(0.91 * size) is None


def test_zeros_that_are_there_are_free() -> None:
    plan = PLANS[0]
    own = Curve(plan, np.array([100.0, 300.0]), np.array([0.0, 2.0]))
    gone = Allocation([own]).gone(50.0)
    assert gone == {plan.layer.address: 100.0}


@given(st.lists(st.floats(0, 0.99), min_size=3, max_size=3))
def test_qualities_leave_the_shares(shares: list[float]) -> None:
    wanted = dict(zip((plan.layer.address for plan in PLANS), shares, strict=True))
    config = with_shares(BASE, SCAN, PLANS, wanted)
    assert config is not None
    assert (config.quality, config.sparsity) == (0.0, None)
    for plan in prune_once(MODEL, SCAN, config).plans:
        size = plan.statistics.size
        assert plan.kept == pytest.approx((1 - wanted[plan.layer.address]) * size, abs=1)


@pytest.mark.parametrize("pattern", ["4x1", "1x4", "2x3"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.77, 1.0])
def test_qualities_leave_the_shares_in_blocks(pattern: str, share: float) -> None:
    base = PruneConfig(sparsity=0.0, pattern=pattern)
    wanted = {plan.layer.address: share for plan in PLANS}
    config = with_shares(base, SCAN, PLANS, wanted)
    assert config is not None
    rows, columns = map(int, pattern.split("x"))
    for plan in prune_once(MODEL, SCAN, config).plans:
        size = plan.statistics.size
        assert abs(plan.kept - (1 - share) * size) <= rows * columns


def test_other_layers_and_own_qualities_stay() -> None:
    base = PruneConfig(sparsity=0.0, layers=(("fc1*", 0.5),), exclude=("fc2*",))
    first = PLANS[:1]
    config = with_shares(base, SCAN, first, {first[0].layer.address: 0.5})
    assert config is not None
    pruned = prune_once(MODEL, SCAN, config).plans
    assert [plan.quality for plan in pruned[1:]] == [0.5, None]
    assert pruned[0].kept == 180
    assert pruned[2].kept == pruned[2].statistics.alive


def test_names_that_look_like_globs() -> None:
    proto = mlp((12, 30, 20, 5))
    for at, name in enumerate(("w[0]", "w0", "w*")):
        proto.graph.initializer[2 * at].name = name
        proto.graph.node[2 * at].input[1] = name
    model = read(proto)
    scan = find_layers(model)
    plans = make_plan(model, scan, quality=0.0)
    shares = dict(zip((plan.layer.address for plan in plans), (0.2, 0.4, 0.6), strict=True))
    config = with_shares(BASE, scan, plans, shares)
    assert config is not None
    kept = [plan.kept / plan.statistics.size for plan in prune_once(model, scan, config).plans]
    assert kept == pytest.approx([0.8, 0.6, 0.4], abs=0.01)


def test_names_that_do_not_tell_layers_apart() -> None:
    """A node that is called like another layer's weight."""
    proto = mlp((12, 30, 5))
    proto.graph.node[2].name = "fc0.weight"
    model = read(proto)
    scan = find_layers(model)
    plans = make_plan(model, scan, quality=0.0)
    shares = {plans[0].layer.address: 0.5, plans[1].layer.address: 0.0}
    assert with_shares(BASE, scan, plans, shares) is None


def test_one_threshold() -> None:
    way = ThresholdWay(PruneConfig(sparsity=0.0, scope="layer"), "in every layer")
    config = way.config(0.25)
    assert config == PruneConfig(sparsity=0.75, scope="layer")
