"""Networks whose channels part and join: Inception, YOLO."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def unit(inputs, outputs, kernel=1, stride=1, activation=nn.ReLU):
    """A convolution with normalization; kernels may be of two sizes."""
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, sizes, stride, [k // 2 for k in sizes], bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )


class InceptionBlock(nn.Module):
    """Four branches, one of them with 1 x 3 and 3 x 1 side by side."""

    def __init__(self, inputs):
        super().__init__()
        self.one = unit(inputs, 6)
        self.five = nn.Sequential(unit(inputs, 4), unit(4, 6, 5))
        self.stem = unit(inputs, 5)
        self.wide, self.high = unit(5, 4, (1, 3)), unit(5, 4, (3, 1))
        self.pool = unit(inputs, 4)

    def forward(self, x):
        middle = self.stem(x)
        three = torch.cat([self.wide(middle), self.high(middle)], 1)
        pooled = self.pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.one(x), self.five(x), three, pooled], 1)


def inception():
    return nn.Sequential(
        unit(3, 8, 3, 2), InceptionBlock(8), InceptionBlock(24), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Dropout(), nn.Linear(24, 5),
    )  # fmt: skip


class C2f(nn.Module):
    """YOLOv8's block: halves, a chain behind one of them, all of it joined."""

    def __init__(self, inputs, outputs, half):
        super().__init__()
        self.one = unit(inputs, 2 * half, activation=nn.SiLU)
        self.chain = nn.ModuleList(
            nn.Sequential(unit(half, half, 3, activation=nn.SiLU), unit(half, half, 3))
            for _ in range(2)
        )
        self.two = unit(4 * half, outputs, activation=nn.SiLU)

    def forward(self, x):
        parts = list(self.one(x).chunk(2, 1))
        for layer in self.chain:
            parts.append(parts[-1] + layer(parts[-1]))
        return self.two(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """YOLO's spatial pyramid: the same pool three times, joined."""

    def __init__(self, channels, half):
        super().__init__()
        self.one, self.two = unit(channels, half), unit(4 * half, channels)

    def forward(self, x):
        parts = [self.one(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.two(torch.cat(parts, 1))


class YOLO(nn.Module):
    """A backbone, a way up, two heads for boxes and classes, and the boxes decoded."""

    def __init__(self, classes=3, bins=4):
        super().__init__()
        self.classes, self.bins = classes, bins
        self.stem, self.low = unit(3, 8, 3, 2, nn.SiLU), C2f(8, 8, 4)
        self.down, self.high = unit(8, 12, 3, 2, nn.SiLU), C2f(12, 12, 6)
        self.pyramid, self.up = Pyramid(12, 6), C2f(20, 10, 4)
        self.boxes = nn.ModuleList(
            nn.Sequential(unit(c, 6, 3), nn.Conv2d(6, 4 * bins, 1)) for c in (10, 12)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(unit(c, 7, 3), nn.Conv2d(7, classes, 1)) for c in (10, 12)
        )
        self.register_buffer("steps", torch.arange(bins, dtype=torch.float32))

    def forward(self, x):
        low = self.low(self.stem(x))
        high = self.pyramid(self.high(self.down(low)))
        features = [self.up(torch.cat([F.interpolate(high, scale_factor=2.0), low], 1)), high]
        heads = [
            torch.cat([boxes(f), scores(f)], 1).flatten(2)
            for f, boxes, scores in zip(features, self.boxes, self.scores, strict=True)
        ]
        boxes, scores = torch.cat(heads, 2).split([4 * self.bins, self.classes], 1)
        n, _, places = boxes.shape
        spread = boxes.view(n, 4, self.bins, places).softmax(2)
        sides = (spread * self.steps.view(1, 1, -1, 1)).sum(2)
        return torch.cat([sides, scores.sigmoid()], 1)
