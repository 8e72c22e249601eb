"""Repair of the kept channels against least squares by numpy."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import UsageError
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure.analysis import analyse
from onnxprune.structure.config import ChannelConfig
from onnxprune.structure.groups import find_groups
from onnxprune.structure.reconstruct import RIDGE, Reconstructor
from onnxprune.structure.reduce import reduce_channels
from onnxprune.structure.removal import remove_coupled
from tests.structure.graphs import Case, built
from tests.structure.proof import run

RANDOM = np.random.default_rng(3)
#: Inputs that lie near a plane: channels can stand in for each other.
X = (RANDOM.standard_normal((600, 8)) @ RANDOM.standard_normal((8, 24)) / 3).astype(np.float32)
X += 0.05 * RANDOM.standard_normal(X.shape).astype(np.float32)


def repairer(model: ModelProto, inputs: np.ndarray = X, samples: int = 600) -> Reconstructor:
    source = open_source({"x": inputs}, input_specs(model), labelled=False)
    return Reconstructor(analyse(model), source, samples)


def network(bias: bool = True) -> ModelProto:
    given, names = ({"b": (32,), "c": (10,)}, ("(x, w, b)", "(a, v, c)")) if bias else (
        {}, ("(x, w)", "(a, v)"))  # fmt: skip
    nodes = f"h = Gemm{names[0]}\na = Relu(h)\ny = Gemm{names[1]}"
    return built(Case(nodes, {"w": (24, 32), "v": (32, 10), **given}, [], (24,)))


def weights(model: ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
def test_the_reading_weights_are_the_least_squares_solution(bias: bool) -> None:
    model = network(bias)
    coupling = analyse(model)
    (group,) = find_groups(coupling)
    gone = group.atoms[::2].tolist()
    fitted = repairer(model).refitted(gone)
    smaller = remove_coupled(model, fitted, gone)
    dense, found = weights(model), weights(smaller)
    # The first layer has lost no inputs: its kept half stays.
    np.testing.assert_allclose(found["w"], dense["w"][:, 1::2], rtol=1e-5)
    wide = X.astype(np.float64)
    hidden = np.maximum(wide @ dense["w"] + dense.get("b", 0), 0)
    kept = hidden[:, 1::2]
    centred = kept - kept.mean(0)
    target = hidden @ dense["v"] - kept @ dense["v"][1::2]
    # The ridge is relative to the mean over all inputs of the masked layer: half of them are zero.
    strength = RIDGE * np.square(centred).sum() / 32
    gram = centred.T @ centred + strength * np.eye(16)
    delta = np.linalg.solve(gram, centred.T @ (target - target.mean(0)))
    np.testing.assert_allclose(found["v"], dense["v"][1::2] + delta, rtol=2e-3, atol=2e-3)
    # The bias takes what is left of the mean: without a bias, one is added.
    left = (target - kept @ delta).mean(0)
    (name,) = found.keys() - {"w", "v", "b"}
    np.testing.assert_allclose(found[name], dense.get("c", 0) + left, rtol=2e-3, atol=2e-3)


def test_nearer_than_without() -> None:
    model = network()
    data = open_source({"x": X}, input_specs(model), labelled=False)
    config = ChannelConfig(channels=0.5, importance="l2")
    feeds = {"x": X[:100]}
    (dense,) = run(model, feeds)
    errors = []
    for given in (None, data):
        reduced = reduce_channels(read(model), config, given, samples=500)
        assert [row.after for row in reduced.rows] == [16]
        (found,) = run(to_proto(reduced.model), feeds)
        errors.append(float(np.square(found - dense).mean()))
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize(
    "name", ["resnext", "mobilenet-v2", "densenet", "vit-fused", "dcgan", "gpt"]
)
def test_exports(name: str) -> None:
    """The refitted model without the atoms is the refitted model with zeros at them."""
    pytest.importorskip("torch")
    from tests.structure.proof import half, masked
    from tests.structure.test_exports import CASES, exported, samples

    model, sample = exported(name, False), CASES[name][1]
    coupling = analyse(model)
    inputs = np.concatenate([samples(sample, 2)["x"]] * 16)
    atoms = [atom for group in find_groups(coupling) for atom in half(group)]
    fitted = repairer(model, inputs, 32).refitted(atoms)
    smaller = remove_coupled(model, fitted, atoms)
    feeds = {"x": inputs[:3]}
    for expected, found in zip(run(masked(fitted, atoms), feeds), run(smaller, feeds), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_few_samples_are_said_and_importance_by_activation_needs_some() -> None:
    model = network()
    data = open_source({"x": X[:10]}, input_specs(model), labelled=False)
    reduced = reduce_channels(read(model), ChannelConfig(channels=0.5), data)
    assert any("only 10 samples" in warning for warning in reduced.warnings)
    with pytest.raises(UsageError, match="importance by activation needs calibration data"):
        reduce_channels(read(model), ChannelConfig(channels=0.5, importance="activation"))
