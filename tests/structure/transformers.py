"""Transformers of the usual kinds, small and with random weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class Attention(nn.Module):
    """Attention as people write it: three projections, or one for all three."""

    def __init__(self, width=16, heads=4, head=6, fused=False, sdpa=False):
        super().__init__()
        self.heads, self.head, self.fused, self.sdpa = heads, head, fused, sdpa
        inner = heads * head
        if fused:
            self.qkv = nn.Linear(width, 3 * inner)
        else:
            self.q, self.k, self.v = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(self, x):
        b, s, _ = x.shape
        if self.fused:
            qkv = self.qkv(x).reshape(b, s, 3, self.heads, self.head).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
        else:
            q, k, v = (
                layer(x).view(b, s, self.heads, self.head).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
        if self.sdpa:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.size(-1)), -1) @ v
        return self.out(y.transpose(1, 2).reshape(b, s, self.heads * self.head))


class Layer(nn.Module):
    def __init__(self, width=16, **options):
        super().__init__()
        self.attention = Attention(width, **options)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 28), nn.GELU(), nn.Linear(28, width))

    def forward(self, x):
        x = x + self.attention(self.one(x))
        return x + self.mlp(self.two(x))


class ViT(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 17, 16))
        self.layers = nn.Sequential(Layer(**options), Layer(**options))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.layers(x))[:, 0])


class BERT(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.words, self.places = nn.Embedding(30, 16), nn.Embedding(40, 16)
        self.norm = nn.LayerNorm(16)
        self.layers = nn.Sequential(Layer(**options), Layer(**options))
        self.pool, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, ids):
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.layers(self.norm(self.words(ids) + self.places(places)))
        return self.head(torch.tanh(self.pool(x[:, 0])))


def torch_encoder():
    layer = nn.TransformerEncoderLayer(16, 4, 28, batch_first=True, norm_first=True)
    return nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)
    )


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotated(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


class GroupedLayer(nn.Module):
    """Grouped queries with rotary positions, then SwiGLU."""

    def __init__(self, width=16, heads=6, groups=2, head=8, hidden=20):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, head
        self.q = nn.Linear(width, heads * head, bias=False)
        self.k, self.v = (nn.Linear(width, groups * head, bias=False) for _ in range(2))
        self.out = nn.Linear(heads * head, width, bias=False)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.one, self.two = RMSNorm(width), RMSNorm(width)

    def forward(self, x, cos, sin, mask):
        b, s, _ = x.shape
        y = self.one(x)
        q = rotated(self.q(y).view(b, s, self.heads, self.size).transpose(1, 2), cos, sin)
        k = rotated(self.k(y).view(b, s, self.groups, self.size).transpose(1, 2), cos, sin)
        v = self.v(y).view(b, s, self.groups, self.size).transpose(1, 2)
        times = self.heads // self.groups
        k, v = (
            t[:, :, None].expand(b, self.groups, times, s, self.size)
            .reshape(b, self.heads, s, self.size)
            for t in (k, v)
        )  # fmt: skip
        scores = q @ k.transpose(2, 3) / math.sqrt(self.size) + mask[:s, :s]
        y = torch.softmax(scores, -1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(b, s, -1))
        y = self.two(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.layers = nn.ModuleList([GroupedLayer(), GroupedLayer()])
        self.norm, self.head = RMSNorm(16), nn.Linear(16, 30, bias=False)
        angles = torch.outer(torch.arange(128.0), 10.0 ** -torch.arange(0, 1, 0.25))
        self.register_buffer("cos", torch.cat([angles.cos(), angles.cos()], -1))
        self.register_buffer("sin", torch.cat([angles.sin(), angles.sin()], -1))
        self.register_buffer("mask", torch.triu(torch.full((128, 128), -1e4), 1))

    def forward(self, ids):
        s = ids.shape[1]
        x = self.words(ids)
        for layer in self.layers:
            x = layer(x, self.cos[:s], self.sin[:s], self.mask)
        return self.head(self.norm(x))


class Windowed(nn.Module):
    """Swin's attention: inside windows of 4 x 4, which may be shifted."""

    def __init__(self, width=8, heads=2, shift=0):
        super().__init__()
        self.heads, self.shift = heads, shift
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.randn(heads, 16, 16))
        self.out = nn.Linear(width, width)

    def forward(self, x):
        n, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        qkv = self.qkv(y).reshape(-1, 16, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5 + self.bias
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c)
        y = self.out(y).view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        y = torch.roll(y.reshape(n, h, w, c), (self.shift, self.shift), (1, 2))
        return x + y


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.layers = (
            nn.Conv2d(3, 8, 2, 2),
            nn.Sequential(Windowed(), Windowed(shift=2)),
        )
        self.merge_norm, self.merge = nn.LayerNorm(32), nn.Linear(32, 12, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.layers(self.patch(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        x = self.merge(self.merge_norm(x))
        x = x + self.mlp(x)
        return self.head(x.mean((1, 2)))


class GroupedSDPA(nn.Module):
    """Grouped queries by PyTorch's own attention."""

    def __init__(self, width=16, heads=6, groups=2, size=8):
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, size
        self.words, self.q = nn.Embedding(30, width), nn.Linear(width, heads * size)
        self.k, self.v = (nn.Linear(width, groups * size) for _ in range(2))
        self.out, self.head = nn.Linear(heads * size, width), nn.Linear(width, 30)

    def forward(self, ids):
        x = self.words(ids)
        b, s, _ = x.shape
        q = self.q(x).view(b, s, self.heads, self.size).transpose(1, 2)
        k, v = (
            layer(x).view(b, s, self.groups, self.size).transpose(1, 2).repeat_interleave(3, 1)
            for layer in (self.k, self.v)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(self.out(y.transpose(1, 2).reshape(b, s, -1)))
