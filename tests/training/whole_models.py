"""Small networks of the usual architectures in PyTorch, with random weights, and their exports."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ARCHITECTURES", "Architecture", "Exporter", "export"]

Exporter = Literal["dynamo", "torchscript"]
CLASSES = 5


# ---- networks of convolutions ------------------------------------------------------------------


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.ReLU(),
        nn.Linear(12, 8),
        nn.Tanh(),
        nn.Linear(8, CLASSES),
    )


def lenet() -> nn.Module:
    """LeNet-5 with few channels."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 5),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 12),
        nn.ReLU(),
        nn.Linear(12, 10),
        nn.ReLU(),
        nn.Linear(10, CLASSES),
    )


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, which is projected where the size changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride > 1 or before != after:
            projection = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(4, 4, 1),
        BasicBlock(4, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, CLASSES),
    )


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, depthwise convolution, narrow."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.added = stride == 1 and before == after
        self.layers = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.added else self.layers(x)


def mobilenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU6(),
        InvertedResidual(4, 4, 1, 2),
        InvertedResidual(4, 6, 2, 2),
        nn.Conv2d(6, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Dropout(0.0),
        nn.Linear(8, CLASSES),
    )


class UNet(nn.Module):
    """One level down and up again; a class for every pixel."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = up
        self.joined = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.LeakyReLU(0.1))
        self.head = nn.Conv2d(4, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        coarse = self.up(self.bottom(self.pool(fine)))
        return self.head(self.joined(torch.cat([fine, coarse], dim=1)))


def unet_transposed() -> nn.Module:
    return UNet(nn.ConvTranspose2d(8, 4, 2, 2))


def unet_bilinear() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return UNet(nn.Sequential(up, nn.Conv2d(8, 4, 1)))


def unet_aligned() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return UNet(nn.Sequential(up, nn.Conv2d(8, 4, 1)))


class ChannelsFirstNorm(nn.LayerNorm):
    """LayerNorm over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, LayerNorm, two linear layers with GELU, a scale per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.gamma * self.narrow(functional.gelu(self.widen(inner)))
        return x + inner.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 2, 2),
        ChannelsFirstNorm(6, eps=1e-6),
        ConvNeXtBlock(6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(6, eps=1e-6),
        nn.Linear(6, CLASSES),
    )


# ---- networks of attention ---------------------------------------------------------------------


class Encoder(nn.Module):
    """Layers of torch's own encoder on vectors of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)).mean(dim=1))


class Attention(nn.Module):
    """Multi-head attention by scaled_dot_product_attention."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class PreNormBlock(nn.Module):
    """Attention and two linear layers, each behind a LayerNorm and with a shortcut."""

    def __init__(self, width: int, *, causal: bool, approximate: str = "none") -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 2, causal=causal)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(approximate), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, a class token and learned positions in front of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))
        self.block = PreNormBlock(8, causal=False)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        token = self.token.expand(patches.shape[0], -1, -1)
        x = torch.cat([token, patches], dim=1) + self.positions
        return self.head(self.norm(self.block(x))[:, 0])


class GPT(nn.Module):
    """A causal block between embeddings and scores of the next token."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(CLASSES, 8)
        self.positions = nn.Embedding(6, 8)
        self.block = PreNormBlock(8, causal=True, approximate="tanh")
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        # Classes on the second axis, as cross_entropy has them.
        return self.head(self.norm(self.block(x))).transpose(1, 2)


def gpt() -> nn.Module:
    return GPT(tied=False)


def gpt_tied() -> nn.Module:
    return GPT(tied=True)


# ---- what tests ask for ------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    """A network and what goes in and out.

    Attributes:
        make: Makes the network.
        input: Shape of a sample.
        labels: Shape of the label of a sample.
        tokens: Whether inputs are numbers of tokens.
    """

    make: Callable[[], nn.Module]
    input: tuple[int, ...]
    labels: tuple[int, ...] = ()
    tokens: bool = False

    def build(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode; no two parameters or statistics have equal values.

        PyTorch's exporter would store those once, and makes the layers of its encoder as copies.
        """
        torch.manual_seed(seed)
        net = self.make().eval()
        for name, value in net.state_dict().items():
            if value.is_floating_point() and value.ndim < 2:
                noise = torch.rand_like(value)
                value.copy_(0.5 + noise if _positive(name, value, net) else 0.4 * noise - 0.2)
            elif value.is_floating_point():
                value.add_(0.2 * torch.randn_like(value))
        return net

    def batch(self, size: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        """Random inputs and labels."""
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, CLASSES, (size, *self.labels), generator=random)
        if self.tokens:
            return torch.randint(0, CLASSES, (size, *self.input), generator=random), labels
        return torch.randn((size, *self.input), generator=random), labels


def _positive(name: str, value: Tensor, net: nn.Module) -> bool:
    """Whether a vector is a variance, or a scale of normalization."""
    owner = net.get_submodule(name.rpartition(".")[0])
    scaled = isinstance(owner, nn.BatchNorm2d | nn.LayerNorm) and name.endswith("weight")
    return scaled or name.endswith(("running_var", "gamma"))


ARCHITECTURES: dict[str, Architecture] = {
    "mlp": Architecture(mlp, (1, 4, 4)),
    "lenet": Architecture(lenet, (1, 20, 20)),
    "resnet": Architecture(resnet, (3, 12, 12)),
    "mobilenet": Architecture(mobilenet, (3, 12, 12)),
    "unet-transposed": Architecture(unet_transposed, (1, 8, 8), (8, 8)),
    "unet-bilinear": Architecture(unet_bilinear, (1, 8, 8), (8, 8)),
    "unet-aligned": Architecture(unet_aligned, (1, 8, 8), (8, 8)),
    "convnext": Architecture(convnext, (3, 8, 8)),
    "encoder": Architecture(Encoder, (4, 5)),
    "vit": Architecture(ViT, (3, 8, 8)),
    "gpt": Architecture(gpt, (6,), (6,), tokens=True),
    "gpt-tied": Architecture(gpt_tied, (6,), (6,), tokens=True),
}


def export(
    net: nn.Module,
    example: Tensor,
    exporter: Exporter,
    *,
    opset: int | None = None,
    free: bool = True,
    **options: Any,
) -> ModelProto:
    """The network as ONNX.

    Args:
        net: The network.
        example: An input; of one sample unless the batch axis is free.
        exporter: Which of PyTorch's two exporters.
        opset: The operator set; the exporter's own choice without.
        free: Whether the batch axis is free.
        options: Further arguments of `torch.onnx.export`.
    """
    if opset is not None:
        options["opset_version"] = opset
    if free and exporter == "dynamo":
        options["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
    elif free:
        options["dynamic_axes"] = {"x": {0: "batch"}, "y": {0: "batch"}}
    file = io.BytesIO()
    with _quiet(), _plain_attention():
        program = torch.onnx.export(
            net,
            (example,),
            None if exporter == "dynamo" else file,
            dynamo=exporter == "dynamo",
            input_names=["x"],
            output_names=["y"],
            **options,
        )
    if program is not None:
        proto: ModelProto = program.model_proto
        return proto
    return onnx.load_from_string(file.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Encoder layers by their parts: the fused operator of inference cannot be exported."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
