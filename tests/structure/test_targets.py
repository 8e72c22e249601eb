"""Targets: a share of the operations, and a speed (here that of a machine made up for the test)."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import UsageError
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure.choice import Chooser
from onnxprune.structure.config import ChannelConfig
from onnxprune.structure.latency import Race, Speed
from onnxprune.structure.macs import WorkCounter, count_work
from onnxprune.structure.reduce import reduce_channels
from onnxprune.structure.removal import remove_coupled
from onnxprune.structure.targets import CLOSE, meet_speedup
from tests.structure.graphs import Case, built, feed
from tests.structure.test_choice import HEADS, chain, chooser

WIDE = chain(128, 96, 64, 200)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("target", [0.9, 0.5, 0.25])
def test_macs(scope: str, target: float) -> None:
    model = built(WIDE)
    reduced = reduce_channels(read(model), ChannelConfig(macs=target, scope=scope))  # type: ignore[arg-type]
    assert reduced.macs[1] == count_work(to_proto(reduced.model)).macs
    # As much as the target allows: no more than eight channels of one group less.
    assert 0.85 * target < reduced.macs[1] / reduced.macs[0] <= target
    assert all(row.after % 8 == 0 for row in reduced.rows)


def test_all_of_the_operations() -> None:
    given = read(built(WIDE))
    assert reduce_channels(given, ChannelConfig(macs=1.0)).model is given


def test_too_few_operations() -> None:
    with pytest.raises(UsageError, match=r"cannot be brought down to 0.001 .*: 0.0\d+ is left"):
        reduce_channels(read(built(WIDE)), ChannelConfig(macs=0.001))


@pytest.mark.parametrize("target", [{"macs": 0.5}, {"speedup": 2}])
def test_nothing_that_could_go(target: dict[str, float]) -> None:
    model = built(Case("h = Conv(x, w)\ny = Softmax<axis=1>(h)", {"w": (8, 4, 1, 1)}, []))
    reason = r"no channel can be removed: 'node1' \(Softmax\) normalizes over the axis"
    with pytest.raises(UsageError, match=reason):
        reduce_channels(read(model), ChannelConfig(**target))  # type: ignore[arg-type]


class MadeUp(Race):
    """Takes time for every operation, and some for the start, as real machines do."""

    def __init__(self, dense: ModelProto, overhead: float = 0.0) -> None:
        self.overhead = overhead * count_work(dense).macs
        self.dense = count_work(dense).macs + self.overhead
        self.measured: list[float] = []

    def against(self, smaller: ModelProto) -> Speed:
        seconds = count_work(smaller).macs + self.overhead
        self.measured.append(self.dense / seconds)
        return Speed(self.dense, seconds, self.dense / seconds)


def parts(scope: str = "layer") -> tuple[ModelProto, Chooser, WorkCounter]:
    chosen = chooser(WIDE, scope)
    return built(WIDE), chosen, WorkCounter(chosen.coupling)


@pytest.mark.parametrize("overhead", [0.0, 0.1])
@pytest.mark.parametrize("target", [1.2, 2.0, 3.5])
def test_speedup(target: float, overhead: float) -> None:
    model, chosen, counter = parts("global")
    race = MadeUp(model, overhead)
    found = meet_speedup(
        chosen,
        counter,
        target,
        race,
        lambda choice: remove_coupled(model, chosen.coupling, choice.atoms),
    )
    assert found.speed is not None
    assert target <= found.speed.ratio <= target * CLOSE**2
    assert len(race.measured) <= 6
    left = counter.without(found.choice.atoms).macs / counter.without(()).macs
    assert found.speed.ratio == pytest.approx((1 + overhead) / (left + overhead))


def test_a_speed_that_cannot_be_reached() -> None:
    model, chosen, counter = parts()
    race = MadeUp(model, overhead=1.0)  # never twice as fast
    with pytest.raises(UsageError, match=r"a speedup of 3 cannot be reached.*measured is 1\.9\d"):
        meet_speedup(
            chosen,
            counter,
            3.0,
            race,
            lambda choice: remove_coupled(model, chosen.coupling, choice.atoms),
        )
    assert max(race.measured) < 2


def test_no_speedup_asked_for_is_no_measurement() -> None:
    model, chosen, counter = parts()
    race = MadeUp(model)
    found = meet_speedup(chosen, counter, 1.0, race, lambda choice: model)
    assert found.choice.atoms == ()
    assert race.measured == []


def test_measured_in_onnxruntime() -> None:
    model, chosen = built(chain(256, 256, 256)), chooser(chain(256, 256, 256))
    smaller = remove_coupled(model, chosen.coupling, chosen.at_share(0.9).atoms)
    race = Race(model, 1, {"x": np.zeros((64, 4, 6, 6), np.float32)})
    speed = race.against(smaller)
    assert speed.ratio > 2  # 40 times fewer operations
    assert speed.dense > speed.smaller > 0
    assert Race(model, 1).against(smaller).dense > 0  # on random inputs


def test_heads_meet_a_target_too() -> None:
    reduced = reduce_channels(read(built(HEADS)), ChannelConfig(macs=0.5))
    assert {row.before: row.after for row in reduced.rows} == {6: 3, 16: 16}


def test_a_speed_that_cannot_be_reached_with_open_axes() -> None:
    """Without samples, images are as small as they can be, and nothing is to be gained."""
    case = Case("h = Conv(x, w)\ny = Conv(h, v)", {"w": (16, 4, 1, 1), "v": (3, 16, 1, 1)}, [],
                free=(1, 2))  # fmt: skip
    model, config = built(case), ChannelConfig(speedup=100)
    with pytest.raises(UsageError, match=r"calibrate with: open axes were taken to be 1 long$"):
        reduce_channels(read(model), config)
    samples = open_source(feed(case, 4), input_specs(model), labelled=False)
    with pytest.raises(UsageError, match=r"ask for less$"):
        reduce_channels(read(model), config, samples)
