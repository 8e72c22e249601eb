"""The function behind the doors, on graphs by hand and on what PyTorch exports."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure.config import ChannelConfig
from onnxprune.structure.macs import count_parameters, count_work
from onnxprune.structure.reduce import GroupRow, reduce_channels
from tests.structure.graphs import Case, built, feed
from tests.structure.proof import run

CASE = Case(
    "h = Conv(x, w)\na = Conv<group=32>(h, k)\nb = Add(a, h)\ny = Conv(b, v)",
    {"w": (32, 4, 1, 1), "k": (32, 1, 1, 1), "v": (3, 32, 1, 1)},
    [],
)


def test_facts() -> None:
    model = built(CASE)
    reduced = reduce_channels(read(model), ChannelConfig(channels=0.5))
    assert reduced.rows == (GroupRow("w out = k out = v in", 32, 16, 3),)
    proto = to_proto(reduced.model)
    assert reduced.parameters == (256, 128) == (count_parameters(model), count_parameters(proto))
    assert reduced.macs == (256 * 36, 128 * 36)
    assert reduced.macs == (count_work(model).macs, count_work(proto).macs)
    assert reduced.warnings == ()
    assert run(proto, feed(CASE, 2))[0].shape == (2, 3, 6, 6)


def test_nothing_to_remove() -> None:
    given = read(built(CASE))
    reduced = reduce_channels(given, ChannelConfig(channels=0))
    assert reduced.model is given
    assert [(row.before, row.after) for row in reduced.rows] == [(32, 32)]
    assert reduced.parameters[0] == reduced.parameters[1]


def test_nodes_that_are_not_counted_are_said() -> None:
    nodes = f"{CASE.nodes}\nz = own.Strange(y)"
    model = built(Case(nodes, CASE.weights, [], domains={"own": 1}))
    reduced = reduce_channels(read(model), ChannelConfig(channels=0.5))
    assert reduced.warnings == ()  # it is no operator that multiplies, as far as anybody knows
    nodes = f"a = own.Strange(x)\nz = MatMul(a, a)\n{CASE.nodes.replace('a', 'c')}"
    model = built(Case(nodes, CASE.weights, [], domains={"own": 1}))
    (warning,) = reduce_channels(read(model), ChannelConfig(channels=0.5)).warnings
    assert "the operations of 1 node are not counted" in warning
    assert "'node1'" in warning


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_exports(scope: str) -> None:
    pytest.importorskip("torch")
    from tests.structure.test_exports import CASES, exported, samples

    for name in ("resnext", "densenet", "group-shuffle", "vit-fused", "gpt"):
        model, feeds = exported(name, False), samples(CASES[name][1], 2)
        for share in (0.3, 0.6, 0.9):
            config = ChannelConfig(channels=share, scope=scope, align=1)  # type: ignore[arg-type]
            reduced = reduce_channels(read(model), config)
            proto = to_proto(reduced.model)
            (found,), (expected,) = run(proto, feeds), run(model, feeds)
            assert found.shape == expected.shape
            assert np.isfinite(found).all()
            assert reduced.macs[1] == count_work(proto).macs < reduced.macs[0]
