"""Train LeNet-300-100 and LeNet-5 on MNIST with onnxprune's own trainer and write them here.

Run it from the repository root, with the folder of MNIST's four ``.gz`` files::

    python models/train_lenets.py --data mnist
    python models/train_lenets.py --data mnist --validate      the settings, on images held out
    python models/train_lenets.py --data mnist --arrays .      mnist_train.npz and mnist_test.npz

The second form trains on the first 50,000 training images and measures the last 10,000: that is how
the settings below were chosen. The test set is read only at the very end, to measure. The third
writes the data in the form that ``onnxprune --train`` and ``--val`` take.

The untrained graphs are built node by node; training is `onnxprune.prune` at quality 0, which
removes nothing and trains all weights. PyTorch is not needed.
"""

from __future__ import annotations

import argparse
import gzip
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxprune

HELD_OUT = 10_000
OPSET = 17
IR_VERSION = 8
INPUT = "image"
OUTPUT = "logits"

Arrays = dict[str, np.ndarray]


def mnist(folder: Path, split: str) -> Arrays:
    """MNIST's "train" or "t10k": `image` float32 [N, 1, 28, 28] in 0..1, `labels` int64 [N]."""
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return {INPUT: (images / 255).astype(np.float32), "labels": labels.astype(np.int64)}


def held_out(data: Arrays) -> tuple[Arrays, Arrays]:
    """The training images in two parts: to train on, and to choose settings by."""
    first = {name: array[:-HELD_OUT] for name, array in data.items()}
    return first, {name: array[-HELD_OUT:] for name, array in data.items()}


class Network:
    """Grows an untrained ONNX graph one layer at a time."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.value = INPUT

    def add(self, op_type: str, name: str, *constants: str, **attributes: object) -> Network:
        """Append a node that reads the last value and some initializers."""
        node = helper.make_node(op_type, [self.value, *constants], [f"{name}.output"], name)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes.append(node)
        self.value = f"{name}.output"
        return self

    def dense(self, name: str, inputs: int, outputs: int) -> Network:
        """Append a fully connected layer."""
        return self.add("Gemm", name, *self._weights(name, (outputs, inputs)), transB=1)

    def convolution(self, name: str, inputs: int, outputs: int, size: int) -> Network:
        """Append a convolution without padding."""
        shape = outputs, inputs, size, size
        return self.add("Conv", name, *self._weights(name, shape), kernel_shape=[size, size])

    def dropout(self, name: str, ratio: float) -> Network:
        """Append a Dropout in the form of opset 12: it does nothing at inference."""
        self._constant(f"{name}.ratio", np.array(ratio, np.float32))
        return self.add("Dropout", name, f"{name}.ratio")

    def _weights(self, name: str, shape: tuple[int, ...]) -> tuple[str, str]:
        """Normal weights of variance 2 / inputs (He et al. 2015), and biases of 0."""
        spread = np.sqrt(2 / np.prod(shape[1:]))
        weights = self._random.normal(0, spread, shape).astype(np.float32)
        self._constant(f"{name}.weight", weights)
        self._constant(f"{name}.bias", np.zeros(shape[0], np.float32))
        return f"{name}.weight", f"{name}.bias"

    def _constant(self, name: str, array: np.ndarray) -> None:
        self.initializers.append(numpy_helper.from_array(array, name))

    def build(self, name: str) -> onnx.ModelProto:
        """Close the graph and check it; the batch axis stays dynamic."""
        self.nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 1, 28, 28])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 10])],
            self.initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="onnxprune models/train_lenets.py",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def lenet_300_100(seed: int) -> onnx.ModelProto:
    """Build LeNet-300-100 (LeCun et al. 1998): 266,200 weights in three layers."""
    network = Network(seed).add("Flatten", "flatten", axis=1)
    network.dense("fc1", 784, 300).add("Relu", "relu1")
    network.dense("fc2", 300, 100).add("Relu", "relu2")
    return network.dense("fc3", 100, 10).build("lenet_300_100")


def lenet_5(seed: int) -> onnx.ModelProto:
    """Build Caffe's LeNet-5, 20-50-500: 430,500 weights in four layers, with a Dropout."""
    network = Network(seed).convolution("conv1", 1, 20, 5)
    network.add("MaxPool", "pool1", kernel_shape=[2, 2], strides=[2, 2])
    network.convolution("conv2", 20, 50, 5)
    network.add("MaxPool", "pool2", kernel_shape=[2, 2], strides=[2, 2])
    network.add("Flatten", "flatten", axis=1).dense("fc1", 800, 500).add("Relu", "relu1")
    return network.dropout("dropout1", 0.5).dense("fc2", 500, 10).build("lenet_5")


@dataclass(frozen=True)
class Training:
    """An untrained network and how it is trained."""

    build: Callable[[int], onnx.ModelProto]
    settings: dict[str, object]

    def finetune(self, seed: int) -> onnxprune.FineTune:
        """The settings with a seed."""
        return onnxprune.FineTune(**self.settings, seed=seed)  # type: ignore[arg-type]


#: Settings chosen by ``--validate``.
NETWORKS = {
    "lenet_300_100": Training(
        lenet_300_100, {"epochs": 30, "optimizer": "sgd", "lr": 0.05, "l2": 5e-4, "batch_size": 64}
    ),
    "lenet_5": Training(
        lenet_5, {"epochs": 12, "optimizer": "sgd", "lr": 0.02, "l2": 5e-4, "batch_size": 64}
    ),
}


def trained(name: str, data: Arrays, seed: int = 0, val: Arrays | None = None) -> onnxprune.Result:
    """Train a network from scratch."""
    network = NETWORKS[name]
    return onnxprune.prune(
        network.build(seed), quality=0, train=data, val=val, finetune=network.finetune(seed)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the models and print their rows of README.md, or measure the settings."""
    parser = argparse.ArgumentParser(description="Train the LeNets of this folder.")
    zoo = os.environ.get("ONNXPRUNE_ZOO")
    default = Path(zoo, "data", "mnist") if zoo else None
    parser.add_argument("--data", type=Path, default=default, required=default is None)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate", action="store_true", help="measure images held out")
    parser.add_argument("--arrays", type=Path, help="only write the data, to this folder")
    given = parser.parse_args(arguments)
    if given.arrays:
        for split, name in (("train", "train"), ("t10k", "test")):
            np.savez_compressed(given.arrays / f"mnist_{name}.npz", **mnist(given.data, split))
        return
    data = mnist(given.data, "train")
    data, val = held_out(data) if given.validate else (data, mnist(given.data, "t10k"))
    for name in given.networks:
        result = trained(name, data, given.seed, val)
        report = result.report
        assert report.accuracy is not None  # there is data to measure on
        error = 100 * (1 - report.accuracy.after)
        if given.validate:
            print(f"{name}: {error:.2f} % of the images held out are wrong")
            continue
        result.save(given.output / f"{name}.onnx", overwrite=True)
        print(f"| `{name}.onnx` | {report.parameters:,} | {error:.2f} % |")


if __name__ == "__main__":
    main()
