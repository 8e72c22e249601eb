"""Networks for the benchmark of channel removal: the usual ones, with random weights."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

__all__ = ["NETWORKS", "Network", "exported"]


@dataclass(frozen=True)
class Network:
    """A network with an input of one sample.

    Attributes:
        make: Makes it; the same seed gives the same weights.
        sample: Makes the input.
        goal: How many times faster it should be at one thread with half of its channels.
    """

    make: Callable[[], nn.Module]
    sample: Callable[[], Tensor]
    goal: float


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Basic(nn.Module):
    """He et al. 2015, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.skip(x))


def resnet18() -> nn.Module:
    """He et al. 2015, table 1."""
    layers: list[nn.Module] = [_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Basic(inputs, outputs, stride), _Basic(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class _Inverted(nn.Module):
    """Sandler et al. 2018, figure 4d."""

    def __init__(self, inputs: int, outputs: int, stride: int, times: int) -> None:
        super().__init__()
        hidden = inputs * times
        widen = [_conv(inputs, hidden, 1), nn.ReLU6()] if times > 1 else []
        self.body = nn.Sequential(
            *widen, _conv(hidden, hidden, 3, stride, hidden), nn.ReLU6(), _conv(hidden, outputs, 1)
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018, table 2."""
    table = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    )  # fmt: skip
    layers: list[nn.Module] = [_conv(3, 32, 3, 2), nn.ReLU6()]
    inputs = 32
    for times, outputs, repeats, stride in table:
        for number in range(repeats):
            layers.append(_Inverted(inputs, outputs, stride if number == 0 else 1, times))
            inputs = outputs
    layers += [_conv(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 1000))


def mlp() -> nn.Module:
    """Four hidden layers of 4096 neurons."""
    sizes = (784, 4096, 4096, 4096, 4096, 10)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x + self.attention(x))
        return self.two(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """Devlin et al. 2018 with fewer layers: width 768, 12 heads."""

    def __init__(self, layers: int = 4, width: int = 768, heads: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(8000, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.layers(self.norm(x))[:, 0])


def _image() -> Tensor:
    return torch.randn(1, 3, 224, 224)


NETWORKS = {
    "ResNet-18": Network(resnet18, _image, 3.5),
    "MobileNetV2": Network(mobilenet_v2, _image, 2.2),
    "MLP 4096": Network(mlp, lambda: torch.randn(1, 784), 5.0),
    "BERT-like": Network(Bert, lambda: torch.randint(0, 8000, (1, 128)), 1.7),
}


def exported(network: nn.Module, sample: Tensor) -> onnx.ModelProto:
    """The network in ONNX, with the shapes of the sample."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (sample,), file, input_names=["x"], output_names=["y"],
            opset_version=17, dynamo=False,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())
