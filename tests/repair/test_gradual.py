"""Pruning in steps: schedules, shares reached, what goes first."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import UsageError
from onnxprune.graph.layers import find_layers
from onnxprune.model.model import Model
from onnxprune.model.tensors import TensorAddress
from onnxprune.pruning.plan import make_plan
from onnxprune.repair.gains import OutputProbe, layer_gains, with_gains
from onnxprune.repair.gradual import FACTOR, prune_in_steps, schedule
from onnxprune.repair.influence import Influence
from onnxprune.repair.repair import Repairer, repair
from onnxprune.repair.scores import Uses, input_uses, without_least
from tests.builders import mlp
from tests.repair.cases import CASES, data, opened, pruned, run, tensor
from tests.repair.test_repair import INPUTS, branching, error, samples


def test_schedules_shrink_what_is_left_by_equal_factors() -> None:
    for target in (0.3, 0.5, 0.8, 0.9, 0.95, 0.99):
        shares = schedule(target)
        assert shares[-1] == target and list(shares) == sorted(set(shares))
        left = 1 - np.array(shares)
        factors = left[:-1] / left[1:]
        assert (factors <= FACTOR + 1e-9).all()
        np.testing.assert_allclose(factors, factors[:1].repeat(len(factors)))
    assert len(schedule(0.9)) == 8 and len(schedule(0.95)) == 10
    assert schedule(0.9, 1) == (0.9,)
    assert schedule(0.9, 2) == (0.5, 0.9)
    assert schedule(0.95, most=5) == schedule(0.95, 5) and len(schedule(0.6, most=5)) == 2
    assert schedule(0.9, 7, most=5) == schedule(0.9, 7), "who asks for steps gets them"
    assert schedule(1.0) == (1.0,)


@pytest.mark.parametrize("criterion", ["magnitude", "activation"])
def test_steps_reach_the_share_and_beat_pruning_at_once(criterion: str) -> None:
    dense = opened(mlp((INPUTS, 64, 64, 10)))
    cut, plans = pruned(dense, 0.8)
    x = samples(512)
    fresh = np.random.default_rng(9).standard_normal((300, INPUTS)).astype(np.float32)
    result = prune_in_steps(dense, plans_of(dense), data(dense, x), 0.8, criterion=criterion)
    zeros = [tensor(result.model, f"fc{i}.weight") == 0 for i in range(3)]
    share = sum(z.sum() for z in zeros) / sum(z.size for z in zeros)
    np.testing.assert_allclose(share, 0.8, atol=1e-3)
    once = repair(dense, cut, plans, data(dense, x)).model
    assert error(dense, result.model, fresh) < error(dense, once, fresh)


def test_a_bias_that_one_step_adds_is_refitted_in_the_next() -> None:
    case = next(case for case in CASES if case.name == "conv without bias")
    dense, x = opened(case.proto()), case.samples()
    result = prune_in_steps(dense, plans_of(dense), data(dense, x), 0.8, steps=4, samples=99)
    wanted, found = run(dense, x)[0], run(result.model, x)[0]
    spread = ((wanted - wanted.mean((0, 2, 3), keepdims=True)) ** 2).sum()
    apart = ((found - wanted) ** 2).sum() / spread
    np.testing.assert_allclose(apart, result.rows[0].after, rtol=1e-3)


def test_choices_are_told() -> None:
    dense = opened(mlp((INPUTS, 32, 10)))
    plans, source = plans_of(dense), data(dense, samples())
    by = {
        name: prune_in_steps(dense, plans, source, 0.8, steps=steps, criterion=name).choice
        for name, steps in (("magnitude", 1), ("activation", 3))
    }
    assert by["magnitude"] == "least magnitude over all layers, at once"
    assert by["activation"].startswith("least magnitude x deviation of its input x")
    assert by["activation"].endswith(", in 3 steps")


def convolutional() -> onnx.ModelProto:
    """Two convolutions whose channels are averaged, and a matrix."""
    random = np.random.default_rng(0)
    shapes = {"c0": (8, 3, 3, 3), "c1": (8, 8, 3, 3), "fc": (8, 10)}
    tensors = [
        numpy_helper.from_array((random.standard_normal(s) / 3).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "c0"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "c1"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "fc"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("misled", [False, True])
def test_an_influence_that_misleads_is_found_out_on_held_out_samples(
    misled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Influence.__call__

    def measure(self: Influence, model: Model) -> dict[TensorAddress, np.ndarray]:
        found = measured(self, model)
        return {a: v * (1e-6 if misled and a.name == "fc" else 1) for a, v in found.items()}

    monkeypatch.setattr(Influence, "__call__", measure)
    monkeypatch.setattr("onnxprune.repair.samples.BATCH", 32)
    x = np.random.default_rng(1).standard_normal((128, 3, 8, 8)).astype(np.float32)
    dense = opened(convolutional())
    seen: list[str] = []
    result = prune_in_steps(
        dense, plans_of(dense), data(dense, x), 0.5, progress=lambda stage, *_: seen.append(stage)
    )
    assert ("influence" in result.choice) == (not misled), result.choice
    assert tensor(result.model, "fc").any()
    assert seen.count("criterion (layers)") == 6


def plans_of(model: object) -> tuple:
    return make_plan(model, find_layers(model), sparsity=0.5)


def test_inputs_that_never_vary_lose_their_weights_first() -> None:
    dense = opened(mlp((INPUTS, 32, 10)))
    x = samples()
    x[:, :12] = 0.5
    result = prune_in_steps(dense, plans_of(dense), data(dense, x), 0.3, steps=1)
    weight = tensor(result.model, "fc0.weight")
    assert not weight[:, :12].any(), "they have the least use"
    assert (weight[:, 12:] != 0).mean() > 0.8
    # What they added is constant: the bias takes it over, and little changes.
    assert error(dense, result.model, x) < 0.05 * run(dense, x)[0].var()


def test_what_the_samples_say_nothing_of_stays_as_in_the_unpruned_model() -> None:
    """The ridge pulls towards the unpruned weights, however many steps there were."""
    dense = opened(mlp((INPUTS, 32, 10)))
    x = samples(24)
    base = np.random.default_rng(3).standard_normal((4, INPUTS)).astype(np.float32)
    x = x[:, :4] @ base  # inputs along four directions only
    result = prune_in_steps(dense, plans_of(dense), data(dense, x), 0.9, steps=8)
    own, old = tensor(result.model, "fc0.weight"), tensor(dense, "fc0.weight")
    kept = [row != 0 for row in own]
    changes = [new[k] - before[k] for new, before, k in zip(own, old, kept, strict=True)]
    for change, k in zip(changes, kept, strict=True):
        if k.sum() > 4:
            unseen = np.linalg.svd(base[:, k])[2][4:]
            np.testing.assert_allclose(unseen @ change, 0, atol=1e-3)


def test_layers_with_a_quality_or_a_reason_are_left_to_their_plans() -> None:
    dense = opened(mlp((INPUTS, 32, 32, 10)))
    plans = make_plan(
        dense, find_layers(dense), sparsity=0.5, overrides=[("fc0*", 1.0)], exclude=["fc1*"]
    )
    result = prune_in_steps(dense, plans, data(dense, samples()), 0.8)
    assert (tensor(result.model, "fc0.weight") != 0).sum() == plans[0].kept
    assert np.array_equal(tensor(result.model, "fc1.weight"), tensor(dense, "fc1.weight"))
    np.testing.assert_allclose((tensor(result.model, "fc2.weight") == 0).mean(), 0.8, atol=5e-3)


def test_layers_whose_inputs_are_not_seen_are_pruned_too() -> None:
    dense = opened(branching())
    result = prune_in_steps(dense, plans_of(dense), data(dense, samples(100, 8)), 0.8)
    layers = find_layers(dense).layers
    zeros = {a.name: result.model.array(result.model.tensors[a]) == 0
             for a in (layer.address for layer in layers)}  # fmt: skip
    assert set(zeros) == {"first", "outer", "inner", "rnn", "again", "last"}
    share = sum(z.sum() for z in zeros.values()) / sum(z.size for z in zeros.values())
    np.testing.assert_allclose(share, 0.8, atol=5e-3)
    assert all(z.any() for z in zeros.values())


def test_gains_spare_the_layer_that_outputs_depend_on_most() -> None:
    uses = {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32), "c": np.ones(2, np.float32)}
    scales = {"a": 1.0, "b": 4.0, "c": 3.0}
    found = with_gains(Uses(uses, scales), {"a": 4.0, "b": 4.0, "c": 0.0})
    # Geometric means of uses times gains, and of the uses: 2 and 4 over their middle.
    np.testing.assert_allclose(found["b"] / found["a"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(found["a"] * found["b"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(found["c"], 1.0)


def test_a_gain_is_the_change_of_outputs_per_loss() -> None:
    dense = opened(mlp((INPUTS, 32, 10)))
    plans, x = plans_of(dense), samples(64)
    repairer = Repairer(dense, plans, data(dense, x))
    jobs = repairer.jobs.jobs
    uses = input_uses(dense, jobs, repairer.samples, stack=True)
    gains = layer_gains(dense, jobs, uses, OutputProbe(dense, repairer.samples))
    last = jobs[1].layer
    cut = without_least(dense, [last], 0.7, uses.relative)
    wanted, found = run(dense, x)[0], run(cut, x)[0]
    change = ((found - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
    hidden = np.maximum(x @ tensor(dense, "fc0.weight").T + tensor(dense, "fc0.bias"), 0)
    lost = (tensor(dense, "fc1.weight") - tensor(cut, "fc1.weight")) * hidden.std(0)
    np.testing.assert_allclose(gains[last.address] ** 2, change / (lost**2).sum(), rtol=1e-3)


def test_the_least_go_over_all_layers() -> None:
    dense = opened(mlp((INPUTS, 32, 10)))
    layers = find_layers(dense).layers
    cut = without_least(dense, layers, 0.4)
    values = np.concatenate([tensor(dense, f"fc{i}.weight").ravel() for i in range(2)])
    limit = np.quantile(np.abs(values), 0.4)
    for i in range(2):
        weight = tensor(dense, f"fc{i}.weight")
        expected = np.where(np.abs(weight) <= limit, 0, weight)
        assert np.array_equal(tensor(cut, f"fc{i}.weight"), expected)
    assert without_least(dense, layers, 0.0) is dense


def test_nonsense_is_refused() -> None:
    dense = opened(mlp((INPUTS, 10)))
    plans, source = plans_of(dense), data(dense, samples())
    for wrong, message in (
        ({"sparsity": 1.2}, "from 0 to 1"),
        ({"steps": 0}, "at least one step"),
        ({"criterion": "taste"}, "magnitude or activation"),
    ):
        with pytest.raises(UsageError, match=message):
            prune_in_steps(dense, plans, source, **{"sparsity": 0.5, **wrong})
