"""Inputs for the real models: real data where there is some, seeded values of the right sort else.

Preprocessing is that under which each model has its known accuracy (baselines.json of the folder).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

Feeds = dict[str, np.ndarray]
Make = Callable[[Path, np.random.Generator], Feeds]

__all__ = ["Feeds", "feeds_of"]

BATCH = 4
CIFAR_MEAN = np.array([0.4914, 0.4822, 0.4465])


@lru_cache
def _grey(folder: Path, name: str) -> np.ndarray:
    """A few images [N, 1, 28, 28] of 0 to 255; noise where the data set is absent."""
    path = folder / name / "t10k-images-idx3-ubyte.gz"
    if not path.is_file():
        return np.random.default_rng(1).integers(0, 256, (BATCH, 1, 28, 28)).astype(np.float32)
    with gzip.open(path) as file:
        raw = file.read(16 + 784 * BATCH)[16:]
    return np.frombuffer(raw, np.uint8).reshape(BATCH, 1, 28, 28).astype(np.float32)


@lru_cache
def _colour(folder: Path, name: str, size: int) -> np.ndarray:
    """A few images [N, size, size, 3] of 0 to 255; noise without the data set or Pillow."""
    try:
        from PIL import Image

        packed = np.load(folder / name)
    except (ImportError, OSError):
        return np.random.default_rng(2).integers(0, 256, (BATCH, size, size, 3)).astype(np.float32)
    blob, at = packed["jpeg"].tobytes(), packed["offsets"]
    images = [Image.open(io.BytesIO(blob[at[i] : at[i + 1]])) for i in range(BATCH)]
    return np.stack([np.asarray(image) for image in images]).astype(np.float32)


def _nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)


def _digits(name: str, shape: tuple[int, ...], scale: float = 1 / 255) -> Make:
    return lambda data, _: {name: (_grey(data, "mnist") * scale).reshape(shape).astype(np.float32)}


def _one(make: Make) -> Make:
    """The first sample alone, for models with a fixed batch of one."""
    return lambda data, random: {name: value[:1] for name, value in make(data, random).items()}


def _cifar(
    name: str, mean: np.ndarray | float = 0.0, std: np.ndarray | float = 1.0, *, nhwc: bool = False
) -> Make:
    def make(data: Path, _: np.random.Generator) -> Feeds:
        images = (_colour(data, "cifar10-jpeg/test.npz", 32) / 255 - mean) / std
        return {name: images.astype(np.float32) if nhwc else _nchw(images)}

    return make


def _imagenet_bgr(data: Path, _: np.random.Generator) -> Feeds:
    images = _colour(data, "imagenet-sample/imagenet500_224.npz", 224)[:1, :, :, ::-1]
    return {"data_0": _nchw(images - np.array([103.939, 116.779, 123.68])).astype(np.float16)}


def _cora(data: Path, _: np.random.Generator) -> Feeds:
    images = _grey(data, "mnist").transpose(0, 1, 3, 2) / 255
    return {"input": images.reshape(BATCH, 784).astype(np.float32)}


def _audio(random: np.random.Generator, samples: int) -> np.ndarray:
    """A voiced sound: harmonics of 120 Hz at 16 kHz, and a little noise."""
    time = np.arange(samples) / 16_000
    tones = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 12))
    return (0.2 * tones + 0.01 * random.standard_normal(samples)).astype(np.float32)[None]


def _silero(samples: int, *states: str, units: int = 0, rate: int | None = None) -> Make:
    def make(_: Path, random: np.random.Generator) -> Feeds:
        feeds: Feeds = {"input": _audio(random, samples)}
        for name in states:
            feeds[name] = 0.1 * random.standard_normal((2, 1, units)).astype(np.float32)
        return feeds if rate is None else {**feeds, "sr": np.array(rate, np.int64)}

    return make


def _bytes(length: int) -> Make:
    return lambda _, random: {"bytes": random.integers(0, 257, (BATCH, length)).astype(np.int32)}


def _uniform(low: float, high: float, **shapes: tuple[int, ...]) -> Make:
    return lambda _, random: {
        name: random.uniform(low, high, shape).astype(np.float32) for name, shape in shapes.items()
    }


def _with_position(_: Path, random: np.random.Generator) -> Feeds:
    """An image of 64 x 64 and eight numbers that place a patch in it."""
    pixels, place = random.uniform(0, 1, 12_288), random.integers(0, 4, 8)
    return {"0": np.concatenate([pixels, place]).astype(np.float32)}


def _generator(data: Path, random: np.random.Generator) -> Feeds:
    code = random.standard_normal((1, 8)).astype(np.float32)
    return {"input": _grey(data, "mnist")[:1] / 255, "onnx::Concat_1": code}


_KW_MEAN, _KW_STD = np.array([0.485, 0.456, 0.406]), 0.225
_RESNET = _one(_cifar("input.1", CIFAR_MEAN, np.array([0.247, 0.2435, 0.2616])))
_KW = _one(_cifar("input.1", _KW_MEAN, _KW_STD))
#: Inputs by model; a model that takes several sorts of input has several sets.
TABLE: Mapping[str, tuple[Make, ...]] = {
    "cifar10_wml_pytorch_imageclassifier": (_cifar("modelInput", 0.5, 0.5),),
    "fashionmnist_edwin_cnn": (lambda data, _: {"input": _grey(data, "fashion-mnist") / 255},),
    "magika_fast_v2_1": (_bytes(1024),),
    "magika_standard_v3_3": (_bytes(2048),),
    "mnist_cntk_v2ops_ort": (_one(_digits("Input3", (BATCH, 1, 28, 28), 1.0)),),
    "mnist_cntk_wml": (_one(_digits("Input3", (BATCH, 1, 28, 28), 1.0)),),
    "mnist_original_ortex": (_digits("input1", (BATCH, 784)),),
    "mnist_wml_cppcx_model": (_digits("image", (BATCH, 1, 28, 28)),),
    "silero_vad_16k_op15": (
        _silero(512, "state", units=128, rate=16_000),
        _silero(576, "state", units=128, rate=16_000),
    ),
    "silero_vad_half": (_silero(576, "state", units=128),),
    "silero_vad_micro_v2": (_silero(4000),),
    "silero_vad_mini_v2": (_silero(4000),),
    "silero_vad_openvino_16k": (_silero(576, "state", units=128),),
    "silero_vad_v3": (_silero(1536, "h0", "c0", units=64),),
    "silero_vad_v4": (
        _silero(512, "h", "c", units=64, rate=16_000),
        _silero(256, "h", "c", units=64, rate=8_000),
    ),
    "squeezenet_fp16": (_imagenet_bgr,),
    "style_candy": (_uniform(0, 255, inputImage=(1, 3, 720, 720)),),
    "vnn21_cifar10_medium": (_cifar("x:0", nhwc=True),),
    "vnn21_cifar10_small": (_cifar("x:0", nhwc=True),),
    "vnn21_cifar10_resnet_2b": (_RESNET,),
    "vnn21_cifar10_resnet_4b": (_RESNET,),
    "vnn21_cifar_base_kw": (_KW,),
    "vnn21_cifar_deep_kw": (_KW,),
    "vnn21_cifar_wide_kw": (_KW,),
    "vnn21_mnist_convnet_avgpool": (_one(_digits("input", (BATCH, 1, 28, 28))),),
    "vnn21_mnist_convnet_maxpool": (_one(_digits("input", (BATCH, 1, 28, 28))),),
    "vnn21_mnist_fc_256x2": (_one(_digits("0", (BATCH, 784, 1))),),
    "vnn21_mnist_fc_256x4": (_one(_digits("0", (BATCH, 784, 1))),),
    "vnn21_mnist_fc_256x6": (_one(_digits("0", (BATCH, 784, 1))),),
    "vnn21_mnist_relu_9_200": (_one(_digits("input", (BATCH, 1, 28, 28))),),
    "vnn21_mnist_sigmoid_6x200": (_one(_digits("input", (BATCH, 1, 28, 28))),),
    "vnn23_cctsdb_patch1": (_with_position,),
    "vnn23_distshift_mnist_generator": (_generator,),
    "vnn23_traffic_bnn_30": (_uniform(0, 255, quant_conv2d_20_input=(BATCH, 30, 30, 3)),),
    "vnn23_traffic_bnn_48": (_uniform(0, 255, quant_conv2d_3_input=(BATCH, 48, 48, 3)),),
    "vnn23_vit_ibp_3_3_8": (_cifar("input", CIFAR_MEAN, np.array([0.2023, 0.1994, 0.2010])),),
    "vnn24_cora_mnist_point": (_cora,),
}


def feeds_of(zoo: Path, name: str, inputs: list[tuple[str, str, list[int | str]]]) -> list[Feeds]:
    """Sets of inputs for a model.

    Args:
        zoo: Folder of the models; data sets are in ``data`` beside it.
        name: File name of the model without suffix.
        inputs: Name, onnxruntime type and shape of each input.
    """
    random = np.random.default_rng(0)
    if name in TABLE:
        return [make(zoo.parent / "data", random) for make in TABLE[name]]
    shapes = {n: tuple(s if isinstance(s, int) else BATCH for s in shape) for n, _, shape in inputs}
    return [{n: random.uniform(0, 1, shape).astype(np.float32) for n, shape in shapes.items()}]
