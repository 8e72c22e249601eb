"""Gradient of onnxruntime's convolution with an activation."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import ModelError
from ..builder import GraphBuilder
from .convolution import convolution_gradients
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("FusedConv", domain="com.microsoft")
def fused_conv(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """activation(Conv(x, W, B) + Z): dZ is the gradient behind the activation."""
    dy = _through_activation(b, node, str(grads[0]))
    return [*convolution_gradients(b, node, dy), dy]


def _through_activation(b: GraphBuilder, node: Node, dy: str) -> str:
    """dy times the slope of the activation, which follows from its output."""
    y, kind = node.outputs[0], node.attribute("activation", "")
    parameters: Sequence[float] = node.attribute("activation_params", [])

    def passed(low: float | None, high: float | None = None) -> str:
        inside = [
            b.op(op_type, y, b.scalar(bound, y))
            for op_type, bound in (("Greater", low), ("Less", high))
            if bound is not None
        ]
        return b.cast(inside[0] if len(inside) == 1 else b.op("And", *inside), dy)

    if kind == "":
        return dy
    if kind == "Relu":
        return b.op("Mul", dy, passed(0))
    if kind == "Clip":
        return b.op("Mul", dy, passed(parameters[0], parameters[1]))
    if kind == "HardSigmoid":
        slope = b.op("Mul", passed(0, 1), b.scalar(parameters[0], dy))
        return b.op("Mul", dy, slope)
    if kind == "LeakyRelu" and parameters[0] >= 0:
        beneath = b.op("Mul", dy, b.scalar(parameters[0], dy))
        return b.op("Where", b.op("Greater", y, b.scalar(0, y)), dy, beneath)
    if kind in ("Sigmoid", "Tanh"):
        squared = b.op("Mul", y, y)
        slope = b.op("Sub", y if kind == "Sigmoid" else b.scalar(1, y), squared)
        return b.op("Mul", dy, slope)
    raise ModelError(
        f"FusedConv '{node.label}' has the activation '{kind}' {list(parameters)}, which has no "
        "gradient here; train the model before onnxruntime optimises it"
    )
