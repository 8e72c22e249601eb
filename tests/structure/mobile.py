"""Small convolutional networks for phones, and those with squeeze and excitation in each block."""

from __future__ import annotations

import torch
from torch import nn


class SqueezeExcite(nn.Module):
    """As in MobileNetV3 and EfficientNet, which differ in the last activation."""

    def __init__(self, channels, gate):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.one, self.two = nn.Conv2d(channels, 6, 1), nn.Conv2d(6, channels, 1)
        self.middle, self.gate = nn.ReLU(), gate

    def forward(self, x):
        return x * self.gate(self.two(self.middle(self.one(self.pool(x)))))


class MobileBlock(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, activation, gate, drop=0.0):
        super().__init__()
        hidden = 3 * inputs
        self.same = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation(),
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), activation(), SqueezeExcite(hidden, gate()),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Dropout(drop),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x) if self.same else self.body(x)


def mobilenet_v3():
    options = (nn.Hardswish, nn.Hardsigmoid)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(),
        MobileBlock(8, 8, 3, 1, *options), MobileBlock(8, 12, 5, 2, *options),
        MobileBlock(12, 12, 5, 1, *options),
        nn.Conv2d(12, 20, 1, bias=False), nn.BatchNorm2d(20), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 16), nn.Hardswish(), nn.Linear(16, 5),
    )  # fmt: skip


def efficientnet():
    options = (nn.SiLU, nn.Sigmoid, 0.2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
        MobileBlock(8, 8, 3, 1, *options), MobileBlock(8, 12, 5, 2, *options),
        MobileBlock(12, 12, 5, 1, *options), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(12, 5),
    )  # fmt: skip


class BasicBlock(nn.Module):
    """ResNet-18's and ResNet-34's."""

    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.skip = nn.Sequential()
        if stride > 1:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


def resnet18():
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), BasicBlock(8, 8), BasicBlock(8, 8), BasicBlock(8, 12, 2),
        BasicBlock(12, 12), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip
