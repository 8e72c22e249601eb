"""Forward graphs that end in a loss, as the trainer prepares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.training.update.optimizers import Optimizer

SGD = Optimizer("sgd", momentum=0.0)


def forward(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int | str]],
    *,
    opset: int = 23,
    indices: Mapping[str, Sequence[int | str]] | None = None,
) -> ModelProto:
    """A model whose scalar output is "loss"; inputs are float32, indices int64."""
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
        for name, shape in inputs.items()
    ]
    infos += [
        helper.make_tensor_value_info(name, TensorProto.INT64, list(shape))
        for name, shape in (indices or {}).items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        infos,
        [helper.make_tensor_value_info("loss", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11)


def cross_entropy(logits: str) -> list[NodeProto]:
    """Mean cross-entropy of logits [N, C] against "labels" [N, 1]."""
    return [
        helper.make_node("LogSoftmax", [logits], ["shares"], axis=1),
        helper.make_node("GatherElements", ["shares", "labels"], ["taken"], axis=1),
        helper.make_node("ReduceMean", ["taken"], ["mean"], keepdims=0),
        helper.make_node("Neg", ["mean"], ["loss"]),
    ]


def through(
    node: NodeProto,
    weights: Mapping[str, np.ndarray],
    coefficients: Mapping[str, np.ndarray],
    *,
    opset: int = 23,
) -> ModelProto:
    """The loss is the sum of a node's outputs times coefficients, plus the sum of the input x."""
    nodes = [node]
    sums = ["offset"]
    for name in coefficients:
        nodes += [
            helper.make_node("Mul", [name, f"{name}.coefficients"], [f"{name}.product"]),
            helper.make_node("ReduceSum", [f"{name}.product"], [f"{name}.sum"], keepdims=0),
        ]
        sums.append(f"{name}.sum")
    nodes.append(helper.make_node("ReduceSum", ["x"], ["offset"], keepdims=0))
    nodes.append(helper.make_node("Sum", sums, ["loss"]))
    constants = {f"{name}.coefficients": value for name, value in coefficients.items()}
    return forward(nodes, {**weights, **constants}, {"x": ["N"]}, opset=opset)


def mlp(random: np.random.Generator) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """6-8-3 with ReLU and cross-entropy, and its weights."""
    weights = {
        "fc1.weight": random.normal(size=(8, 6)),
        "fc1.bias": random.normal(size=8),
        "fc2.weight": random.normal(size=(3, 8)),
        "fc2.bias": random.normal(size=3),
    }
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "fc2.weight", "fc2.bias"], ["logits"], transB=1),
        *cross_entropy("logits"),
    ]
    return forward(nodes, weights, {"x": ["N", 6]}, indices={"labels": ["N", 1]}), weights


def lenet(random: np.random.Generator) -> tuple[ModelProto, dict[str, np.ndarray]]:
    """Convolution (SAME padding), pooling, convolution, pooling, two dense layers; 12 x 12."""
    shapes = {
        "conv1.weight": (4, 1, 3, 3),
        "conv1.bias": (4,),
        "conv2.weight": (6, 4, 3, 3),
        "conv2.bias": (6,),
        "fc1.weight": (10, 24),
        "fc1.bias": (10,),
        "fc2.weight": (3, 10),
        "fc2.bias": (3,),
    }
    weights = {
        name: random.normal(size=shape, scale=0.3).astype(np.float32)
        for name, shape in shapes.items()
    }
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node(
            "Conv", ["x", "conv1.weight", "conv1.bias"], ["c1"], auto_pad="SAME_UPPER"
        ),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], **pool),
        helper.make_node("Conv", ["p1", "conv2.weight", "conv2.bias"], ["c2"]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("AveragePool", ["r2"], ["p2"], **pool),
        helper.make_node("Flatten", ["p2"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc1.weight", "fc1.bias"], ["f1"], transB=1),
        helper.make_node("HardSwish", ["f1"], ["a1"]),
        helper.make_node("Gemm", ["a1", "fc2.weight", "fc2.bias"], ["logits"], transB=1),
        *cross_entropy("logits"),
    ]
    return forward(nodes, weights, {"x": ["N", 1, 12, 12]}, indices={"labels": ["N", 1]}), weights
