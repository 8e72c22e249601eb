"""Small models, data and trainers for tests of the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper, parser

from onnxprune.model.sources import read
from onnxprune.training.graphs import StepGraphs, build_graphs
from onnxprune.training.loss.append import Labels, LossConfig
from onnxprune.training.preparation import Forward, prepare
from onnxprune.training.trainer import Trainer
from onnxprune.training.update.optimizers import Optimizer

CLASSES = Labels(np.dtype(np.int64), ())

MLP = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = Gemm <transB = 1> (x, w1, b1)
    a = Relu (h)
    y = Gemm <transB = 1> (a, w2, b2)
}"""
MLP_SHAPES = {"w1": (8, 6), "b1": (8,), "w2": (3, 8), "b2": (3,)}
CNN = """agraph (float[N, 2, 6, 6] x) => (float[N, 3] y) {
    c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k, kb)
    a = Relu (c)
    p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w, b)
}"""
CNN_SHAPES = {"k": (4, 2, 3, 3), "kb": (4,), "w": (3, 36), "b": (3,)}


def model(
    text: str,
    weights: Mapping[str, tuple[int, ...] | np.ndarray],
    *,
    opset: int = 17,
    functions: str = "",
    seed: int = 0,
) -> ModelProto:
    """A model from ONNX's text form; weights by shape are drawn."""
    domain = ', "f": 1' if functions else ""
    head = f'<ir_version: 8, opset_import: ["": {opset}{domain}]>'
    proto = parser.parse_model(f"{head} {text} {functions}")
    proto.ir_version = 8
    random = np.random.default_rng(seed)
    for name, given in weights.items():
        array = given if isinstance(given, np.ndarray) else draw(random, given)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def draw(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (random.standard_normal(shape) * 0.5).astype(np.float32)


def mlp(**options: Any) -> ModelProto:
    return model(MLP, MLP_SHAPES, **options)


def cnn(**options: Any) -> ModelProto:
    return model(CNN, CNN_SHAPES, **options)


def fixed_batch(proto: ModelProto, size: int = 1) -> ModelProto:
    """The same with a batch axis of this size that nothing can free: a Reshape rules it out."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for info in (*copy.graph.input, *copy.graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = size
    last = copy.graph.node[-1]
    name = last.output[0]
    last.output[0] = "before"
    copy.graph.node.append(helper.make_node("CumSum", ["before", "axis"], ["summed"]))
    copy.graph.node.append(helper.make_node("Sub", ["summed", "summed"], ["nothing"]))
    copy.graph.node.append(helper.make_node("Add", ["before", "nothing"], [name]))
    copy.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "axis"))
    return copy


def batches(
    count: int, size: int | Sequence[int] = 8, shape: tuple[int, ...] = (6,), seed: int = 1
) -> list[dict[str, np.ndarray]]:
    """Batches of inputs x and labels 0 to 2; sizes repeat."""
    random = np.random.default_rng(seed)
    sizes = [size] if isinstance(size, int) else size
    return [
        {
            "x": random.standard_normal((n, *shape)).astype(np.float32),
            "labels": random.integers(0, 3, n),
        }
        for n in (sizes[i % len(sizes)] for i in range(count))
    ]


def data(samples: int = 48, shape: tuple[int, ...] = (6,), seed: int = 1) -> dict[str, np.ndarray]:
    """Arrays x and labels."""
    return batches(1, samples, shape, seed)[0]


def graphs(
    proto: ModelProto, forward: Forward | None = None, *, hold: bool = False, **options: Any
) -> StepGraphs:
    """Step graphs; `hold`: zeros of all weights are held."""
    forward = forward or prepare(read(proto))
    options = {"loss": LossConfig(), "labels": CLASSES, "optimizer": Optimizer(), **options}
    return build_graphs(forward, masked=list(forward.addresses) if hold else (), **options)


def trainer(proto: ModelProto, *, bn: Any = "frozen", seed: int = 0, **options: Any) -> Trainer:
    forward = prepare(read(proto), bn=bn)
    made = graphs(proto, forward, **options)
    return Trainer(made, seed=seed, threads=1)


def stored(proto: ModelProto) -> dict[str, np.ndarray]:
    """Values of initializers and Constant nodes of the main graph, and those of functions."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for holder in (proto.graph, *proto.functions):
        for node in holder.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found


def without_values(proto: ModelProto) -> bytes:
    """A model's bytes but for the values of its tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    tensors = list(copy.graph.initializer)
    for holder in (copy.graph, *copy.functions):
        for node in holder.node:
            tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    for tensor in tensors:
        for field in ("raw_data", "float_data", "int32_data", "double_data", "int64_data"):
            tensor.ClearField(field)
    return copy.SerializeToString(deterministic=True)
