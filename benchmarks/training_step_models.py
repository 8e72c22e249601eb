"""The networks of `training_step`, in PyTorch, and their export; needs PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CLASSES = 10
OPSET = 17


def mlp() -> nn.Module:
    """LeNet-300-100."""
    layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(100, CLASSES))


def lenet() -> nn.Module:
    """LeNet-5 as Caffe has it: 20 and 50 kernels, 500 units."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, CLASSES),
    )


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        shortcut = [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.shortcut = nn.Sequential(*shortcut) if before != after else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, before, H, W] to [N, after, H / stride, W / stride]."""
        return functional.relu(self.main(x) + self.shortcut(x))


class Mean(nn.Module):
    """The mean over all positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] to [N, C]."""
        return x.mean((2, 3))


def resnet8() -> nn.Module:
    """Three blocks of 16, 32 and 64 channels."""
    start = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)]
    return nn.Sequential(*start, *blocks, Mean(), nn.Linear(64, CLASSES))


class Encoder(nn.Module):
    """One layer of a transformer encoder, normalized first."""

    def __init__(self, size: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.mlp = nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, sequence, size] to the same."""
        y, (samples, places, size) = self.norm1(x), x.shape
        split = samples, places, self.heads, size // self.heads
        query, key, value = (
            layer(y).view(split).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches of 48 numbers, four layers of 128 numbers and 4 heads, the mean classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(48, 128)
        self.places = nn.Parameter(0.02 * torch.randn(64, 128))
        self.layers = nn.Sequential(*(Encoder(128, 4, 512) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 64, 48] to [N, CLASSES]."""
        y = self.layers(self.embed(x) + self.places)
        return self.head(self.norm(y).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "lenet5": lenet,
    "resnet8": resnet8,
    "transformer": Transformer,
}


def build(network: str) -> nn.Module:
    """A network with weights from a fixed seed.

    Normalizations get values of their own: the exporter joins tensors that are equal.
    """
    torch.manual_seed(0)
    model = NETWORKS[network]()
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return model


def export(network: str, sample: tuple[int, ...], target: Path) -> None:
    """Write a network as ONNX for inference, BatchNormalization kept apart.

    Args:
        network: Its name.
        sample: Shape of one sample.
        target: The file.
    """
    torch.onnx.export(
        build(network).eval(),
        (torch.zeros(2, *sample),),
        str(target),
        dynamo=False,
        opset_version=OPSET,
        input_names=["x"],
        output_names=["scores"],
        dynamic_axes={"x": {0: "batch"}, "scores": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )


def stepper(
    network: str, x: np.ndarray, y: np.ndarray, rate: float, *, frozen: bool, fused: bool
) -> Callable[[], float]:
    """A function that does one training step with AdamW and returns the loss before it.

    Args:
        network: Its name.
        x: Samples.
        y: Their classes.
        rate: The learning rate.
        frozen: Whether BatchNormalization keeps its statistics.
        fused: PyTorch's fused AdamW, rather than its default.
    """
    model = build(network).train(not frozen)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=fused or None)
    samples, classes, criterion = torch.tensor(x), torch.tensor(y), nn.CrossEntropyLoss()

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(samples), classes)
        loss.backward()
        optimizer.step()
        return float(loss)

    return step
