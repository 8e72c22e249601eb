"""Writing operators in the forms that onnxruntime-training 1.19.2 differentiates correctly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import TensorProto

from ....errors import UsageError
from ...builder import GraphBuilder
from ...contrib import DOMAIN
from ...gradients.registry import Node

__all__ = ["REWRITES", "Rewrite"]

#: Appends, instead of a node, others that compute its outputs under the same names.
Rewrite = Callable[[GraphBuilder, Node], None]


def keep(b: GraphBuilder, node: Node) -> None:
    """Append the node as it is."""
    b.graph.node.append(node.proto)
    b.values.add_node(node.proto)


# ---- what gradients take for granted -------------------------------------------------------


def _layer_normalization(b: GraphBuilder, node: Node) -> None:
    """Its gradient reads the mean and the deviation, and takes for granted that it has a bias."""
    if node.input(2) is None:
        scale = b.static_shape(node.inputs[1])
        if scale is None:
            raise _refusal(node, "the size of its scale is unknown")
        inputs = [*node.inputs[:2], b.constant(np.zeros(scale, np.float32))]
        del node.proto.input[:]
        node.proto.input.extend(inputs)
    keep(b, node)
    added = Node(b.graph.node[-1], node.label, ())
    for index in range(3):
        added.output(b, index)


def _transpose(b: GraphBuilder, node: Node) -> None:
    """Its gradient reads `perm`, which may be left out."""
    rank = b.rank(node.inputs[0])
    order = node.attribute("perm", list(reversed(range(rank))))
    b.op("Transpose", node.inputs[0], name=node.outputs[0], perm=order)


def _dropout(b: GraphBuilder, node: Node) -> None:
    """Dropout outside of training is the identity."""
    mode = b.constant_value(node.input(2))
    if node.input(2) is not None and (mode is None or mode.item()):
        raise _refusal(node, "a resumed run could not repeat what it drops")
    b.op("Identity", node.inputs[0], name=node.outputs[0])


# ---- padding -------------------------------------------------------------------------------


def _explicit_padding(b: GraphBuilder, node: Node) -> None:
    """Sizes instead of `auto_pad`, which the gradients ignore."""
    mode = node.attribute("auto_pad", "NOTSET")
    keep(b, node)
    if mode == "NOTSET":
        return
    proto = b.graph.node[-1]
    kept = [a for a in proto.attribute if a.name not in ("auto_pad", "pads")]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    if mode != "VALID":
        pads = proto.attribute.add(name="pads")
        pads.ints.extend(_same_padding(b, node, at_end=mode == "SAME_UPPER"))
        pads.type = pads.INTS


def _same_padding(b: GraphBuilder, node: Node, *, at_end: bool) -> list[int]:
    """What SAME_UPPER (the odd one at the end) or SAME_LOWER adds: starts, then ends."""
    kernel = _kernel(b, node)
    count = len(kernel)
    strides = node.attribute("strides", [1] * count)
    dilations = node.attribute("dilations", [1] * count)
    shape = b.shape(node.inputs[0])
    starts, ends = [], []
    for axis in range(count):
        size = shape[axis + 2] if shape is not None else None
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if strides[axis] == 1:
            total = reach - 1
        elif isinstance(size, int):
            covered = (-(-size // strides[axis]) - 1) * strides[axis] + reach
            total = max(covered - size, 0)
        else:
            raise _refusal(node, "auto_pad with strides needs a known image size")
        less = total // 2
        starts.append(less if at_end else total - less)
        ends.append(total - less if at_end else less)
    return starts + ends


def _kernel(b: GraphBuilder, node: Node) -> Sequence[int]:
    given: list[int] | None = node.attribute("kernel_shape", None)
    if given is not None:
        return given
    weight = b.static_shape(node.inputs[1]) if node.op_type == "Conv" else None
    if weight is None:
        raise _refusal(node, "the kernel's size is unknown")
    return weight[2:]


def _average_pool(b: GraphBuilder, node: Node) -> None:
    """A convolution of each channel with equal weights.

    The gradient of AveragePool takes the batch size from the graph, is killed by SIGFPE where it
    is unknown there, and ignores dilations.
    """
    x, kernel = node.inputs[0], node.attribute("kernel_shape", [1])
    shape = b.shape(x)
    channels = shape[1] if shape is not None else None
    if not isinstance(channels, int):
        raise _refusal(node, "the number of its channels is unknown")
    if node.attribute("ceil_mode", 0):
        raise _refusal(node, "ceil_mode has no gradient there")
    pads = node.attribute("pads", [0] * 2 * len(kernel))
    mode = node.attribute("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        pads = _same_padding(b, node, at_end=mode == "SAME_UPPER")
    if any(pads) and not node.attribute("count_include_pad", 0):
        raise _refusal(node, "padding that does not count has no gradient there")
    weight = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
    b.op(
        "Conv",
        x,
        b.constant(weight),
        name=node.outputs[0],
        group=channels,
        pads=pads,
        strides=node.attribute("strides", None),
        dilations=node.attribute("dilations", None),
    )


# ---- operators written by way of others ----------------------------------------------------


def _batch_normalization(b: GraphBuilder, node: Node) -> None:
    """Frozen statistics: (x - mean) * (scale / sqrt(variance + epsilon)) + bias."""
    if node.attribute("training_mode", 0):
        raise _refusal(node, "its running statistics cannot be read back")
    x, scale, bias, mean, variance = node.inputs
    epsilon = b.scalar(node.attribute("epsilon", 1e-5), variance)
    root = b.op("Sqrt", b.op("Add", variance, epsilon))
    channels = [1, -1] + [1] * (b.rank(x) - 2)
    factor, shift, centre = (
        b.reshape(name, channels) for name in (b.op("Div", scale, root), bias, mean)
    )
    centred = b.op("Sub", x, centre)
    b.op("Add", b.op("Mul", centred, factor), shift, name=node.outputs[0])


def _hard_sigmoid(b: GraphBuilder, node: Node) -> None:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    _clipped_line(b, node.inputs[0], alpha, beta, node.outputs[0])


def _hard_swish(b: GraphBuilder, node: Node) -> None:
    x = node.inputs[0]
    b.op("Mul", x, _clipped_line(b, x, 1 / 6, 0.5), name=node.outputs[0])


def _clipped_line(b: GraphBuilder, x: str, alpha: float, beta: float, name: str = "") -> str:
    line = b.op("Add", b.op("Mul", x, b.scalar(alpha, x)), b.scalar(beta, x))
    return b.op("Clip", line, b.scalar(0, x), b.scalar(1, x), name=name)


def _swish(b: GraphBuilder, node: Node) -> None:
    x = node.inputs[0]
    scaled = b.op("Mul", x, b.scalar(node.attribute("alpha", 1.0), x))
    b.op("Mul", x, b.op("Sigmoid", scaled), name=node.outputs[0])


def _prelu(b: GraphBuilder, node: Node) -> None:
    x, slope = node.inputs
    negative = b.op("Mul", slope, b.op("Relu", b.op("Neg", x)))
    b.op("Sub", b.op("Relu", x), negative, name=node.outputs[0])


def _softplus(b: GraphBuilder, node: Node) -> None:
    """max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    x = node.inputs[0]
    small = b.op("Exp", b.op("Neg", b.op("Abs", x)))
    tail = b.op("Log", b.op("Add", small, b.scalar(1, x)))
    b.op("Add", b.op("Relu", x), tail, name=node.outputs[0])


def _elu(b: GraphBuilder, node: Node) -> None:
    """max(x, 0) + alpha (exp(min(x, 0)) - 1); the minimum keeps the exponential finite."""
    x = node.inputs[0]
    power = b.op("Exp", b.op("Neg", b.op("Relu", b.op("Neg", x))))
    below = b.op("Sub", power, b.scalar(1, x))
    scaled = b.op("Mul", below, b.scalar(node.attribute("alpha", 1.0), x))
    b.op("Add", b.op("Relu", x), scaled, name=node.outputs[0])


def _sum(b: GraphBuilder, node: Node) -> None:
    _added(b, node.inputs, node.outputs[0])


def _mean(b: GraphBuilder, node: Node) -> None:
    total = _added(b, node.inputs)
    b.op("Mul", total, b.scalar(1 / len(node.inputs), total), name=node.outputs[0])


def _added(b: GraphBuilder, names: Sequence[str], output: str = "") -> str:
    if len(names) == 1:
        return b.op("Identity", names[0], name=output)
    total = names[0]
    for position, name in enumerate(names[1:], 2):
        total = b.op("Add", total, name, name=output if position == len(names) else "")
    return total


def _reduce_l1(b: GraphBuilder, node: Node) -> None:
    b.op(
        "ReduceSum",
        b.op("Abs", node.inputs[0]),
        node.input(1),
        name=node.outputs[0],
        keepdims=node.attribute("keepdims", 1),
        noop_with_empty_axes=node.attribute("noop_with_empty_axes", 0),
    )


def _rms_normalization(b: GraphBuilder, node: Node) -> None:
    x, scale = node.inputs
    rank = b.rank(x)
    axis = node.attribute("axis", -1) % rank
    axes = b.constant(np.arange(axis, rank, dtype=np.int64))
    mean = b.op("ReduceMean", b.op("Mul", x, x), axes, keepdims=1)
    root = b.op("Sqrt", b.op("Add", mean, b.scalar(node.attribute("epsilon", 1e-5), x)))
    b.op("Mul", b.op("Div", x, root), scale, name=node.outputs[0])


def _gelu(b: GraphBuilder, node: Node) -> None:
    """The tanh form has a gradient as FastGelu; that of Gelu is always the exact form's."""
    if node.attribute("approximate", "none") == "tanh":
        b.op("FastGelu", node.inputs[0], domain=DOMAIN, name=node.outputs[0])
    else:
        keep(b, node)


def _whole_numbers(b: GraphBuilder, node: Node) -> None:
    """Sums and products modulo 2^64 of unsigned numbers, by way of signed ones: the same bits.

    Dropout's masks are computed with them; there are kernels for signed numbers only.
    """
    if b.values.dtype(node.inputs[0]) != TensorProto.UINT64:
        keep(b, node)
        return
    signed = [b.op("Cast", name, to=TensorProto.INT64) for name in node.inputs]
    result = b.op(node.op_type, *signed)
    b.op("Cast", result, name=node.outputs[0], to=TensorProto.UINT64)


def _refusal(node: Node, reason: str) -> UsageError:
    return UsageError(
        f"the engine onnxruntime-training cannot train {node.op_type} '{node.label}': {reason}; "
        "use the default engine for this model"
    )


REWRITES: dict[str, Rewrite] = {
    "Add": _whole_numbers,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _explicit_padding,
    "Dropout": _dropout,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Gelu": _gelu,
    "LayerNormalization": _layer_normalization,
    "MaxPool": _explicit_padding,
    "Mean": _mean,
    "Mul": _whole_numbers,
    "PRelu": _prelu,
    "RMSNormalization": _rms_normalization,
    "ReduceL1": _reduce_l1,
    "Softplus": _softplus,
    "Sum": _sum,
    "Swish": _swish,
    "Transpose": _transpose,
}
