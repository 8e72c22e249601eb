"""Influence of channels on a model's outputs, against derivatives that numpy writes down."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph.layers import find_layers
from onnxprune.pruning.plan import make_plan
from onnxprune.repair.gradual import prune_in_steps
from onnxprune.repair.influence import influence_of
from onnxprune.repair.repair import Repairer
from tests.builders import mlp
from tests.repair.cases import CASES, data, opened, tensor
from tests.repair.test_repair import INPUTS, samples


def measured(dense, x):  # type: ignore[no-untyped-def]
    """Influence of a model's channels, by the name of the layer's tensor."""
    repairer = Repairer(dense, make_plan(dense, find_layers(dense), sparsity=0.5), data(dense, x))
    start = repairer.started(dense)
    influence = influence_of(start, repairer.jobs.jobs, repairer.samples)
    assert influence is not None
    return {address.name: value for address, value in influence(start).items()}


def test_an_mlp_has_the_jacobians_that_numpy_finds() -> None:
    dense, x = opened(mlp((INPUTS, 24, 10))), samples(512)
    found = measured(dense, x)
    hidden = x @ tensor(dense, "fc0.weight").T + tensor(dense, "fc0.bias")
    out = np.maximum(hidden, 0) @ tensor(dense, "fc1.weight").T + tensor(dense, "fc1.bias")
    # Of the outputs with respect to the hidden layer: its weights, where a channel is on.
    active = (hidden > 0).sum(axis=0)
    expected = np.sqrt(active * (tensor(dense, "fc1.weight") ** 2).sum(axis=0)) / out.std()
    # Random signs make an estimate of it.
    np.testing.assert_allclose(found["fc0.weight"][0], expected, rtol=0.25)
    assert abs(np.log(found["fc0.weight"][0] / expected).mean()) < 0.03
    np.testing.assert_allclose(found["fc1.weight"][0], np.sqrt(512) / out.std(), rtol=1e-5)


def test_a_channel_that_no_output_follows_has_the_least() -> None:
    proto = mlp((INPUTS, 24, 10))
    for initializer in proto.graph.initializer:
        if initializer.name == "fc1.weight":
            weight = numpy_helper.to_array(initializer).copy()
            weight[:, :4] = 0
            initializer.CopyFrom(numpy_helper.from_array(weight, initializer.name))
    found = measured(opened(proto), samples(64))["fc0.weight"][0]
    assert found[:4].max() < 0.01 * found[4:].min() and found[:4].min() > 0
    pruned = prune_in_steps(
        opened(proto), make_plan(opened(proto), find_layers(opened(proto)), sparsity=0.5),
        data(opened(proto), samples(64)), 0.5,
    ).model  # fmt: skip
    assert not tensor(pruned, "fc0.weight")[:4].any(), "weights into them go first"


@pytest.mark.parametrize("link", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_probabilities_count_by_the_scores_beneath(link: str) -> None:
    proto = mlp((INPUTS, 24, 10))
    plain = measured(opened(proto), samples(64))
    proto.graph.node.append(helper.make_node(link, ["y"], ["p"]))
    proto.graph.output[0].name = "p"
    found = measured(opened(proto), samples(64))
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_layout_has_one_number_per_output(case) -> None:  # type: ignore[no-untyped-def]
    """The layer is the model: each output's derivative is one, over the spread of outputs."""
    dense, x = opened(case.proto()), case.samples()
    plans = make_plan(dense, find_layers(dense), sparsity=0.5)
    repairer = Repairer(dense, plans, data(dense, x))
    start, (job,) = repairer.started(dense), repairer.jobs.jobs
    influence = influence_of(start, [job], repairer.samples)
    assert influence is not None
    (found,) = influence(start).values()
    assert found.shape == job.shape[:2]
    np.testing.assert_allclose(found, found.flat[0], rtol=1e-5)


def test_models_without_gradients_are_pruned_by_what_layers_do() -> None:
    proto = mlp((INPUTS, 24, 9))
    graph = proto.graph
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 3, 3]), "shape"))
    graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["square"]))
    graph.node.append(helper.make_node("Det", ["square"], ["size"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, ["N"]))
    dense, x = opened(proto), samples(64)
    plans = make_plan(dense, find_layers(dense), sparsity=0.5)
    repairer = Repairer(dense, plans, data(dense, x))
    assert influence_of(repairer.started(dense), repairer.jobs.jobs, repairer.samples) is None
    result = prune_in_steps(dense, plans, data(dense, x), 0.8)
    assert "its layer's influence" in result.choice
    zeros = [tensor(result.model, f"fc{i}.weight") == 0 for i in range(2)]
    share = sum(z.sum() for z in zeros) / sum(z.size for z in zeros)
    np.testing.assert_allclose(share, 0.8, atol=5e-3)
