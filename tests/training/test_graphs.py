"""The graphs of a step: their inputs and outputs, and what they refuse."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.training.graphs import accumulating_graph, fused_graph
from onnxprune.training.update.optimizers import Optimizer
from tests.training.nets import MLP_SHAPES, batches, graphs, mlp, model, stored
from tests.training.test_trainer import DROPOUT


def inputs(proto: ModelProto) -> set[str]:
    return {info.name for info in proto.graph.input}


def outputs(proto: ModelProto) -> list[str]:
    return [info.name for info in proto.graph.output]


def run(proto: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    taken = {name: feeds[name] for name in inputs(proto)}
    return dict(zip(outputs(proto), session.run(None, taken), strict=True))


def test_all_graphs_are_valid_and_complete() -> None:
    made = graphs(mlp(), hold=True, optimizer=Optimizer(l2=0.1), clip_norm=1.0)
    parameters = set(MLP_SHAPES)
    assert set(made.parameters) == set(made.masked) == parameters
    states = ("first_moment", "second_moment")
    assert made.states == states
    every = {"training": made.training, "evaluation": made.evaluation}
    every |= {"optimizer": made.optimizer, "fused": fused_graph(made)}
    every |= {"accumulating": accumulating_graph(made)}
    for proto in every.values():
        onnx.checker.check_model(proto, full_check=True)
        assert not parameters & {tensor.name for tensor in proto.graph.initializer}
    data = {"x", "labels"}
    gradients = {f"{name}.gradient" for name in parameters}
    moments = {f"{name}.{state}" for name in parameters for state in states}
    masks = {f"{name}.mask" for name in parameters}
    scalars = {"onnxprune.learning_rate", "onnxprune.step"}
    assert inputs(every["training"]) == inputs(every["evaluation"]) == data | parameters
    assert outputs(every["training"])[0] == made.loss.loss
    assert set(outputs(every["training"])[1:]) == gradients
    assert outputs(every["evaluation"]) == [made.loss.loss, made.loss.correct, "y"]
    assert inputs(every["optimizer"]) == parameters | gradients | moments | masks | scalars
    assert inputs(every["fused"]) == data | parameters | moments | masks | scalars
    updated = {f"{name}.updated" for name in parameters | moments}
    assert set(outputs(every["optimizer"])) == updated
    assert set(outputs(every["fused"])) == {made.loss.loss} | updated


def test_the_evaluation_counts_right_answers_without_dropout() -> None:
    proto = model(DROPOUT, MLP_SHAPES)
    made = graphs(proto)
    assert "onnxprune.seed" in inputs(made.training)
    assert "onnxprune.seed" not in inputs(made.evaluation)
    batch = batches(1, 20)[0]
    found = run(made.evaluation, {**batch, **made.initial})
    scores = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": batch["x"]})[0]
    assert made.loss.correct is not None
    assert found[made.loss.correct] == (scores.argmax(axis=1) == batch["labels"]).sum()


def test_accumulating_adds_scaled_gradients() -> None:
    made = graphs(mlp())
    batch = batches(1)[0]
    plain = run(made.training, {**batch, **made.initial})
    sums = {f"{name}.accumulated": np.full(MLP_SHAPES[name], 2, "f") for name in MLP_SHAPES}
    scale = {"onnxprune.scale": np.array(0.25, np.float32)}
    found = run(accumulating_graph(made), {**batch, **made.initial, **sums, **scale})
    for name in MLP_SHAPES:
        expected = 2 + 0.25 * plain[f"{name}.gradient"]
        np.testing.assert_allclose(found[f"{name}.accumulated.updated"], expected, rtol=1e-6)


def test_equal_gradients_of_two_parameters_have_a_name_each() -> None:
    """Two biases that are added one after the other have one gradient."""
    text = """agraph (float[N, 6] x) => (float[N, 3] y) {
        h = MatMul (x, w)
        i = Add (h, b)
        y = Add (i, c)
    }"""
    made = graphs(model(text, {"w": (6, 3), "b": (3,), "c": (3,)}))
    batch = batches(1)[0]
    found = run(made.training, {**batch, **made.initial})
    assert found["b.gradient"].any()
    assert np.array_equal(found["b.gradient"], found["c.gradient"])
    onnx.checker.check_model(fused_graph(made), full_check=True)


@pytest.mark.parametrize(
    "name", ["w1.mask", "w1.gradient", "w1.updated", "w2.momentum", "w2.momentum.updated"]
)
@pytest.mark.parametrize("stored_value", [True, False], ids=["initializer", "value"])
def test_names_that_the_model_has_already_are_refused(name: str, stored_value: bool) -> None:
    proto = mlp()
    if stored_value:
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, "f"), name))
    inner = helper.make_node("Add", ["y", name], ["z"])
    proto.graph.node.append(inner if stored_value else helper.make_node("Abs", ["y"], [name]))
    with pytest.raises(ModelError, match=rf"a value named '{name}', which training needs"):
        graphs(proto, optimizer=Optimizer("sgd"))


def test_the_names_of_the_inputs_of_training_are_refused() -> None:
    proto = mlp()
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = "labels"
    with pytest.raises(ModelError, match="a value named 'labels'"):
        graphs(proto)


def test_initial_values_are_those_of_the_model() -> None:
    made = graphs(mlp())
    for name, array in stored(mlp()).items():
        assert np.array_equal(made.initial[name], array)


def test_parts_of_the_model_that_training_does_not_know_stay_out_of_masks() -> None:
    made = graphs(mlp(), hold=True, train_layers=("w2", "b1"))
    assert set(made.masked) == {"w2", "b1"}
    assert "w1" in made.selection.frozen
