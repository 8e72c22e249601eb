"""Gradient of onnxruntime's convolution with an activation."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxprune.errors import ModelError
from tests.training.convolutions import ConvolutionCheck, convolve, draw

ACTIVATIONS = {
    "": ([], lambda z: z),
    "Relu": ([], lambda z: np.maximum(z, 0)),
    "LeakyRelu": ([0.25], lambda z: np.where(z > 0, z, 0.25 * z)),
    "Clip": ([-0.5, 1.5], lambda z: np.clip(z, -0.5, 1.5)),
    "HardSigmoid": ([0.3, 0.4], lambda z: np.clip(0.3 * z + 0.4, 0, 1)),
    "Sigmoid": ([], lambda z: 1 / (1 + np.exp(-z))),
    "Tanh": ([], np.tanh),
}


def fused(kind, parameters, function, *, bias=True, addend=False):
    shapes = [(1, 2, 4, 3), (2, 2, 3, 2), (2,) if bias else None, (1, 2, 4, 2) if addend else None]
    values = draw(shapes, seed=11)
    values["x1"] /= 6  # for results on both sides of every kink, and not far from it
    names = [f"x{i}" if shape else "" for i, shape in enumerate(shapes)]
    while not names[-1]:
        names.pop()
    attributes = {"activation": kind, "activation_params": parameters} if kind else {}
    if kind and not parameters:
        del attributes["activation_params"]
    node = helper.make_node(
        "FusedConv",
        names,
        ["y0"],
        name="node",
        domain="com.microsoft",
        pads=[1, 0, 1, 0],
        **attributes,
    )

    def reference(x, w, *rest):
        z = convolve(x, w, rest[0] if bias else None, pads=[1, 0, 1, 0])
        return function(z + rest[-1] if addend else z)

    return ConvolutionCheck(
        [node], values, ["y0"], reference=reference, modes=("static", "weights")
    )


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_fused_conv(kind):
    fused(kind, *ACTIVATIONS[kind]).check()


def test_fused_conv_whose_leaky_slope_is_zero():
    fused("LeakyRelu", [0.0], lambda z: np.maximum(z, 0)).check()


def test_fused_conv_with_addend():
    fused("Relu", *ACTIVATIONS["Relu"], addend=True).check()
    fused("Relu", *ACTIVATIONS["Relu"], bias=False, addend=True).check()


@pytest.mark.parametrize(
    ("kind", "parameters"),
    # of a falling slope the output does not tell on which side of 0 the input was
    [("Softplus", []), ("LeakyRelu", [-0.25])],
)
def test_fused_conv_with_another_activation(kind, parameters):
    with pytest.raises(ModelError, match=f"FusedConv 'node' has the activation '{kind}'"):
        fused(kind, parameters, np.tanh).gradients("static")
