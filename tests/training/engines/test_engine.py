"""Training with onnxruntime-training itself; skipped where no Python has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import backward
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.dropout import with_live_dropout
from onnxprune.training.engines.onnxruntime_training import OnnxruntimeTraining
from onnxprune.training.preparation import SEED_INPUT
from onnxprune.training.update.optimizers import Optimizer
from tests.training.engines.forward import SGD, forward, lenet, mlp

pytestmark = pytest.mark.usefixtures("training_python")
Arrays = dict[str, np.ndarray]
NETWORKS = {"mlp": (mlp, (6,)), "lenet": (lenet, (1, 12, 12))}


@contextlib.contextmanager
def started(model: ModelProto, weights: Mapping[str, Any], **options: Any) -> Iterator[Any]:
    settings = {"masks": {}, "optimizer": Optimizer(), "seed": 0, "threads": 1, **options}
    engine = OnnxruntimeTraining.start(model, loss="loss", trainable=list(weights), **settings)
    with contextlib.closing(engine):
        yield engine


def batches(shape: tuple[int, ...], count: int = 4) -> list[Arrays]:
    random = np.random.default_rng(11)
    return [
        {
            "x": random.normal(size=(size, *shape)).astype(np.float32),
            "labels": random.integers(0, 3, (size, 1)),
        }
        for size in (8, 8, 5, 1)[:count]
    ]


def mask_of(weights: Mapping[str, np.ndarray]) -> Arrays:
    random = np.random.default_rng(2)
    return {n: random.random(w.shape) < 0.5 for n, w in weights.items() if n.endswith("weight")}


# ---- gradients -----------------------------------------------------------------------------


ONE_INPUT = """
    Abs Elu Erf Gelu HardSigmoid HardSwish LeakyRelu LogSoftmax Relu Sigmoid Softmax Softplus Tanh
"""
#: Leading sizes of the weights, and the feeds that keep all rows.
ROWS = (2, 3, 4, 5)
FEEDS = {"x": np.zeros(1, np.float32), **{f"rows{count}": np.arange(count) for count in ROWS}}


def every_operator() -> tuple[ModelProto, list[str]]:
    """Nodes of many kinds, each with weights of its own; the loss is a weighted sum of all."""
    random = np.random.default_rng(8)
    weights: Arrays = {}
    constants: Arrays = {}
    nodes, sums = [], ["offset"]

    def add(op_type: str, *inputs: Any, out: tuple[int, ...], **rest: Any) -> None:
        """A shape is a weight (negative: of positive values), an array a constant.

        The first weight comes by way of a Gather whose number of rows is unknown beforehand, as
        the batch size of activations is.
        """
        place = f"n{len(sums)}"
        names = []
        for position, value in enumerate(inputs):
            names.append(f"{place}.{position}")
            if isinstance(value, tuple):
                drawn = random.normal(size=np.abs(value)).astype(np.float32)
                weights[names[-1]] = np.abs(drawn) + 0.2 if value[0] < 0 else drawn
            else:
                constants[names[-1]] = value
        if names[0] in weights:
            rows = f"rows{len(weights[names[0]])}"
            nodes.append(helper.make_node("Gather", [names[0], rows], [f"{place}.batch"]))
            names[0] = f"{place}.batch"
        nodes.append(helper.make_node(op_type, names, [place], name=place, **rest))
        constants[f"{place}.c"] = random.normal(size=out).astype(np.float32)
        nodes.append(helper.make_node("Mul", [place, f"{place}.c"], [f"{place}.p"]))
        nodes.append(helper.make_node("ReduceSum", [f"{place}.p"], [f"{place}.s"], keepdims=0))
        sums.append(f"{place}.s")

    image, pool = (2, 3, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 2]}
    for op_type in ONE_INPUT.split():
        add(op_type, (3, 4), out=(3, 4))
    for op_type in ["Log", "Sqrt", "Reciprocal"]:
        add(op_type, (-3, 4), out=(3, 4))
    for op_type in ["Add", "Sub", "Mul", "Div", "Max", "Mean"]:
        add(op_type, (2, 3, 4), (-3, 1), out=(2, 3, 4))
    add("Gelu", (3, 4), out=(3, 4), approximate="tanh")
    add("QuickGelu", (3, 4), out=(3, 4), domain="com.microsoft")
    add("PRelu", (2, 3), (3,), out=(2, 3))
    add("Pow", (-3, 4), np.array(2.5, np.float32), out=(3, 4))
    add("Clip", (3, 4), np.float32([-0.5])[0], np.float32([0.5])[0], out=(3, 4))
    add("Where", np.array([True, False, True]), (2, 3), (2, 3), out=(2, 3))
    add("MatMul", (2, 3, 4), (4, 5), out=(2, 3, 5))
    add("Gemm", (3, 4), (5, 4), (5,), out=(3, 5), transB=1, alpha=0.5, beta=2.0)
    add("Conv", image, (4, 3, 3, 2), (4,), out=(2, 4, 4, 4), auto_pad="SAME_UPPER", strides=[2, 2])
    add("Conv", (2, 4, 6), (4, 2, 3), out=(2, 4, 4), group=2)
    add("MaxPool", image, out=(2, 3, 4, 4), pads=[1, 1, 1, 1], **pool)
    add("MaxPool", image, out=(2, 3, 4, 4), auto_pad="SAME_UPPER", **pool)
    add("AveragePool", image, out=(2, 3, 3, 3), **pool)
    add("AveragePool", image, out=(2, 3, 4, 4), pads=[1, 1, 1, 1], count_include_pad=1, **pool)
    add("GlobalAveragePool", image, out=(2, 3, 1, 1))
    statistics = np.float32([0.1, -0.2, 0.3]), np.float32([0.5, 1, 2])
    add("BatchNormalization", image, (-3,), (3,), *statistics, out=image)
    add("LayerNormalization", (4, 2, 3), (2, 3), (2, 3), out=(4, 2, 3), axis=1)
    add("LayerNormalization", (4, 2, 3), (3,), out=(4, 2, 3))
    add("RMSNormalization", (4, 2, 3), (3,), out=(4, 2, 3))
    for op_type in ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSumExp"]:
        add(op_type, (2, 3, 4), np.array([0, 2]), out=(3,), keepdims=0)
    add("Reshape", (3, 4), np.array([2, -1]), out=(2, 6))
    add("Transpose", (2, 3, 4), out=(4, 3, 2))
    add("Concat", (2, 3), (2, 1), out=(2, 4), axis=-1)
    add("Slice", (4, 6), np.array([1]), np.array([6]), np.array([1]), np.array([2]), out=(4, 3))
    add("Gather", (5, 4), np.array([0, 2, 2]), out=(3, 4))
    add("GatherElements", (3, 4), np.array([[0, -1], [1, 1], [3, 0]]), out=(3, 2), axis=1)
    add("ScatterND", (3, 4), np.array([[0], [2]]), (2, 4), out=(3, 4))
    add("Expand", (3, 1), np.array([2, 3, 4]), out=(2, 3, 4))
    add("Tile", (2, 3), np.array([2, 2]), out=(4, 6))
    add("Pad", (2, 3), np.array([0, 1, 0, 2]), out=(2, 6))
    add("Trilu", (4, 4), out=(4, 4))
    nodes.append(helper.make_node("ReduceSum", ["x"], ["offset"], keepdims=0))
    nodes.append(helper.make_node("Sum", sums, ["loss"]))
    rows = {f"rows{count}": [f"N{count}"] for count in ROWS}
    model = forward(nodes, {**weights, **constants}, {"x": ["N"]}, indices=rows)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model, list(weights)


def own_gradients(model: ModelProto, wanted: list[str]) -> Arrays:
    import onnxruntime

    copy = ModelProto()
    copy.CopyFrom(model)
    gradients = backward(GraphBuilder(copy), "loss", wanted)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in gradients.values())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options)
    values = session.run(list(gradients.values()), FEEDS)
    return dict(zip(gradients, values, strict=True))


def test_gradients_of_all_operators() -> None:
    model, wanted = every_operator()
    expected = own_gradients(model, wanted)
    with started(model, dict.fromkeys(wanted), optimizer=SGD) as engine:
        before = engine.parameters()
        engine.step(FEEDS, 1.0)
        after = engine.parameters()
    assert sorted(expected) == sorted(wanted)
    for name in wanted:
        np.testing.assert_allclose(
            before[name] - after[name], expected[name], rtol=1e-4, atol=2e-5, err_msg=name
        )


# ---- updates -------------------------------------------------------------------------------


def torch_network(torch: Any, name: str, x: Any, p: Mapping[str, Any]) -> Any:
    f = torch.nn.functional
    if name == "mlp":
        hidden = torch.relu(f.linear(x, p["fc1.weight"], p["fc1.bias"]))
        return f.linear(hidden, p["fc2.weight"], p["fc2.bias"])
    x = f.max_pool2d(torch.relu(f.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=1)), 2)
    x = f.avg_pool2d(torch.relu(f.conv2d(x, p["conv2.weight"], p["conv2.bias"])), 2)
    x = f.hardswish(f.linear(x.flatten(1), p["fc1.weight"], p["fc1.bias"]))
    return f.linear(x, p["fc2.weight"], p["fc2.bias"])


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("optimizer", "clip_norm"),
    [
        (Optimizer("adamw", l2=0.1, betas=(0.8, 0.95), epsilon=1e-3), None),
        (Optimizer("adamw"), 0.3),
        (Optimizer("sgd", momentum=0.0, l2=0.1), None),
        (Optimizer("sgd", momentum=0.0), 0.3),
    ],
)
def test_steps_like_pytorch(network: str, optimizer: Optimizer, clip_norm: float | None) -> None:
    torch = pytest.importorskip("torch")
    build, shape = NETWORKS[network]
    model, weights = build(np.random.default_rng(1))
    masks = mask_of(weights)
    parameters = {n: torch.tensor(w, requires_grad=True) for n, w in weights.items()}
    decays = [name for name in weights if name.endswith("weight")]
    groups = [
        {"params": [p], "weight_decay": optimizer.l2 if n in decays else 0.0}
        for n, p in parameters.items()
    ]
    if optimizer.name == "adamw":
        other = torch.optim.AdamW(groups, betas=optimizer.betas, eps=optimizer.epsilon)
    else:
        other = torch.optim.SGD(groups)
    options = {"masks": masks, "optimizer": optimizer, "clip_norm": clip_norm, "decays": decays}
    with started(model, weights, **options) as engine:
        for number, batch in enumerate(batches(shape)):
            rate = 0.05 / (number + 1)
            logits = torch_network(torch, network, torch.tensor(batch["x"]), parameters)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["labels"][:, 0]))
            other.zero_grad()
            loss.backward()
            for name, mask in masks.items():
                parameters[name].grad *= torch.tensor(mask)
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), clip_norm)
            for group in other.param_groups:
                group["lr"] = rate
            other.step()
            assert engine.step(batch, rate) == pytest.approx(float(loss.detach()), rel=1e-5)
        trained = engine.parameters()
    for name, parameter in parameters.items():
        wanted = parameter.detach().numpy()
        np.testing.assert_allclose(trained[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
        assert np.abs(wanted - weights[name]).max() > 1e-4


def test_pruned_weights_stay_at_zero() -> None:
    model, weights = mlp(np.random.default_rng(1))
    masks = mask_of(weights)
    for tensor in model.graph.initializer:
        if tensor.name in masks:
            pruned = weights[tensor.name] * masks[tensor.name]
            tensor.CopyFrom(onnx.numpy_helper.from_array(pruned, tensor.name))
    with started(model, weights, masks=masks, optimizer=Optimizer(l2=0.1)) as engine:
        for batch in batches((6,)):
            engine.step(batch, 0.1)
        trained = engine.parameters()
    for name, mask in masks.items():
        np.testing.assert_array_equal(trained[name] != 0, mask)


# ---- going on ------------------------------------------------------------------------------


def test_resumed_training_is_uninterrupted_training() -> None:
    model, weights = lenet(np.random.default_rng(1))
    masks = mask_of(weights)
    steps = batches((1, 12, 12))
    with started(model, weights, masks=masks) as engine:
        losses = [engine.step(batch, 0.01) for batch in steps]
        whole = engine.parameters()
    with started(model, weights, masks=masks) as engine:
        first = [engine.step(batch, 0.01) for batch in steps[:2]]
        state = engine.state()
        engine.step(steps[0], 0.5)
    with started(model, weights, masks=masks) as engine:
        engine.step(steps[3], 0.5)
        engine.restore(state)
        assert engine.steps == 2
        assert first + [engine.step(batch, 0.01) for batch in steps[2:]] == losses
        for name, value in engine.parameters().items():
            np.testing.assert_array_equal(value, whole[name])


def test_the_state_of_another_model() -> None:
    random = np.random.default_rng(1)
    small, weights = mlp(random)
    big, others = lenet(random)
    with started(small, weights) as engine:
        state = engine.state()
    with started(big, others) as engine:
        with pytest.raises(ModelError, match="the checkpoint is of another model"):
            engine.restore(state)
        # The engine is as it was.
        engine.step(batches((1, 12, 12))[0], 0.01)


def test_a_batch_of_another_shape_is_an_error_and_not_the_end() -> None:
    model, weights = mlp(np.random.default_rng(1))
    good = batches((6,))[0]
    with started(model, weights) as engine:
        with pytest.raises(ModelError, match="failed in 'step'"):
            engine.step({**good, "x": np.zeros((8, 5), np.float32)}, 0.1)
        assert np.isfinite(engine.step(good, 0.1))


def test_dropout_drops_the_same() -> None:
    import onnxruntime

    nodes = [
        helper.make_node("Mul", ["x", "w"], ["y"]),
        helper.make_node("Dropout", ["y"], ["dropped"]),
        helper.make_node("ReduceSum", ["dropped"], ["loss"], keepdims=0),
    ]
    weights = {"w": np.linspace(1, 2, 50, dtype=np.float32)}
    model = forward(nodes, weights, {"x": ["N", 50]})
    assert with_live_dropout(model, SEED_INPUT) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.ones((40, 50), np.float32)
    losses = []
    for seed in (1, 2):
        random = np.random.default_rng([seed, 0])
        feeds = {"x": x, SEED_INPUT: np.array(random.integers(2**31))}
        losses.append(float(session.run(["loss"], feeds)[0]))
        with started(model, weights, seed=seed) as engine:
            assert engine.step({"x": x}, 0.1) == pytest.approx(losses[-1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
