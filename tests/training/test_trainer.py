"""Training steps against PyTorch's, held zeros, accumulation, states, and memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.runtime import CannotRun
from onnxprune.training.masked_use import with_masked_use
from onnxprune.training.trainer import Trainer
from onnxprune.training.update.optimizers import Optimizer
from tests.training.nets import (
    CNN_SHAPES,
    MLP_SHAPES,
    batches,
    cnn,
    data,
    fixed_batch,
    graphs,
    mlp,
    model,
    stored,
    trainer,
)

OPTIMIZERS = {
    "adamw": (Optimizer(l2=0.05), 1e-2, None),
    "sgd": (Optimizer("sgd", momentum=0.9, l2=0.01), 1e-2, None),
    "nesterov": (Optimizer("sgd", momentum=0.8, nesterov=True, l2=0.01), 1e-2, None),
    "clipped": (Optimizer("sgd", momentum=0.9), 5e-2, 0.3),
}
each_optimizer = pytest.mark.parametrize(
    ("optimizer", "rate", "clip_norm"), OPTIMIZERS.values(), ids=OPTIMIZERS
)


def with_zeros(proto: ModelProto, share: float = 0.5) -> ModelProto:
    """Half of every weight (not of biases) is zero, some of them -0.0."""
    random = np.random.default_rng(7)
    for tensor in proto.graph.initializer:
        array = np.array(numpy_helper.to_array(tensor))
        if array.ndim > 1:
            array[random.random(array.shape) < share] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


# ---- held zeros ----------------------------------------------------------------------------


@each_optimizer
def test_pruned_weights_stay_bitwise_zero(
    optimizer: Optimizer, rate: float, clip_norm: float | None
) -> None:
    proto = with_zeros(cnn())
    before = stored(proto)
    engine = trainer(proto, hold=True, optimizer=optimizer, clip_norm=clip_norm)
    for batch in batches(100, 4, (2, 6, 6)):
        engine.step(batch, rate)
    for name, array in engine.parameters().items():
        zero = before[name] == 0
        if array.ndim > 1:
            assert zero.any()
            assert array[zero].tobytes() == bytes(4 * int(zero.sum()))
        assert (array[~zero] != before[name][~zero]).all()


def test_moments_of_pruned_weights_stay_zero() -> None:
    engine = trainer(with_zeros(mlp()), hold=True, optimizer=Optimizer(l2=0.1), clip_norm=0.5)
    for batch in batches(5):
        engine.step(batch, 1e-2)
    state = engine.state()
    gone = state["w1"] == 0
    moments = [state[name] for name in state if name.startswith("w1.")]
    assert len(moments) == 2
    for moment in moments:
        assert not moment[gone].any()
        assert moment[~gone].any()


def test_squared_gradients_are_those_of_the_steps() -> None:
    """At a rate of 1, without momentum, sgd moves weights by exactly their gradient."""
    batch = batches(1)[0]
    plain = trainer(mlp(), optimizer=Optimizer("sgd", momentum=0))
    plain.step(batch, 1.0)
    moved = stored(mlp())["w1"] - plain.parameters()["w1"]
    adamw = Trainer(with_masked_use(graphs(mlp(), optimizer=Optimizer()), ["w1"]), threads=1)
    assert not adamw.squared_gradients()["w1"].any()
    adamw.step(batch, 1e-3)
    found = adamw.squared_gradients()
    assert found.keys() == {"w1"}
    ratio = np.sqrt(found["w1"] / found["w1"].max())
    np.testing.assert_allclose(ratio, np.abs(moved) / np.abs(moved).max(), atol=1e-5)


def test_clipping_does_not_count_gradients_of_pruned_weights() -> None:
    """At a rate of 1 the weights move by exactly the largest norm."""
    proto, sgd = with_zeros(mlp()), Optimizer("sgd", momentum=0)
    engine = trainer(proto, hold=True, optimizer=sgd, clip_norm=0.125)
    engine.step(batches(1)[0], 1.0)
    moved = [array - stored(proto)[name] for name, array in engine.parameters().items()]
    norm = np.sqrt(sum(float((part**2).sum()) for part in moved))
    assert norm == pytest.approx(0.125, rel=1e-4)


def test_the_values_given_stay_as_they_were() -> None:
    """onnxruntime would share the memory of arrays that it is given."""
    made = graphs(mlp())
    Trainer(made, threads=1).step(batches(1)[0], 1e-2)
    for name, array in stored(mlp()).items():
        assert np.array_equal(made.initial[name], array)


def test_frozen_weights_are_no_parameters_and_stay() -> None:
    proto = mlp()
    engine = trainer(proto, train_layers=("w2",))
    assert set(engine.parameters()) == {"w2"}
    frozen = stored(engine.graphs.training)
    engine.step(batches(1)[0], 1e-2)
    for name in ("w1", "b1", "b2"):
        assert np.array_equal(frozen[name], stored(proto)[name])


def test_own_masks_count_instead_of_zeros() -> None:
    proto = mlp()
    mask = np.zeros(MLP_SHAPES["w1"], np.float32)
    mask[0] = 1
    engine = Trainer(graphs(proto, hold=True), masks={"w1": mask}, threads=1)
    engine.step(batches(1)[0], 1e-2)
    moved = engine.parameters()["w1"] != stored(proto)["w1"]
    assert moved[0].any()
    assert not moved[1:].any()


# ---- PyTorch ---------------------------------------------------------------------------------


def torch_net(torch: Any, proto: ModelProto, name: str) -> Any:
    nn = torch.nn
    if name == "mlp":
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        names = list(MLP_SHAPES)
    else:
        parts = (nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        net = nn.Sequential(*parts, nn.Linear(36, 3))
        names = list(CNN_SHAPES)
    values = stored(proto)
    with torch.no_grad():
        for key, parameter in zip(names, net.parameters(), strict=True):
            parameter.copy_(torch.tensor(values[key]))
    return net, dict(zip(names, net.parameters(), strict=True))


def torch_optimizer(torch: Any, optimizer: Optimizer, named: dict[str, Any], rate: float) -> Any:
    groups = [
        {"params": [p for p in named.values() if p.ndim > 1], "weight_decay": optimizer.l2},
        {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    if optimizer.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate)
    return torch.optim.SGD(
        groups, lr=rate, momentum=optimizer.momentum, nesterov=optimizer.nesterov
    )


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@each_optimizer
def test_steps_equal_those_of_pytorch(
    name: str, optimizer: Optimizer, rate: float, clip_norm: float | None
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    proto = mlp() if name == "mlp" else cnn()
    net, named = torch_net(torch, proto, name)
    steps = torch_optimizer(torch, optimizer, named, rate)
    engine = trainer(proto, optimizer=optimizer, clip_norm=clip_norm)
    shape = (6,) if name == "mlp" else (2, 6, 6)
    # Sizes differ: every loss is the mean over its own batch.
    for batch in batches(6, (8, 5, 1), shape):
        loss = torch.nn.functional.cross_entropy(
            net(torch.tensor(batch["x"])), torch.tensor(batch["labels"])
        )
        steps.zero_grad()
        loss.backward()
        if clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
            assert norm > clip_norm  # or nothing is tested
        steps.step()
        assert engine.step(batch, rate) == pytest.approx(loss.item(), rel=2e-5)
    for key, array in engine.parameters().items():
        np.testing.assert_allclose(array, named[key].detach().numpy(), rtol=2e-4, atol=2e-5)


BN = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = MatMul (x, w1)
    n = BatchNormalization <momentum = 0.8, epsilon = 1e-3> (h, s, o, m, v)
    a = Relu (n)
    y = MatMul (a, w2)
}"""


def bn_net() -> ModelProto:
    random = np.random.default_rng(3)
    one = np.ones(5, np.float32)
    variance = (one + random.random(5)).astype(np.float32)
    weights: dict[str, Any] = {"w1": (6, 5), "s": one, "o": (5,), "m": (5,), "v": variance}
    return model(BN, {**weights, "w2": (5, 3)})


def test_statistics_of_batch_normalization_follow_pytorch() -> None:
    """ONNX keeps `momentum` of the old value, PyTorch takes it of the new one; and ONNX averages
    the biased variance, where PyTorch multiplies by n / (n - 1)."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    proto, size = bn_net(), 8
    values = {name: torch.tensor(array) for name, array in stored(proto).items()}
    norm = torch.nn.BatchNorm1d(5, eps=1e-3, momentum=1 - 0.8)
    with torch.no_grad():
        norm.weight.copy_(values["s"])
        norm.bias.copy_(values["o"])
        norm.running_mean.copy_(values["m"])
    weights = [torch.nn.Parameter(values[name]) for name in ("w1", "w2")]
    steps = torch.optim.SGD([*weights, *norm.parameters()], lr=0.05)
    engine = trainer(proto, bn="train", optimizer=Optimizer("sgd", momentum=0))
    unbiased = stored(proto)["v"]
    for batch in batches(5, size):
        hidden = torch.tensor(batch["x"]) @ weights[0]
        biased = hidden.detach().numpy().var(axis=0)
        unbiased = 0.8 * unbiased + 0.2 * biased
        scores = torch.relu(norm(hidden)) @ weights[1]
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(batch["labels"]))
        steps.zero_grad()
        loss.backward()
        steps.step()
        assert engine.step(batch, 0.05) == pytest.approx(loss.item(), rel=1e-5)
    found = engine.parameters()
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(found["m"], norm.running_mean.numpy(), **close)
    np.testing.assert_allclose(found["v"], unbiased, **close)
    np.testing.assert_allclose(found["w1"], weights[0].detach().numpy(), **close)
    np.testing.assert_allclose(found["s"], norm.weight.detach().numpy(), **close)


def test_frozen_statistics_stay_and_are_normalized_with() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    proto = bn_net()
    values = stored(proto)
    engine = trainer(proto)
    assert set(engine.parameters()) == {"w1", "w2", "s", "o"}
    batch = batches(1)[0]
    normal = (batch["x"] @ values["w1"] - values["m"]) / np.sqrt(values["v"] + 1e-3)
    scores = np.maximum(normal * values["s"] + values["o"], 0) @ values["w2"]
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(scores), torch.tensor(batch["labels"])
    )
    assert engine.step(batch, 1e-2) == pytest.approx(expected.item(), rel=1e-5)


# ---- batches of a fixed size -----------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 0.2])
def test_adding_up_gradients_equals_the_step_of_the_whole_batch(clip_norm: float | None) -> None:
    options = {"optimizer": Optimizer("sgd", momentum=0.9, l2=0.01), "clip_norm": clip_norm}
    free = trainer(with_zeros(mlp()), hold=True, **options)
    fixed = trainer(fixed_batch(with_zeros(mlp())), hold=True, **options)
    for batch in batches(5, (8, 3)):
        assert fixed.step(batch, 0.05) == pytest.approx(free.step(batch, 0.05), rel=1e-5)
    expected = free.parameters()
    for name, array in fixed.parameters().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6)
        assert np.array_equal(array == 0, expected[name] == 0)


def test_statistics_see_every_part_of_a_batch() -> None:
    text = BN.replace("[N, ", "[2, ").replace("y = MatMul", "z = MatMul")
    text = text.replace(
        "z = MatMul (a, w2)",
        "z = MatMul (a, w2)\n c = CumSum (z, axis)\n d = Sub (c, c)\n y = Add (z, d)",
    )
    proto = bn_net()
    fixed = model(text, {**stored(proto), "axis": np.array(0, np.int64)})
    engine = trainer(fixed, bn="train", optimizer=Optimizer("sgd", momentum=0))
    batch = batches(1, 6)[0]
    engine.step(batch, 0.05)
    values = stored(proto)
    expected = values["m"]
    for start in range(0, 6, 2):
        mean = (batch["x"][start : start + 2] @ values["w1"]).mean(axis=0)
        expected = 0.8 * expected + 0.2 * mean
    np.testing.assert_allclose(engine.parameters()["m"], expected, rtol=1e-5, atol=1e-6)


def test_a_batch_must_be_parts_of_the_fixed_size() -> None:
    engine = trainer(fixed_batch(mlp(), 4))
    engine.step(batches(1, 8)[0], 0.01)
    with pytest.raises(ModelError, match=r"batches of 4 and a batch has 6 samples"):
        engine.step(batches(1, 6)[0], 0.01)


# ---- state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [0, 1, 2, 5])
def test_a_restored_state_goes_on_bit_for_bit(done: int) -> None:
    steps = batches(7, (8, 5))
    first = trainer(mlp())
    for batch in steps[:done]:
        first.step(batch, 1e-2)
    other = trainer(mlp(seed=9))  # whatever it held before
    other.step(steps[0], 1e-2)
    other.restore(first.state())
    for batch in steps[done:]:
        assert first.step(batch, 1e-2) == other.step(batch, 1e-2)
    for name, array in first.state().items():
        assert other.state()[name].tobytes() == array.tobytes(), name


def test_a_state_of_other_graphs_is_refused() -> None:
    engine = trainer(mlp())
    for state in (
        trainer(mlp(), optimizer=Optimizer("sgd")).state(),
        trainer(cnn()).state(),
        {name: array for name, array in engine.state().items() if name != "onnxprune.steps"},
    ):
        with pytest.raises(ModelError, match="of another model or other training settings"):
            engine.restore(state)


def test_parameters_are_copies() -> None:
    engine = trainer(mlp())
    before = engine.parameters()
    kept = before["w1"].copy()
    engine.step(batches(1)[0], 1e-2)
    assert np.array_equal(before["w1"], kept)
    before["w1"][:] = 0
    assert engine.parameters()["w1"].any()


DROPOUT = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = Gemm <transB = 1> (x, w1, b1)
    r = Constant <value_float = 0.5> ()
    d = Dropout (h, r)
    y = Gemm <transB = 1> (d, w2, b2)
}"""


def test_dropout_follows_the_seed_and_the_step() -> None:
    batch = batches(1)[0]
    same = [trainer(model(DROPOUT, MLP_SHAPES), seed=seed) for seed in (3, 3, 4)]
    losses = [[engine.step(batch, 0.0) for _ in range(4)] for engine in same]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert len(set(losses[0])) == 4  # a rate of 0: only the masks differ


# ---- failures, memory ------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_explained() -> None:
    with pytest.raises(CannotRun, match="a training step fails in onnxruntime"):
        trainer(mlp()).step({"x": np.zeros((2, 5), np.float32), "labels": np.zeros(2, int)}, 1e-2)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
@pytest.mark.parametrize("fixed", [False, True], ids=["fused", "accumulated"])
def test_memory_does_not_grow(fixed: bool) -> None:
    engine = trainer(fixed_batch(mlp(), 4) if fixed else mlp())
    batch = data(8)
    for _ in range(300):
        engine.step(batch, 1e-3)
    before = resident()
    for _ in range(3000):
        engine.step(batch, 1e-3)
    assert resident() - before < 2_000_000
