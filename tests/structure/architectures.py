"""Networks of the usual kinds, small and with random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(12 * 16, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5))

    def forward(self, x):
        return self.head(torch.flatten(self.features(x), 1))


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride=1, groups=1, excite=False):
        super().__init__()
        middle = outputs // 2
        self.one = block(inputs, middle, 1)
        self.two = block(middle, middle, 3, stride, groups)
        self.three = nn.Sequential(nn.Conv2d(middle, outputs, 1), nn.BatchNorm2d(outputs))
        self.skip = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride)
        self.excite = None
        if excite:
            self.excite = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Conv2d(outputs, 4, 1), nn.ReLU(),
                nn.Conv2d(4, outputs, 1), nn.Sigmoid(),
            )  # fmt: skip

    def forward(self, x):
        y = self.three(self.two(self.one(x)))
        if self.excite is not None:
            y = y * self.excite(y)
        return F.relu(y + self.skip(x))


class ResNet(nn.Module):
    def __init__(self, groups=1, excite=False):
        super().__init__()
        self.body = nn.Sequential(
            block(3, 8),
            Residual(8, 16, 1, groups, excite),
            Residual(16, 16, 1, groups, excite),
            Residual(16, 24, 2, groups, excite),
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        hidden = inputs * 2
        self.same = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), nn.Hardswish(),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


def mobilenet():
    return nn.Sequential(
        block(3, 8), Inverted(8, 8), Inverted(8, 12, 2), Inverted(12, 12),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(8 + 4 * i), nn.ReLU(), nn.Conv2d(8 + 4 * i, 4, 3, padding=1)
            )
            for i in range(3)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 6, 1))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.avg_pool2d(self.transition(x), 2).mean((2, 3)))


def shuffle(x: Tensor, groups: int):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            nn.Conv2d(half, half, 1), nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1, groups=half), nn.Conv2d(half, half, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        one, two = x.chunk(2, 1)
        return shuffle(torch.cat([one, self.body(two)], 1), 2)


class ShuffleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(3, 16), ShuffleUnit(16), ShuffleUnit(16), block(16, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class GroupShuffle(nn.Module):
    """ShuffleNet's first version: a shuffle between two grouped convolutions."""

    def __init__(self):
        super().__init__()
        self.one, self.two = block(4, 16, 1, groups=2), block(16, 16, 3, groups=16)
        self.three, self.stem = block(16, 8, 1, groups=2), block(3, 4)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        y = self.three(self.two(shuffle(self.one(self.stem(x)), 2)))
        return self.head(y.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.middle, self.up = block(3, 8), block(8, 12), nn.ConvTranspose2d(12, 8, 2, 2)
        self.join, self.last = block(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        down = self.down(x)
        up = self.up(self.middle(F.max_pool2d(down, 2)))
        y = self.join(torch.cat([down, up], 1))
        y = F.interpolate(F.max_pool2d(y, 2), scale_factor=2, mode="nearest")
        return self.last(y)


class UNetResized(UNet):
    def forward(self, x):
        down = self.down(x)
        up = self.up(self.middle(F.max_pool2d(down, 2)))
        up = F.interpolate(up, size=down.shape[-2:], mode="bilinear", align_corners=False)
        return self.last(self.join(torch.cat([down, up], 1)))


class ConvNeXtBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.scale = nn.LayerNorm(channels), nn.Parameter(torch.rand(channels))
        self.one, self.two = nn.Linear(channels, 3 * channels), nn.Linear(3 * channels, channels)

    def forward(self, x):
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        y = self.scale * self.two(F.gelu(self.one(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext():
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8), ConvNeXtBlock(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


class GroupNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.PReLU(12),
            nn.Conv2d(12, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.SiLU(),
            nn.Conv2d(8, 8, 1), nn.PixelShuffle(2), nn.Conv2d(2, 5, 1),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


class Generator(nn.Module):
    """DCGAN."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.ConvTranspose2d(6, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, groups=4), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)
