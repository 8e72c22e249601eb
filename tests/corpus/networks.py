"""Small networks in PyTorch, as people export them. Needs torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "mlp_with_dropout"]


class DepthwiseCnn(nn.Module):
    """Depthwise and pointwise convolutions, a transposed one, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + torch.nn.functional.silu(self.pointwise(self.depthwise(x)))
        return self.head(self.up(x).mean(dim=(2, 3)))


class Recurrent(nn.Module):
    """A bidirectional LSTM of two layers and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(20, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        return self.head(x[:, -1])


class Attention(nn.Module):
    """Self-attention written out: one projection for all of query, key and value."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Encoder(nn.Module):
    """A transformer encoder of two blocks, normalised first."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.attention = nn.ModuleList(Attention(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, width))
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for i in range(2):
            x = x + self.attention[i](self.norms[2 * i](x))
            x = x + self.mlps[i](self.norms[2 * i + 1](x))
        return x


class TiedLanguageModel(nn.Module):
    """An embedding whose table is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.mixer = nn.Linear(24, 24)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mixer(self.embedding(ids))))


def mlp_with_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 16), nn.ReLU(),
        nn.Dropout(0.25), nn.Linear(16, 4),
    )  # fmt: skip


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3),
        nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * 25, 10),
    )  # fmt: skip


def _library_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for parameter in encoder.parameters():  # its layers begin as copies, which exporters merge
        nn.init.normal_(parameter, std=0.2)
    return encoder


#: By name: what makes the network, and an example input.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp_with_dropout, lambda: torch.randn(3, 20)),
    "cnn": (_cnn, lambda: torch.randn(3, 1, 16, 16)),
    "depthwise": (DepthwiseCnn, lambda: torch.randn(3, 3, 16, 16)),
    "recurrent": (Recurrent, lambda: torch.randn(3, 7, 12)),
    "encoder": (Encoder, lambda: torch.randn(3, 6, 32)),
    "library encoder": (_library_encoder, lambda: torch.randn(3, 6, 32)),
    "tied": (TiedLanguageModel, lambda: torch.randint(0, 50, (3, 6))),
}
