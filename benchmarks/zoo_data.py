"""Real data sets in the form that real models want: inputs by name, and labels.

The folder of models and data sets is named by ONNXPRUNE_ZOO; it is not part of the repository.
"""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

__all__ = ["PAIRS", "Arrays", "Pair", "zoo_folder"]

Arrays = dict[str, np.ndarray]
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)


def zoo_folder() -> Path:
    """The folder with ``models`` and ``data``."""
    given = os.environ.get("ONNXPRUNE_ZOO")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Pair:
    """A trained model with the data that it was trained on.

    Attributes:
        model: File name without suffix.
        read: Images [N, C, H, W] from 0 to 255 and labels of a split, "train" or "test".
        input: Name of the model's input.
        scale: From images to what the model wants.
        dtype: Type of what the model wants.
    """

    model: str
    read: Callable[[str], tuple[np.ndarray, np.ndarray]]
    input: str
    scale: Callable[[np.ndarray], np.ndarray]
    dtype: type = np.float32

    @property
    def path(self) -> Path:
        """The model's file."""
        return zoo_folder() / "models" / f"{self.model}.onnx"

    def arrays(self, split: str) -> Arrays:
        """Inputs and labels of a split."""
        images, labels = self.read(split)
        scaled = np.ascontiguousarray(self.scale(images.astype(np.float32)), self.dtype)
        return {self.input: scaled, "labels": labels.astype(np.int64)}


@lru_cache(2)
def _idx(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST and its like: images [N, 1, 28, 28] and labels."""
    stem = zoo_folder() / "data" / name / ("train" if split == "train" else "t10k")
    with gzip.open(f"{stem}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16)
    with gzip.open(f"{stem}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images.reshape(-1, 1, 28, 28), labels


@lru_cache(2)
def _cifar10(split: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10: images [N, 3, 32, 32] and labels. Needs Pillow."""
    images, labels = _unpacked(zoo_folder() / "data" / "cifar10-jpeg" / f"{split}.npz")
    return images.transpose(0, 3, 1, 2), labels


@lru_cache(2)
def _imagenet(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The 500 images [N, 3, 224, 224] that there are, one of a class: no split. Needs Pillow."""
    images, labels = _unpacked(zoo_folder() / "data" / "imagenet-sample" / "imagenet500_224.npz")
    return images.transpose(0, 3, 1, 2), labels


def _unpacked(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, 3] and labels of a file of JPEG images, one after another."""
    from PIL import Image

    packed = np.load(path)
    blob, at = packed["jpeg"].tobytes(), packed["offsets"]
    images = [
        np.asarray(Image.open(io.BytesIO(blob[at[i] : at[i + 1]]))) for i in range(len(at) - 1)
    ]
    return np.stack(images), packed["labels"]


def _channels(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


def _mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    return _idx("mnist", split)


def _residual(images: np.ndarray) -> np.ndarray:
    """What the residual networks for CIFAR-10 want."""
    return (images / 255 - _channels(CIFAR_MEAN)) / _channels((0.247, 0.2435, 0.2616))


def _caffe(images: np.ndarray) -> np.ndarray:
    """Blue first, less the means of ImageNet."""
    return images[:, ::-1] - _channels((103.939, 116.779, 123.68))


_ALL = (
    Pair("vnn21_mnist_fc_256x2", _mnist, "0", lambda x: x.reshape(-1, 784, 1) / 255),
    Pair("vnn21_mnist_fc_256x6", _mnist, "0", lambda x: x.reshape(-1, 784, 1) / 255),
    Pair("vnn21_mnist_sigmoid_6x200", _mnist, "input", lambda x: x / 255),
    Pair(
        "vnn24_cora_mnist_point",
        _mnist,
        "input",
        lambda x: x.swapaxes(2, 3).reshape(-1, 784) / 255,
    ),
    Pair("vnn21_mnist_fc_256x4", _mnist, "0", lambda x: x.reshape(-1, 784, 1) / 255),
    Pair("mnist_cntk_wml", _mnist, "Input3", lambda x: x),
    Pair(
        "fashionmnist_edwin_cnn",
        lambda split: _idx("fashion-mnist", split),
        "input",
        lambda x: x / 255,
    ),
    Pair("vnn21_cifar10_resnet_2b", _cifar10, "input.1", _residual),
    Pair("vnn21_cifar10_resnet_4b", _cifar10, "input.1", _residual),
    Pair("vnn21_cifar10_medium", _cifar10, "x:0", lambda x: x.transpose(0, 2, 3, 1) / 255),
    Pair(
        "vnn23_vit_ibp_3_3_8",
        _cifar10,
        "input",
        lambda x: (x / 255 - _channels(CIFAR_MEAN)) / _channels((0.2023, 0.1994, 0.2010)),
    ),
    Pair("squeezenet_fp16", _imagenet, "data_0", _caffe, np.float16),
)
#: The pairs by the name of the model.
PAIRS: Mapping[str, Pair] = {pair.model: pair for pair in _ALL}
