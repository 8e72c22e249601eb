"""Forms of convolution gradients to choose from: those in use, and those that lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.gradients.convolution import flipped, pointwise
from onnxprune.training.gradients.correlation import FORMS, Sizes, channels_first, taps
from onnxprune.training.gradients.windows import Window, padded, transposed


@dataclass(frozen=True)
class Shape:
    """A convolution of square images with a square kernel."""

    batch: int
    inputs: int
    side: int
    outputs: int
    kernel: int
    stride: int = 1
    pad: int = 0
    group: int = 1

    @property
    def out(self) -> int:
        """Side of the output."""
        return (self.side + 2 * self.pad - self.kernel) // self.stride + 1

    @property
    def values(self) -> dict[str, tuple[int, ...]]:
        """Shapes of x, dy and w."""
        return {
            "x": (self.batch, self.inputs, self.side, self.side),
            "dy": (self.batch, self.outputs, self.out, self.out),
            "w": (self.outputs, self.inputs // self.group, self.kernel, self.kernel),
        }

    @property
    def window(self) -> Window:
        """How the kernel slides."""
        kernel, stride, pad = self.kernel, self.stride, self.pad
        return Window((kernel, kernel), (stride, stride), (1, 1), (pad,) * 4)


Form = Callable[[GraphBuilder, Shape], str]


def models(shape: Shape, towards: str) -> dict[str, ModelProto]:
    """A graph of every candidate that is possible, by name; "chosen" is what the rule appends."""
    found = {"chosen": _ruled(shape, towards)}
    for name, form in (_weight_forms() if towards == "w" else _input_forms()).items():
        model, builder = _empty(shape)
        try:
            result = form(builder, shape)
        except _ImpossibleError:
            continue
        found[name] = _finished(model, builder, result)
    return found


class _ImpossibleError(Exception):
    """A form does not exist for a shape."""


def _require(condition: bool) -> None:
    if not condition:
        raise _ImpossibleError


def _empty(shape: Shape) -> tuple[ModelProto, GraphBuilder]:
    inputs = [helper.make_tensor_value_info(name, 1, dims) for name, dims in shape.values.items()]
    graph = helper.make_graph([], "gradient", inputs, [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return model, GraphBuilder(model)


def _finished(model: ModelProto, builder: GraphBuilder, result: str) -> ModelProto:
    model.graph.output.append(helper.make_tensor_value_info(result, 1, None))
    return model


def _ruled(shape: Shape, towards: str) -> ModelProto:
    model, _ = _empty(shape)
    window = shape.window
    attributes: dict[str, Any] = {
        "strides": window.strides,
        "pads": window.pads,
        "group": shape.group,
    }
    model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["y"], **attributes))
    builder = GraphBuilder(model)
    gradient = pull_back(builder, {"y": "dy"}, [towards])[towards]
    del model.graph.node[0]
    return _finished(model, builder, gradient)


# ---- towards the weight ------------------------------------------------------------------------


def _weight_forms() -> dict[str, Form]:
    def in_use(name: str) -> Form:
        def form(b: GraphBuilder, s: Shape) -> str:
            _require(s.group == 1 or name in ("samples", "sample taps"))
            sizes = Sizes(s.outputs, s.inputs // s.group, s.out**2, s.group)
            return FORMS[name](b, "x", "dy", s.window, sizes)  # type: ignore[index]

        return form

    return {name: in_use(name) for name in FORMS} | {
        "slices, samples": _slices_by_samples,
        "slices, batch": _slices_by_batch,
        "NHWC taps": _nhwc_taps,
    }


def _slices_by_samples(b: GraphBuilder, s: Shape) -> str:
    """Slices side by side, a product per sample and group."""
    _require(s.kernel > 1)
    rows, columns, count = s.outputs // s.group, s.inputs // s.group, s.kernel**2
    parts = [b.reshape(part, [0, s.group, columns, -1]) for part in taps(b, "x", s.window)]
    right = b.swap_last(b.op("Concat", *parts, axis=2))
    product = b.op("MatMul", b.reshape("dy", [0, s.group, rows, -1]), right)
    summed = b.reshape(b.reduce_sum(product, [0]), [s.outputs, count, columns])
    return b.reshape(b.transpose(summed, [0, 2, 1]), s.values["w"])


def _slices_by_batch(b: GraphBuilder, s: Shape) -> str:
    """Slices side by side, one product over the batch."""
    _require(s.group == 1 and s.kernel > 1)
    parts = taps(b, channels_first(b, "x", s.window), s.window)
    patches = b.op("Concat", *(b.unsqueeze(part, [1]) for part in parts), axis=1)
    left = b.op("Flatten", channels_first(b, "dy", s.window), axis=1)
    product = b.op("Gemm", left, b.op("Flatten", patches, axis=2), transB=1)
    return b.reshape(product, s.values["w"])


def _nhwc_taps(b: GraphBuilder, s: Shape) -> str:
    """A product per kernel element over the batch, channels last."""
    _require(s.group == 1)
    x, window = padded(b, "x", s.window)
    last = [0, 2, 3, 1]
    left = b.reshape(b.transpose("dy", last), [-1, s.outputs])
    parts = [
        b.op("Gemm", left, b.reshape(b.transpose(part, last), [-1, s.inputs]), transA=1)
        for part in taps(b, x, window)
    ]
    joined = b.op("Concat", *parts, axis=1)
    cube = b.reshape(joined, [s.outputs, s.kernel**2, s.inputs])
    return b.reshape(b.transpose(cube, [0, 2, 1]), s.values["w"])


# ---- towards the input -------------------------------------------------------------------------


def _input_forms() -> dict[str, Form]:
    return {
        "ConvTranspose": lambda b, s: transposed(b, "dy", "w", s.window, "x", s.group),
        "flipped kernel": _flipped,
        "MatMul": _pointwise,
        "Col2Im": _columns_to_image,
    }


def _flipped(b: GraphBuilder, s: Shape) -> str:
    _require(s.stride == 1)
    return flipped(b, "dy", "w", s.window, s.group)


def _pointwise(b: GraphBuilder, s: Shape) -> str:
    _require(s.window.pointwise and s.group == 1)
    return pointwise(b, "dy", "w", "x")


def _columns_to_image(b: GraphBuilder, s: Shape) -> str:
    """What ConvTranspose does, in two nodes."""
    rows, window = s.outputs // s.group, s.window
    left = b.swap_last(b.reshape("w", [s.group, rows, -1]))
    columns = b.op("MatMul", left, b.reshape("dy", [s.batch, s.group, rows, -1]))
    columns = b.reshape(columns, [s.batch, s.inputs * s.kernel**2, -1])
    image, block = b.constant([s.side] * 2), b.constant(window.kernel)
    return b.op("Col2Im", columns, image, block, strides=window.strides, pads=window.pads)


def feeds(shape: Shape) -> dict[str, np.ndarray]:
    """Random x, dy and w."""
    random = np.random.default_rng(prod(shape.values["x"]))
    return {name: random.standard_normal(dims, np.float32) for name, dims in shape.values.items()}
