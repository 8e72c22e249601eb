"""Pruning once: shares of thresholds, and dropout ratios from given connections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.config import PruneConfig
from onnxprune.graph.layers import find_layers
from onnxprune.model.model import Model
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.model.tensors import TensorAddress
from onnxprune.pruning.once import PrunedOnce, prune_once, statistics_of
from tests.training.nets import MLP_SHAPES, mlp, model, stored
from tests.training.test_trainer import DROPOUT

W1, W2 = (TensorAddress((), name) for name in ("w1", "w2"))


def pruned(proto: ModelProto, **options: object) -> PrunedOnce:
    source = read(proto)
    config = options.pop("config", PruneConfig(quality=1.0))
    return prune_once(source, find_layers(source), config, **options)  # type: ignore[arg-type]


def weights(result: Model) -> dict[str, np.ndarray]:
    return stored(to_proto(result))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_lowers_the_threshold(share: float) -> None:
    before, after = stored(mlp()), weights(pruned(mlp(), share=share).model)
    for name in ("w1", "w2"):
        gone = np.abs(before[name]) < share * before[name].std()
        assert np.array_equal(after[name], np.where(gone, 0, before[name]))


def test_a_share_lowers_target_shares_and_qualities_of_layers() -> None:
    config = PruneConfig(sparsity=0.8, layers=(("w2", 1.0),))
    found = pruned(mlp(), config=config, share=0.5)
    before, after = stored(mlp()), weights(found.model)
    assert np.mean(after["w1"] == 0) == pytest.approx(0.4, abs=0.02)
    assert np.array_equal(after["w2"] == 0, np.abs(before["w2"]) < 0.5 * before["w2"].std())
    kept = sum(np.count_nonzero(after[name]) for name in ("w1", "w2"))
    assert found.sparsity == pytest.approx(1 - kept / 72)


def test_a_layer_without_a_quality_stays_at_any_share() -> None:
    config = PruneConfig(quality=1.0, layers=(("w2", None),))
    after = weights(pruned(mlp(), config=config, share=0.5).model)
    assert np.array_equal(after["w2"], stored(mlp())["w2"])


def ratio(proto: ModelProto) -> float:
    (tensor,) = (
        attribute.f
        for node in proto.graph.node
        for attribute in node.attribute
        if attribute.name == "value_float"
    )
    return float(tensor)


def test_ratios_count_from_the_given_connections() -> None:
    proto = model(DROPOUT, MLP_SHAPES)
    now = pruned(proto, share=0.5)
    first = statistics_of(now.plans)
    assert {address: known.alive for address, known in first.items()} == {W1: 48, W2: 24}
    more = {**first, W1: replace(first[W1], alive=100)}
    then = pruned(proto, share=0.5, before=more)
    for found, alive in ((now, 48), (then, 100)):
        ((site, after),) = found.dropouts
        kept = np.count_nonzero(weights(found.model)["w1"])
        assert site.ratio == 0.5
        assert after == pytest.approx(0.5 * np.sqrt(kept / alive))
        assert ratio(to_proto(found.weights)) == 0.5
        assert ratio(to_proto(found.model)) == pytest.approx(after)
        assert np.array_equal(weights(found.weights)["w1"], weights(found.model)["w1"])


@pytest.mark.parametrize("given", [False, True])
def test_thresholds_count_in_the_given_statistics(given: bool) -> None:
    """Of the second pruning: those of the first, or by default those of what that left."""
    source = read(mlp())
    scan = find_layers(source)
    once = prune_once(source, scan, PruneConfig(quality=0.5))
    before = statistics_of(once.plans) if given else None
    twice = prune_once(once.weights, scan, PruneConfig(quality=0.7), before=before)
    left = weights(once.model)["w1"]
    deviation = stored(mlp())["w1"].std() if given else left[left != 0].std()
    expected = np.where(np.abs(left) < 0.7 * deviation, 0, left)
    assert np.array_equal(weights(twice.model)["w1"], expected)
    assert statistics_of(twice.plans)[W1].alive == np.count_nonzero(left)


def test_the_source_stays_as_it_was() -> None:
    proto = model(DROPOUT, MLP_SHAPES)
    source = read(proto)
    before = to_proto(source).SerializeToString()
    prune_once(source, find_layers(source), PruneConfig())
    assert to_proto(source).SerializeToString() == before
    assert numpy_helper.to_array(proto.graph.initializer[0]).all()
