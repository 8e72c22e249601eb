"""Brackets, budgets and bounds, with models of which only the number of weights counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from onnxprune.config import PruneConfig
from onnxprune.errors import OutputError, UsageError
from onnxprune.metrics.metric import Measured, Metric
from onnxprune.model.sources import read
from onnxprune.outcome import Outcome
from onnxprune.search import bound as bounds
from onnxprune.search.bound import Bound, Held, bound_of
from onnxprune.search.searcher import Searcher
from onnxprune.search.ways import ThresholdWay
from tests.builders import mlp

SHARE = Metric("top-1 accuracy", "higher", True, values=lambda a, b: a)
ERROR = Metric("mean squared error", "lower", False, values=lambda a, b: a)
WEIGHTS = 10_000
WAY = ThresholdWay(PruneConfig(sparsity=0.0), "over all layers")


@dataclass
class Plan:
    kept: int

    @property
    def statistics(self) -> Any:
        return type("Statistics", (), {"size": WEIGHTS})


class FakeMeter:
    """Accuracy as a function of the share of weights left."""

    def __init__(self, curve: Callable[[float], float], metric: Metric = SHARE) -> None:
        self.curve, self.metric = curve, metric
        self.measured: Measured | None = None

    def __call__(self, model: Any) -> float:
        self.measured = Measured(self.metric, self.curve(model), 100)
        return self.measured.value


def attempt(config: PruneConfig) -> Outcome:
    assert config.sparsity is not None
    kept = round((1 - config.sparsity) * WEIGHTS)
    plans: Any = (Plan(kept),)
    model: Any = kept / WEIGHTS
    return Outcome(model, plans, (), None, None)


def searcher(
    curve: Callable[[float], float], drop: float = 0.01, most: int = 50, dense: float = 0.9
) -> Searcher:
    meter: Any = FakeMeter(curve)
    return Searcher(meter, Bound(Measured(SHARE, dense, 100), drop, "points"), most)


@pytest.mark.parametrize("edge", [0.9, 0.5, 0.1, 0.02])
def test_a_bracket_closes_around_the_edge(edge: float) -> None:
    found = searcher(lambda kept: 0.9 if kept >= edge else 0.1)
    good, bad = found.narrow(attempt, WAY, 1.0, 0.002)
    assert bad < edge <= good <= 1.05 * edge
    assert found.best is not None
    assert found.best.facts.kept == round(good * WEIGHTS)
    assert len(found.rows) <= 8
    assert [row.trial for row in found.rows] == list(range(1, len(found.rows) + 1))
    assert all(row.within == (row.metric == 0.9) for row in found.rows)
    within = [row for row in found.rows if row.within]
    assert [row for row in within if row.best][-1].kept == min(row.kept for row in within)


def test_a_budget_is_kept() -> None:
    found = searcher(lambda kept: 0.9, most=4)
    found.narrow(attempt, WAY, 1.0, 0.002, most=3)
    assert (len(found.rows), found.left) == (3, 1)
    found.narrow(attempt, WAY, 1.0, 0.002)
    assert (len(found.rows), found.left) == (4, 0)
    found.narrow(attempt, WAY, 1.0, 0.002)
    assert len(found.rows) == 4


def test_a_part_of_the_budget_counts_once_something_is_found() -> None:
    found = searcher(lambda kept: 0.9 if kept > 0.6 else 0.1)
    found.narrow(attempt, WAY, 1.0, 0.002, most=2)
    assert [row.within for row in found.rows] == [False, False, False, True]


def test_nothing_within_the_bound() -> None:
    found = searcher(lambda kept: 0.5)
    good, bad = found.narrow(attempt, WAY, 1.0, 0.002)
    assert found.best is None
    assert good == 1.0
    assert bad > 1 / 1.05


def test_a_number_that_is_none_is_beyond_any_bound() -> None:
    found = searcher(lambda kept: math.nan, drop=10)
    found.narrow(attempt, WAY, 1.0, 0.5)
    assert found.best is None
    assert not any(row.within for row in found.rows)


def test_exactly_the_bound_is_within() -> None:
    assert 0.752 - 0.747 > 0.005, "in floats"
    bound = Bound(Measured(SHARE, 0.752, 1000), 0.5 / 100, "points")
    assert bound.holds(Measured(SHARE, 0.747, 1000))
    assert not bound.holds(Measured(SHARE, 0.746, 1000))


def test_a_way_that_cannot_leave_so_few() -> None:
    class Half:
        name = "half"

        def config(self, kept: float) -> PruneConfig | None:
            return WAY.config(kept) if kept >= 0.5 else None

    found = searcher(lambda kept: 0.9)
    good, bad = found.narrow(attempt, Half(), 1.0, 0.002)
    assert 0.5 <= good <= 1.04 * bad
    assert all(row.kept >= 0.5 * WEIGHTS for row in found.rows)


def test_what_a_number_counts() -> None:
    x = np.random.default_rng(0).standard_normal((50, 24)).astype(np.float32)
    model = read(mlp((24, 8, 3)))
    cosine = Metric("cosine similarity with the unpruned model", "higher", False, values=max)
    assert bound_of(0.5, Measured(SHARE, 0.9, 50), model, x).drop == 0.005
    assert bound_of(0.5, Measured(cosine, 1.0, 50), model, x).drop == 0.005
    error = bound_of(10, Measured(ERROR, 0.25, 50), model, x)
    assert error.drop == pytest.approx(0.025)
    assert error.unit == "% of the unpruned model's value"
    assert error.holds(Measured(ERROR, 0.27, 50))
    assert not error.holds(Measured(ERROR, 0.28, 50))
    negative = replace(ERROR, name="log likelihood", better="higher")
    assert bound_of(10, Measured(negative, -2.0, 50), model, x).drop == pytest.approx(0.2)


def test_a_distance_is_counted_in_the_variance_of_the_outputs() -> None:
    x = np.random.default_rng(0).standard_normal((150, 24)).astype(np.float32)
    proto = mlp((24, 8, 3))
    session = pytest.importorskip("onnxruntime").InferenceSession(proto.SerializeToString())
    outputs = session.run(None, {"x": x})[0]
    for data in (x, (x, np.zeros(150, int))):
        bound = bound_of(2, Measured(ERROR, 0.0, 150), read(proto), data)
        assert bound.drop == pytest.approx(0.02 * outputs.var(axis=0).mean(), rel=1e-5)
        assert bound.unit == "% of the variance of the unpruned model's outputs"


def test_a_percentage_of_nothing() -> None:
    metric = Metric("yardstick:worst", "lower", False, whole=lambda a, b: 0.0)
    with pytest.raises(UsageError, match="is 0 for the unpruned model"):
        bound_of(1, Measured(metric, 0.0, 5), read(mlp()), np.zeros((5, 24), np.float32))


def test_a_written_file_beyond_the_bound_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(FakeMeter):
        def measure(self, session: Any, inputs: Any) -> float:
            return self(0.5)

    monkeypatch.setattr(bounds, "open_session", lambda path: path)
    meter: Any = Other(lambda kept: 0.885)
    held = Held(Bound(Measured(SHARE, 0.9, 100), 0.01, "points"), meter)
    with pytest.raises(OutputError, match=r"beyond --max-drop \(top-1 accuracy 88.50%\)"):
        held.check(tmp_path, [])
    meter.curve = lambda kept: 0.895
    assert held.check(tmp_path, []).detail == (
        "top-1 accuracy 89.50%, measured again on the written file"
    )
