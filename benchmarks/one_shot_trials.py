"""Models, calibration inputs and test data that pruning without retraining is measured on.

Calibration inputs are 512 images of the training set, in an order that a seed gives. The 500 images
of the ImageNet sample have no training set beside them: they are halved, each half calibrates a
model that the other half tests. The MLP on scikit-learn's digits is trained here, five times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.zoo_data import PAIRS, Pair

__all__ = ["MODELS", "SAMPLES", "Trial", "trials"]

SAMPLES = 512
DIGITS, DIGITS_SEEDS, DIGITS_SIZES = "digits_mlp", 5, (64, 300, 100, 10)
SQUEEZENET = "squeezenet_fp16"

#: What is measured, by default all of it.
MODELS = (
    DIGITS,
    "vnn21_mnist_fc_256x2",
    "vnn21_mnist_fc_256x6",
    "vnn21_mnist_sigmoid_6x200",
    "vnn24_cora_mnist_point",
    "fashionmnist_edwin_cnn",
    "vnn21_cifar10_resnet_2b",
    "vnn21_cifar10_resnet_4b",
    "vnn21_cifar10_medium",
    "vnn23_vit_ibp_3_3_8",
    SQUEEZENET,
)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trial:
    """One model with the inputs that calibrate it, and labelled data that test it alone.

    Attributes:
        model: The model's file.
        calibration: Inputs by name [samples, ...].
        test: Inputs by name and "labels".
    """

    model: Path
    calibration: Arrays
    test: Arrays


def trials(name: str, folder: Path, seed: int = 0) -> Iterator[Trial]:
    """What a model is measured on: once, or several times, of which the mean counts.

    Args:
        name: One of `MODELS`.
        folder: Where models that are trained here are written.
        seed: Says which images calibrate.
    """
    if name == DIGITS:
        yield from (_digits(number, folder) for number in range(DIGITS_SEEDS))
    elif name == SQUEEZENET:
        yield from _halves(PAIRS[name])
    else:
        pair = PAIRS[name]
        train = pair.arrays("train")
        picks = np.random.default_rng(seed).permutation(len(train["labels"]))[:SAMPLES]
        yield Trial(pair.path, {pair.input: train[pair.input][picks]}, pair.arrays("test"))


def _halves(pair: Pair) -> Iterator[Trial]:
    """Even images calibrate and odd ones test, and the other way round."""
    whole = pair.arrays("test")
    even, odd = ({name: array[start::2] for name, array in whole.items()} for start in (0, 1))
    for own, other in ((even, odd), (odd, even)):
        yield Trial(pair.path, {pair.input: own[pair.input]}, other)


def _digits(seed: int, folder: Path) -> Trial:
    """An MLP trained by scikit-learn on four fifths of its digits; the rest tests it."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    split = train_test_split(images, labels, test_size=0.2, random_state=seed, stratify=labels)
    train, test, train_labels, test_labels = split
    net = MLPClassifier(DIGITS_SIZES[1:-1], random_state=seed, max_iter=200)
    net.fit(train, train_labels)
    path = folder / f"{DIGITS}_{seed}.onnx"
    onnx.save(_mlp(net.coefs_, net.intercepts_), path)
    picks = np.random.default_rng(seed).permutation(len(train))[:SAMPLES]
    return Trial(path, {"x": train[picks]}, {"x": test, "labels": test_labels.astype(np.int64)})


def _mlp(weights: list[np.ndarray], biases: list[np.ndarray]) -> onnx.ModelProto:
    """Matrix products [inputs, outputs] with a Relu between them."""
    nodes, tensors, value = [], [], "x"
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        names = f"fc{number}.weight", f"fc{number}.bias"
        tensors += [
            numpy_helper.from_array(array.astype(np.float32), name)
            for array, name in zip((weight.T, bias), names, strict=True)
        ]
        nodes.append(helper.make_node("Gemm", [value, *names], [f"y{number}"], transB=1))
        value = f"y{number}"
        if number < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"h{number}"]))
            value = f"h{number}"
    graph = helper.make_graph(
        nodes,
        DIGITS,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", DIGITS_SIZES[0]])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", DIGITS_SIZES[-1]])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
