"""A round's graphs and engine from settings and data, and what does not fit together."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import DataError, OnnxPruneError, UsageError
from onnxprune.finetune import FineTune
from onnxprune.model.sources import read
from onnxprune.model.tensors import TensorAddress
from onnxprune.training.setup import RoundSetup, Teaching, optimizer_of, set_up
from tests.training.nets import MLP_SHAPES, batches, data, fixed_batch, mlp, model
from tests.training.test_trainer import DROPOUT

ADDRESSES = [TensorAddress((), name) for name in MLP_SHAPES]


def prepared(
    proto: ModelProto,
    given: Any = None,
    *,
    number: int = 1,
    layers: Any = ADDRESSES,
    **settings: Any,
) -> RoundSetup:
    source = read(proto)
    samples = open_source(data(12) if given is None else given, input_specs(proto))
    teaching = Teaching(source, samples, FineTune(**settings))
    return set_up(source, layers, teaching, number=number)


def test_only_pruned_layers_are_held() -> None:
    setup = prepared(mlp(), layers=ADDRESSES[:1])
    assert setup.graphs.masked == ("w1",)
    assert set(setup.graphs.parameters) == set(MLP_SHAPES)


def test_the_optimizer_is_that_of_the_settings() -> None:
    settings = FineTune(optimizer="sgd", momentum=0.5, nesterov=True, l2=0.25)
    found = optimizer_of(settings)
    assert (found.name, found.momentum, found.nesterov, found.l2) == ("sgd", 0.5, True, 0.25)


def test_rounds_have_dropout_of_their_own() -> None:
    batch = batches(1)[0]
    losses = [
        prepared(model(DROPOUT, MLP_SHAPES), number=number, seed=seed).engine.step(batch, 0.0)
        for number, seed in ((1, 0), (1, 0), (2, 0), (1, 1))
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_data_without_labels_is_distilled() -> None:
    proto = mlp()
    setup = prepared(proto, {"x": data(12)["x"]})
    assert "distillation" in setup.graphs.loss.description
    batch = {"x": batches(1)[0]["x"]}
    feeds = setup.complete(batch)
    (taught,) = set(feeds) - {"x"}
    expected = onnx.reference.ReferenceEvaluator(proto).run(None, batch)[0]
    np.testing.assert_allclose(feeds[taught], expected, rtol=1e-5, atol=1e-6)
    assert setup.engine.step(feeds, 0.0) == pytest.approx(0, abs=1e-6)  # it is its own teacher


def test_distillation_beside_labels_is_on_request() -> None:
    assert not prepared(mlp()).graphs.loss.teachers
    mixed = prepared(mlp(), distill=True, distill_weight=0.25, temperature=3.0)
    assert "0.25 x distillation" in mixed.graphs.loss.description
    assert "temperature 3" in mixed.graphs.loss.description
    assert set(mixed.complete(data(12))) == {"x", "labels", *mixed.graphs.loss.teachers}


def test_floats_get_the_types_of_the_graph() -> None:
    """A float64 input of a model that computes in float32 stays float64."""
    proto = mlp()
    proto.graph.node.insert(0, helper.make_node("Cast", ["x"], ["x32"], to=TensorProto.FLOAT))
    proto.graph.node[1].input[0] = "x32"
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    samples = data(12)
    samples["x"] = samples["x"].astype(np.float64)
    setup = prepared(proto, samples)
    loss = setup.engine.step(setup.complete(samples), 0.01)
    plain = prepared(mlp())
    assert loss == plain.engine.step(plain.complete(data(12)), 0.01)


WRONG = data(12)
WRONG["labels"] = WRONG["labels"] + 5


@pytest.mark.parametrize(
    ("proto", "given", "settings", "kind", "says"),
    [
        (mlp(), WRONG, {}, DataError, r"label"),
        (fixed_batch(mlp(), 4), None, {"batch_size": 6}, UsageError, r"batches of 4 and --batch-"),
        (
            fixed_batch(mlp(), 2),
            None,
            {"class_weights": (1, 1, 2)},
            UsageError,
            r"--class-weights count within a whole batch .* batches of 2 only",
        ),
        (mlp(), None, {"class_weights": (1, 1)}, UsageError, r"2 class weights and 3 classes"),
        (mlp(), None, {"train_layers": ("q",)}, UsageError, r"--train-layers 'q' matches nothing"),
    ],
    ids=["labels", "batch size", "class weights", "their number", "train layers"],
)
def test_what_does_not_fit_is_refused(
    proto: ModelProto, given: Any, settings: dict[str, Any], kind: type[OnnxPruneError], says: str
) -> None:
    with pytest.raises(kind, match=says) as failure:
        prepared(proto, given, **settings)
    assert "\n" not in str(failure.value)


def test_a_last_batch_that_is_no_whole_part_is_refused() -> None:
    setup = prepared(fixed_batch(mlp(), 4), batch_size=8)
    setup.complete(batches(1, 8)[0])
    with pytest.raises(DataError, match=r"batches of 4, which the last batch .* is no multiple of"):
        setup.complete(batches(1, 6)[0])


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_targets_out_of_range_are_refused(value: float) -> None:
    text = """agraph (float[N, 6] x) => (float[N, 3] y) {
        h = Gemm <transB = 1> (x, w2)
        y = Sigmoid (h)
    }"""
    targets = np.full((12, 3), 0.5, np.float32)
    samples = {"x": data(12)["x"], "labels": targets}
    setup = prepared(model(text, {"w2": (3, 6)}), samples)
    setup.complete(samples)
    targets = targets.copy()
    targets[4, 1] = value
    with pytest.raises(DataError, match=r"labels from .* give labels from 0 to 1"):
        setup.complete({**samples, "labels": targets})
