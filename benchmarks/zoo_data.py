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

__all__ = ["PAIRS", "Pair", "zoo_folder"]

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
    """

    model: str
    read: Callable[[str], tuple[np.ndarray, np.ndarray]]
    input: str
    scale: Callable[[np.ndarray], np.ndarray]

    @property
    def path(self) -> Path:
        """The model's file."""
        return zoo_folder() / "models" / f"{self.model}.onnx"

    def arrays(self, split: str) -> Arrays:
        """Inputs and labels of a split."""
        images, labels = self.read(split)
        scaled = np.ascontiguousarray(self.scale(images.astype(np.float32)), np.float32)
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
    from PIL import Image

    packed = np.load(zoo_folder() / "data" / "cifar10-jpeg" / f"{split}.npz")
    blob, at = packed["jpeg"].tobytes(), packed["offsets"]
    images = np.stack(
        [np.asarray(Image.open(io.BytesIO(blob[at[i] : at[i + 1]]))) for i in range(len(at) - 1)]
    )
    return images.transpose(0, 3, 1, 2), packed["labels"]


def _channels(values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 3, 1, 1)


_ALL = (
    Pair(
        "vnn21_mnist_fc_256x2",
        lambda split: _idx("mnist", split),
        "0",
        lambda images: images.reshape(-1, 784, 1) / 255,
    ),
    Pair("mnist_cntk_wml", lambda split: _idx("mnist", split), "Input3", lambda images: images),
    Pair(
        "fashionmnist_edwin_cnn",
        lambda split: _idx("fashion-mnist", split),
        "input",
        lambda images: images / 255,
    ),
    Pair(
        "vnn21_cifar10_resnet_4b",
        _cifar10,
        "input.1",
        lambda x: (x / 255 - _channels(CIFAR_MEAN)) / _channels((0.247, 0.2435, 0.2616)),
    ),
    Pair(
        "vnn23_vit_ibp_3_3_8",
        _cifar10,
        "input",
        lambda x: (x / 255 - _channels(CIFAR_MEAN)) / _channels((0.2023, 0.1994, 0.2010)),
    ),
    Pair(
        "vnn21_cifar10_medium",
        _cifar10,
        "x:0",
        lambda x: x.transpose(0, 2, 3, 1) / 255,
    ),
)
#: The pairs by the name of the model.
PAIRS: Mapping[str, Pair] = {pair.model: pair for pair in _ALL}
