"""Train the small digit models of this folder and write them with their data.

Run it from the repository root after ``pip install -e '.[train-models]'``::

    python models/train_digits.py

Data: the 1,797 handwritten 8x8 digits that scikit-learn ships, split once into a training and a
test part with equal shares of every digit. The test part is read only at the very end, to measure.

The graphs are built node by node from the trained weights, because every PyTorch exporter removes
Dropout from a model in evaluation mode (and marks it ``training_mode=true`` in training mode). Here
each Dropout stays as an opset-12 node: ratio as second input, no third input, so it does nothing
at inference and a pruner can still see and rewrite its ratio.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 0
TEST_SHARE = 0.2
# Settings chosen on a validation part of the training images.
EPOCHS = 150
BATCH = 64
LEARNING_RATE = 0.05
MOMENTUM = 0.9
WEIGHT_DECAY = 3e-3
MAX_TURN = 0.2  # radians
MAX_ZOOM = 0.1
MAX_SHIFT = 0.125  # in half image widths: half a pixel
OPSET = 17
IR_VERSION = 8
INPUT = "image"
OUTPUT = "logits"

Arrays = dict[str, np.ndarray]


def digits() -> tuple[Arrays, Arrays]:
    """Training and test arrays: `image` float32 [N, 1, 8, 8] in 0..1 and `labels` int64 [N]."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    split = train_test_split(
        images, labels.astype(np.int64), test_size=TEST_SHARE, stratify=labels, random_state=SEED
    )
    train_images, test_images, train_labels, test_labels = split
    return (
        {INPUT: train_images, "labels": train_labels},
        {INPUT: test_images, "labels": test_labels},
    )


def mlp() -> nn.Sequential:
    """Build LeNet-300-100's digit-sized relative: 64-300-100-10."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 300),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Dropout(0.25),
        nn.Linear(100, 10),
    )


def cnn() -> nn.Sequential:
    """Build two convolutions followed by two fully connected layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(192, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


MODELS = {"digits_mlp": mlp, "digits_cnn": cnn}


def jittered(images: torch.Tensor) -> torch.Tensor:
    """Turn, scale and shift every image [N, 1, 8, 8] a little, each differently."""
    turn = MAX_TURN * _minus_one_to_one(len(images))
    grow = 1 + MAX_ZOOM * _minus_one_to_one(len(images))
    shift = MAX_SHIFT * _minus_one_to_one(len(images), 2)
    first = torch.stack([grow * turn.cos(), -grow * turn.sin(), shift[:, 0]], dim=1)
    second = torch.stack([grow * turn.sin(), grow * turn.cos(), shift[:, 1]], dim=1)
    grid = nn.functional.affine_grid(
        torch.stack([first, second], dim=1), list(images.shape), align_corners=False
    )
    return nn.functional.grid_sample(images, grid, align_corners=False)


def _minus_one_to_one(*shape: int) -> torch.Tensor:
    return torch.rand(shape) * 2 - 1


def train(network: nn.Sequential, data: Arrays) -> None:
    """Fit in place for a fixed number of epochs; no epoch is selected afterwards."""
    images, labels = torch.from_numpy(data[INPUT]), torch.from_numpy(data["labels"])
    optimizer = torch.optim.SGD(
        network.parameters(), LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            logits = network(jittered(images[batch]))
            nn.functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
        schedule.step()
    network.eval()


class GraphBuilder:
    """Grow an ONNX graph one PyTorch module at a time."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.value = INPUT

    def add(self, module: nn.Module) -> None:
        """Append the node of one module, fed by the last node."""
        handlers = {
            nn.Linear: self._linear,
            nn.Conv2d: self._conv,
            nn.MaxPool2d: lambda m: self._node(
                "MaxPool", kernel_shape=[m.kernel_size] * 2, strides=[m.stride] * 2
            ),
            nn.Dropout: lambda m: self._node("Dropout", ratio=np.float32(m.p)),
            nn.Flatten: lambda m: self._node("Flatten", axis=m.start_dim),
            nn.ReLU: lambda m: self._node("Relu"),
        }
        handlers[type(module)](module)

    def _node(self, op_type: str, /, **inputs_and_attributes: object) -> None:
        """Append a node; arrays become initializers, everything else an attribute."""
        name = f"{op_type.lower()}{sum(node.op_type == op_type for node in self.nodes) + 1}"
        inputs, attributes = [self.value], {}
        for key, value in inputs_and_attributes.items():
            if isinstance(value, np.ndarray | np.generic):
                inputs.append(f"{name}.{key}")
                self.initializers.append(numpy_helper.from_array(np.asarray(value), inputs[-1]))
            else:
                attributes[key] = value
        self.value = f"{name}.output"
        self.nodes.append(helper.make_node(op_type, inputs, [self.value], name, **attributes))

    def _linear(self, module: nn.Linear) -> None:
        self._node("Gemm", weight=_array(module.weight), bias=_array(module.bias), transB=1)

    def _conv(self, module: nn.Conv2d) -> None:
        self._node(
            "Conv",
            weight=_array(module.weight),
            bias=_array(module.bias),
            kernel_shape=list(module.kernel_size),
            pads=list(module.padding) * 2,
        )

    def build(self, name: str) -> onnx.ModelProto:
        """Close the graph and check it; the batch axis stays dynamic."""
        self.nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 1, 8, 8])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 10])],
            self.initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="onnxprune models/train_digits.py",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _array(tensor: torch.Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.detach().numpy()


def to_onnx(network: nn.Sequential, name: str) -> onnx.ModelProto:
    """ONNX form of a trained network, Dropout included."""
    builder = GraphBuilder()
    for module in network:
        builder.add(module)
    return builder.build(name)


def accuracy(path: Path, data: Arrays) -> float:
    """Percentage of images that onnxruntime classifies as labelled."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run([OUTPUT], {INPUT: data[INPUT]})
    return 100 * float(np.mean(logits.argmax(axis=1) == data["labels"]))


def check_against_torch(path: Path, network: nn.Sequential, images: np.ndarray) -> None:
    """Fail unless onnxruntime computes what PyTorch does."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(
        session.run([OUTPUT], {INPUT: images})[0], expected, rtol=1e-4, atol=1e-4
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write data and models, then print the table of README.md."""
    parser = argparse.ArgumentParser(description="Train the digit models of this folder.")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent)
    folder: Path = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # sums in one fixed order: the same weights on every run
    train_data, test_data = digits()
    np.savez_compressed(folder / "digits_train.npz", **train_data)
    np.savez_compressed(folder / "digits_test.npz", **test_data)
    for name, build in MODELS.items():
        torch.manual_seed(SEED)
        network = build()
        train(network, train_data)
        path = folder / f"{name}.onnx"
        onnx.save(to_onnx(network, name), path)
        check_against_torch(path, network, test_data[INPUT])
        parameters = sum(parameter.numel() for parameter in network.parameters())
        measured = [f"{accuracy(path, data):.2f} %" for data in (train_data, test_data)]
        print(f"| `{path.name}` | {parameters:,} | {' | '.join(measured)} |")


if __name__ == "__main__":
    main()
