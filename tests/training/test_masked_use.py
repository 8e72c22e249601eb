"""Splicing: the model sees weight times mask, and the weight beneath learns from that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.model.sources import read
from onnxprune.training.masked_use import with_masked_use
from onnxprune.training.preparation import prepare
from onnxprune.training.trainer import Trainer
from onnxprune.training.update.optimizers import Optimizer
from tests.training.nets import batches, cnn, fixed_batch, graphs, mlp, trainer

PLAIN = Optimizer("sgd", momentum=0.0)


def spliced(proto: ModelProto, names: list[str], **options: Any) -> Trainer:
    made = graphs(proto, prepare(read(proto)), **options)
    return Trainer(with_masked_use(made, names), threads=1)


def halves(engine: Trainer) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.random(mask.shape) < 0.5 for name, mask in engine.masks().items()}


def with_masks(proto: ModelProto, masks: dict[str, np.ndarray]) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in masks:
            array = numpy_helper.to_array(tensor) * masks[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


CASES = {
    "mlp": (mlp(), ["w1", "w2"], (6,), 8),
    "cnn": (cnn(), ["k", "w"], (2, 6, 6), 4),
    "parts": (fixed_batch(mlp(), 4), ["w1", "w2"], (6,), 8),
}
each = pytest.mark.parametrize(("proto", "names", "shape", "size"), CASES.values(), ids=CASES)


@each
def test_the_weight_beneath_gets_the_gradient_of_the_product(
    proto: ModelProto, names: list[str], shape: tuple[int, ...], size: int
) -> None:
    engine = spliced(proto, names, optimizer=PLAIN)
    engine.revise(masks := halves(engine))
    plain = trainer(with_masks(proto, masks), optimizer=PLAIN)
    dense, seen = engine.beneath(), plain.parameters()
    (batch,) = batches(1, size, shape)
    assert engine.step(batch, 0.1) == pytest.approx(plain.step(batch, 0.1), rel=1e-6)
    for name, array in plain.parameters().items():
        change = array - seen[name]
        start = dense.get(name, seen[name])
        now = {**engine.parameters(), **engine.beneath()}[name]
        np.testing.assert_allclose(now, start + change, rtol=1e-5, atol=1e-7)
    for name in names:
        assert (engine.beneath()[name][~masks[name]] != dense[name][~masks[name]]).any()


@each
def test_parameters_are_what_the_model_sees(
    proto: ModelProto, names: list[str], shape: tuple[int, ...], size: int
) -> None:
    engine = spliced(proto, names)
    engine.revise(masks := halves(engine))
    for batch in batches(5, size, shape):
        engine.step(batch, 0.01)
    found, dense = engine.parameters(), engine.beneath()
    for name in names:
        gone = found[name][~masks[name]]
        assert gone.tobytes() == bytes(4 * gone.size), "+0.0"
        assert np.array_equal(found[name][masks[name]], dense[name][masks[name]])


def test_with_masked_gradients_nothing_is_learnt_beneath() -> None:
    engine = spliced(mlp(), ["w1"], hold=True, optimizer=Optimizer(l2=0.0))
    engine.revise(masks := halves(engine))
    before = engine.beneath()["w1"]
    for batch in batches(5):
        engine.step(batch, 0.01)
    after, mask = engine.beneath()["w1"], masks["w1"]
    assert np.array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).all()


@pytest.mark.parametrize("proto", [mlp(), fixed_batch(mlp(), 4)], ids=["free", "parts"])
def test_a_restored_engine_goes_on_bit_for_bit(proto: ModelProto) -> None:
    engine, other = (spliced(proto, ["w1", "w2"]) for _ in range(2))
    engine.revise(halves(engine))
    for batch in batches(3):
        engine.step(batch, 0.01)
    other.restore(engine.state())
    for batch in batches(3, seed=9):
        assert engine.step(batch, 0.01) == other.step(batch, 0.01)
    assert all(np.array_equal(other.state()[n], array) for n, array in engine.state().items())
    assert all(np.array_equal(other.masks()[n], mask) for n, mask in engine.masks().items())


def test_a_weight_that_a_body_reads_is_masked_there_too() -> None:
    proto = with_body(mlp())
    engine = spliced(proto, ["w1"], optimizer=PLAIN)
    assert "w1.masked" in str(engine.graphs.training.graph.node)
    names = [
        name
        for node in engine.graphs.training.graph.node
        for attribute in node.attribute
        for inner in attribute.g.node
        for name in inner.input
    ]
    assert "w1.masked" in names and "w1" not in names


def with_body(proto: ModelProto) -> ModelProto:
    """The same with an If whose branches read the first weight."""
    from onnx import TensorProto, helper

    shape = helper.make_tensor_value_info("s", TensorProto.FLOAT, None)
    branch = helper.make_graph(
        [helper.make_node("ReduceMax", ["w1"], ["s"], keepdims=0)], "branch", [], [shape]
    )
    copy = ModelProto()
    copy.CopyFrom(proto)
    last = copy.graph.node[-1]
    name, last.output[0] = last.output[0], "before"
    zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
    copy.graph.initializer.extend([zero, numpy_helper.from_array(np.array(True), "yes")])
    nodes = [
        helper.make_node("If", ["yes"], ["largest"], then_branch=branch, else_branch=branch),
        helper.make_node("Greater", ["largest", "zero"], ["positive"]),
        helper.make_node("Where", ["positive", "before", "zero"], [name]),
    ]
    copy.graph.node.extend(nodes)
    return copy
