"""Graphs written for onnxruntime-training compute the same, and what it cannot do is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from onnxprune.errors import UsageError
from onnxprune.training.engines.onnxruntime_training.lowering import OPSET, lowered
from tests.training.engines.forward import forward, lenet, through

RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.3, 2, size=shape).astype(np.float32)


def loss_of(model: ModelProto, feeds: dict[str, np.ndarray]) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (loss,) = session.run(["loss"], feeds)
    return float(loss)


def one_node(
    op_type: str, weights: dict[str, np.ndarray], out: tuple[int, ...], **rest: Any
) -> Any:
    opset = rest.pop("opset", 23)
    inputs = rest.pop("inputs", list(weights))
    node = helper.make_node(op_type, inputs, ["y"], name="the node", **rest)
    return through(node, weights, {"y": floats(*out)}, opset=opset)


IMAGE = {"w": floats(2, 3, 7, 8)}
STATISTICS = {"scale": positive(3), "b": floats(3), "mean": floats(3), "var": positive(3)}
POOL = {"kernel_shape": [2, 3], "strides": [2, 2]}
KERNEL = {"k": floats(4, 3, 3, 2)}

SAME_VALUE = {
    "Conv same": one_node(
        "Conv", IMAGE | KERNEL, (2, 4, 4, 4), auto_pad="SAME_UPPER", strides=[2, 2]
    ),
    "Conv same low": one_node("Conv", IMAGE | KERNEL, (2, 4, 7, 8), auto_pad="SAME_LOWER"),
    "Conv valid": one_node("Conv", IMAGE | KERNEL, (2, 4, 5, 7), auto_pad="VALID"),
    "MaxPool": one_node("MaxPool", IMAGE, (2, 3, 4, 4), auto_pad="SAME_LOWER", **POOL),
    "AveragePool": one_node("AveragePool", IMAGE, (2, 3, 3, 3), **POOL),
    "AveragePool padded": one_node(
        "AveragePool", IMAGE, (2, 3, 4, 4), pads=[1, 0, 0, 1], count_include_pad=1, **POOL
    ),
    "AveragePool dilated": one_node(
        "AveragePool", IMAGE, (2, 3, 6, 6), kernel_shape=[2, 2], dilations=[1, 2]
    ),
    "BatchNormalization": one_node(
        "BatchNormalization", IMAGE | STATISTICS, (2, 3, 7, 8), epsilon=0.1
    ),
    "BatchNormalization of rows": one_node(
        "BatchNormalization", {"w": floats(5, 3)} | STATISTICS, (5, 3)
    ),
    "Elu": one_node("Elu", {"w": 50 * floats(9)}, (9,), alpha=1.5),
    "Gelu": one_node("Gelu", {"w": floats(9)}, (9,), approximate="tanh"),
    "HardSigmoid": one_node("HardSigmoid", {"w": 3 * floats(9)}, (9,), alpha=0.3, beta=0.4),
    "HardSwish": one_node("HardSwish", {"w": 3 * floats(9)}, (9,)),
    "LayerNormalization": one_node(
        "LayerNormalization", {"w": floats(4, 2, 3), "s": floats(2, 3)}, (4, 2, 3), axis=1
    ),
    "Mean": one_node("Mean", {"w": floats(2, 3), "v": floats(3), "u": floats(1)}, (2, 3)),
    "Mean of one": one_node("Mean", {"w": floats(2, 3)}, (2, 3)),
    "PRelu": one_node("PRelu", {"w": floats(2, 3), "s": floats(3)}, (2, 3)),
    "RMSNormalization": one_node(
        "RMSNormalization",
        {"w": floats(4, 2, 3), "s": floats(2, 3)},
        (4, 2, 3),
        axis=1,
        epsilon=0.1,
    ),
    "ReduceL1": one_node("ReduceL1", {"w": floats(2, 3), "axes": np.array([1])}, (2,), keepdims=0),
    "Softplus": one_node("Softplus", {"w": 60 * floats(9)}, (9,)),
    "Sum": one_node("Sum", {"w": floats(2, 3), "v": floats(3), "u": floats(1)}, (2, 3)),
    "Swish": one_node("Swish", {"w": floats(9)}, (9,), alpha=1.5, opset=24),
    "Transpose": one_node("Transpose", {"w": floats(2, 3, 4)}, (4, 3, 2)),
    "Dropout": one_node("Dropout", {"w": floats(9)}, (9,)),
}


@pytest.mark.parametrize("name", SAME_VALUE)
def test_rewritten_operators_compute_the_same(name: str) -> None:
    model = SAME_VALUE[name]
    before = model.SerializeToString()
    result = lowered(model, "loss", ["w"]).model
    assert model.SerializeToString() == before
    onnx.checker.check_model(result)
    assert result.opset_import[0].version == OPSET
    assert not any(a.name == "auto_pad" for node in result.graph.node for a in node.attribute)
    feeds = {"x": floats(2)}
    assert loss_of(result, feeds) == pytest.approx(loss_of(model, feeds), rel=2e-6, abs=1e-5)


def test_a_network_computes_the_same() -> None:
    model, weights = lenet(RANDOM)
    result = lowered(model, "loss", list(weights))
    assert result.trained == tuple(weights)
    feeds = {"x": floats(5, 1, 12, 12), "labels": np.array([[0], [1], [2], [1], [0]])}
    assert loss_of(result.model, feeds) == pytest.approx(loss_of(model, feeds), rel=1e-6)


def test_only_what_the_loss_needs_is_left() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["loss"], keepdims=0),
        # Neither could be run there, and neither matters.
        helper.make_node("RMSNormalization", ["y", "v"], ["unread"]),
        helper.make_node("ReduceMax", ["other"], ["top"], keepdims=0),
    ]
    weights = {"w": floats(3), "v": floats(3)}
    model = forward(nodes, weights, {"x": [2, 3], "other": [4]})
    result = lowered(model, "loss", ["w", "v"])
    assert result.trained == ("w",)
    graph = result.model.graph
    assert [node.op_type for node in graph.node] == ["Mul", "ReduceSum"]
    assert [info.name for info in graph.input] == ["x"]
    assert [tensor.name for tensor in graph.initializer] == ["w"]


MATRIX = {"w": floats(3, 4)}
REFUSED = {
    "it has no gradient there": one_node("Selu", MATRIX, (3, 4)),
    "it leaves out the gradient of input 1 ('v')": one_node(
        "Pow", {"u": positive(3), "v": positive(3)}, (3,)
    ),
    "its running statistics cannot be read back": one_node(
        "BatchNormalization", IMAGE | STATISTICS, (2, 3, 7, 8), training_mode=1
    ),
    "an operand is a vector": one_node("MatMul", MATRIX | {"v": floats(4)}, (3,)),
    "only constant padding has a gradient": one_node(
        "Pad", MATRIX | {"p": np.array([0, 1, 0, 1])}, (3, 6), mode="edge"
    ),
    "its axes are chosen": one_node(
        "Pad",
        MATRIX | {"p": np.array([1, 1]), "a": np.array([1])},
        (3, 6),
        inputs=["w", "p", "", "a"],
    ),
    "without axes its gradient fails": one_node(
        "ReduceMean", MATRIX, (3, 4), noop_with_empty_axes=1
    ),
    "its gradient ignores the reduction": one_node(
        "ScatterND", MATRIX | {"i": np.array([[0]]), "v": floats(1, 4)}, (3, 4), reduction="add"
    ),
    "its steps are not known to be positive": one_node(
        "Slice",
        MATRIX | {"s": np.array([3]), "e": np.array([0]), "a": np.array([1]), "t": np.array([-1])},
        (3, 3),
    ),
    "its gradient is wrong where 'v' is broadcast": one_node(
        "Where", {"c": np.array([[True], [False]]), "w": floats(2, 3), "v": floats(3)}, (2, 3)
    ),
    "padding that does not count": one_node(
        "AveragePool", IMAGE, (2, 3, 4, 4), auto_pad="SAME_UPPER", **POOL
    ),
    "ceil_mode has no gradient": one_node("AveragePool", IMAGE, (2, 3, 4, 4), ceil_mode=1, **POOL),
    "its gradient takes indices by column": one_node(
        "MaxPool", IMAGE, (2, 3, 6, 7), kernel_shape=[2, 2], storage_order=1
    ),
    "its scale or bias is broadcast": one_node(
        "LayerNormalization", {"w": floats(4, 2, 3), "v": floats(3)}, (4, 2, 3), axis=1
    ),
    "it knows 21": one_node("CumProd", MATRIX | {"a": np.array(0)}, (3, 4), opset=26),
}
REASONS = {"it knows 21": "it has no gradient there"}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_would_be_wrong_is_refused(reason: str) -> None:
    model = REFUSED[reason]
    trainable = [t.name for t in model.graph.initializer if t.name in ("w", "v")]
    with pytest.raises(UsageError) as refusal:
        lowered(model, "loss", trainable)
    assert "'the node'" in str(refusal.value)
    assert REASONS.get(reason, reason) in str(refusal.value)
    op_type = next(node.op_type for node in model.graph.node if node.name == "the node")
    assert f" {op_type} " in str(refusal.value)


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 26, reason="onnx knows no CumProd")
def test_new_operators_off_the_path_are_refused_as_unknown() -> None:
    node = helper.make_node("CumProd", ["x", "axis"], ["scaled"], name="the node")
    nodes = [
        node,
        helper.make_node("Mul", ["scaled", "w"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["loss"], keepdims=0),
    ]
    weights = {"w": floats(3), "axis": np.array(0)}
    model = forward(nodes, weights, {"x": [3]}, opset=26)
    with pytest.raises(UsageError, match=r"CumProd 'the node': the operator came with opset 26"):
        lowered(model, "loss", ["w"])


def test_new_attributes_are_refused() -> None:
    node = helper.make_node("Cast", ["x"], ["cast"], name="the node", to=1, round_mode="nearest")
    nodes = [
        node,
        helper.make_node("Mul", ["cast", "w"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["loss"], keepdims=0),
    ]
    model = forward(nodes, {"w": floats(3)}, {"x": [3]}, opset=25)
    with pytest.raises(UsageError, match=r"Cast 'the node': its attribute 'round_mode' came after"):
        lowered(model, "loss", ["w"])


def test_split_with_an_output_that_gets_no_gradient() -> None:
    weights = {"w": floats(6, 2), "sizes": np.array([2, 4])}
    node = helper.make_node("Split", ["w", "sizes"], ["a", "b"], name="the node")
    both = through(node, weights, {"a": floats(2, 2), "b": floats(4, 2)})
    assert lowered(both, "loss", ["w"]).trained == ("w",)
    with pytest.raises(UsageError, match=r"Split 'the node': .* an output is unused \('b'\)"):
        lowered(through(node, weights, {"a": floats(2, 2)}), "loss", ["w"])


def test_a_gradient_through_whole_numbers() -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["whole"], name="the node", to=onnx.TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["rounded"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sub", ["w", "rounded"], ["rest"]),
        helper.make_node("Mul", ["rest", "x"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["loss"], keepdims=0),
    ]
    model = forward(nodes, {"w": floats(3)}, {"x": [3]})
    with pytest.raises(UsageError, match=r"Cast 'the node': it passes a gradient through whole"):
        lowered(model, "loss", ["w"])


def test_unknown_sizes_and_unreached_weights() -> None:
    nodes = [
        helper.make_node(
            "Conv", ["x", "w"], ["y"], name="the node", auto_pad="SAME_UPPER", strides=[2, 2]
        ),
        helper.make_node("ReduceSum", ["y"], ["loss"], keepdims=0),
    ]
    model = forward(nodes, {"w": floats(4, 3, 2, 2)}, {"x": ["N", 3, "H", 8]})
    with pytest.raises(UsageError, match=r"Conv 'the node': auto_pad with strides needs a known"):
        lowered(model, "loss", ["w"])
    with pytest.raises(UsageError, match="depends on none of the weights"):
        lowered(one_node("Neg", {"w": floats(3)}, (3,)), "loss", ["v"])
