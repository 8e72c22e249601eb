"""How operators of old opsets are written in new ones.

Complete for the ONNX standard up to opset 23: every version in which an operator's inputs,
outputs or attributes changed, unless old nodes are valid new ones. And a few operators that
onnxruntime still takes although the standard dropped them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from .site import Site

__all__ = ["CONVERSIONS", "Conversion"]

#: Changes a node in place and puts nodes in front of it.
Conversion = Callable[[Site], None]

#: For every operator its conversions, each with the opset from which on it is not needed;
#: applied one after the other, oldest first.
CONVERSIONS: dict[str, list[tuple[int, Conversion]]] = {}

#: From all opsets: what the standard dropped.
EVER = 1_000


def _until(version: int, *op_types: str) -> Callable[[Conversion], Conversion]:
    """Register the conversion of nodes older than an opset."""

    def register(conversion: Conversion) -> Conversion:
        for op_type in op_types:
            steps = CONVERSIONS.setdefault(op_type, [])
            steps.append((version, conversion))
            steps.sort(key=lambda step: step[0])
        return conversion

    return register


_IN_PLACE = """
    Abs Add BatchNormalization Ceil Clip Div Dropout Elu Exp Floor HardSigmoid InstanceNormalization
    LeakyRelu Log Max Mean Min Mul Neg PRelu Reciprocal Relu Selu Sigmoid Sqrt Sub Sum Tanh
"""


@_until(6, *_IN_PLACE.split())
def _consumed_inputs(site: Site) -> None:
    """A hint for memory reuse."""
    site.take("consumed_inputs", None)


@_until(7, "Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor")
def _broadcast(site: Site) -> None:
    """The second operand began at an axis of the first; now it is aligned at the end."""
    axis: int | None = site.take("axis", None)
    if not site.take("broadcast", 0) or axis is None:
        return
    wide, narrow = (len(site.shape(site.input(index))) for index in (0, 1))
    behind = wide - axis % max(wide, 1) - narrow
    if behind > 0:
        axes = site.constant(range(narrow, narrow + behind))
        site.node.input[1] = site.op("Unsqueeze", site.input(1), axes)


@_until(7, "PRelu")
def _slope_per_channel(site: Site) -> None:
    """One slope for every channel, whatever stands behind the channel axis."""
    slope = site.shape(site.input(1))
    if len(slope) != 1 or slope[0] == 1:
        return
    behind = len(site.shape(site.input(0))) - 2
    if behind > 0:
        axes = site.constant(range(1, 1 + behind))
        site.node.input[1] = site.op("Unsqueeze", site.input(1), axes)


@_until(7, "Gemm")
def _gemm(site: Site) -> None:
    site.take("broadcast", 0)


@_until(6, "Selu")
def _selu(site: Site) -> None:
    """The defaults had fewer digits."""
    for name, value in (("alpha", 1.6732), ("gamma", 1.0507)):
        site.set(name, float(site.take(name, value)))


@_until(7, "RNN", "GRU", "LSTM")
def _output_sequence(site: Site) -> None:
    """Said whether the first output is wanted, which its name says too."""
    site.take("output_sequence", 0)


@_until(6, "Cast")
def _cast(site: Site) -> None:
    """The type was a string."""
    to = site.take("to", "")
    types = dict(TensorProto.DataType.items())
    if to not in types:
        raise site.refusal(f"'{to}' is not an element type")
    site.set("to", types[to])


@_until(4, "Concat")
def _concat(site: Site) -> None:
    site.set("axis", site.take("axis", 1))


@_until(2, "GlobalLpPool", "LpPool")
def _whole_norm(site: Site) -> None:
    """The norm was a float."""
    p = site.take("p", 2.0)
    if p != int(p):
        raise site.refusal(f"newer opsets have no norm {p}")
    site.set("p", int(p))


@_until(5, "Reshape")
def _reshape(site: Site) -> None:
    site.take("consumed_inputs", None)
    site.add_input(1, site.constant(site.take("shape", [])))


@_until(6, "Tile")
def _tile(site: Site) -> None:
    """Repeated one axis."""
    tiles, axis = (
        site.op("Reshape", site.op("Cast", site.input(index), to=TensorProto.INT64), one)
        for one in [site.constant([1])]
        for index in (1, 2)
    )
    rank = site.op("Shape", site.op("Shape", site.input(0)))
    ones = site.op("Expand", site.constant([1]), rank)
    site.become("Tile", site.input(0), site.op("ScatterElements", ones, axis, tiles))


# ---- attributes that became inputs ---------------------------------------------------------


@_until(11, "Clip")
def _clip(site: Site) -> None:
    for index, name in ((1, "min"), (2, "max")):
        bound: float | None = site.take(name, None)
        if bound is not None:
            site.add_input(index, site.scalar(bound, site.input(0)))


@_until(12, "Dropout")
def _dropout(site: Site) -> None:
    """Active in training only, which the runtime decided; the ratio was an attribute."""
    site.take("is_test", 0)
    if any(name in site.known.read for name in site.node.output[1:]) and site.version < 10:
        raise site.refusal("its mask is read, and was not one of booleans")
    if site.version < 10:
        del site.node.output[1:]
    site.add_input(1, site.constant(site.take("ratio", 0.5), np.float32))


@_until(2, "Pad")
def _paddings(site: Site) -> None:
    pads: list[int] | None = site.take("paddings", None)
    if pads:
        site.set("pads", pads)


@_until(11, "Pad")
def _pad(site: Site) -> None:
    pads: list[int] = site.take("pads", [])
    value = site.take("value", 0.0)
    site.add_input(1, site.constant(pads))
    if value:
        site.add_input(2, site.scalar(value, site.input(0)))


@_until(10, "Slice")
def _slice(site: Site) -> None:
    for index, name in ((1, "starts"), (2, "ends"), (3, "axes")):
        values: list[int] | None = site.take(name, None)
        if values is not None:
            site.add_input(index, site.constant(values))


@_until(2, "Split")
def _split_lengths(site: Site) -> None:
    """The lengths could be an input, of the element type of what is split."""
    if site.input(1):
        lengths = site.op("Cast", site.input(1), to=TensorProto.INT64)
        site.take("split", None)
        site.node.input[1] = lengths


@_until(13, "Split")
def _split(site: Site) -> None:
    lengths: list[int] = site.take("split", [])
    if lengths:
        site.add_input(1, site.constant(lengths))


@_until(18, "Split")
def _split_evenly(site: Site) -> None:
    if not site.input(1):
        site.set("num_outputs", len(site.node.output))


@_until(13, "Squeeze", "Unsqueeze", "ReduceSum")
def _axes(site: Site) -> None:
    axes: list[int] = site.take("axes", [])
    if axes:
        site.add_input(1, site.constant(axes))


@_until(
    18,
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
)
def _reduced_axes(site: Site) -> None:
    _axes(site)


@_until(10, "TopK")
def _top_k(site: Site) -> None:
    site.add_input(1, site.constant([site.take("k", 0)]))


@_until(20, "DFT")
def _transformed_axis(site: Site) -> None:
    site.add_input(2, site.constant(site.take("axis", 1)))


# ---- operators whose meaning changed -------------------------------------------------------


@_until(13, "Softmax", "LogSoftmax", "Hardmax")
def _flattened(site: Site) -> None:
    """Worked on the matrix that is left when all axes from `axis` on are made one."""
    x, op_type = site.input(0), site.node.op_type
    axis = site.take("axis", 1)
    shape = site.known.shape(x)
    if axis == -1 or (shape is not None and axis == len(shape) - 1):
        site.set("axis", -1)
        return
    if shape is not None and all(size == 1 for size in shape[axis:][1:]):
        site.set("axis", axis)
        return
    flat = site.op(op_type, site.op("Flatten", x, axis=axis), axis=-1)
    site.become("Reshape", flat, site.op("Shape", x), allowzero=1)


@_until(14, "BatchNormalization")
def _batch_normalization(site: Site) -> None:
    """Training mode was told by the further outputs, statistics could be kept per element."""
    site.take("is_test", 0)
    if any(name in site.known.read for name in site.node.output[1:]):
        raise site.refusal("it returns batch statistics, so it is the training form")
    del site.node.output[1:]
    if site.take("spatial", 1):
        return
    x, scale, bias, mean, variance = site.node.input
    epsilon = site.scalar(site.take("epsilon", 1e-5), x)
    deviation = site.op("Sqrt", site.op("Add", variance, epsilon))
    normal = site.op("Div", site.op("Sub", x, mean), deviation)
    site.become("Add", site.op("Mul", normal, scale), bias)


@_until(21, "GroupNormalization")
def _group_normalization(site: Site) -> None:
    """Scale and bias were given once for every group, now for every channel."""
    groups = int(site.take("num_groups", 0))
    channels = (*site.shape(site.input(0)), None, None)[1]
    if channels is None:
        raise site.refusal("its number of channels is unknown; run ONNX shape inference")
    site.set("num_groups", groups)
    if groups == channels:
        return
    flat, column = site.constant([-1]), site.constant([-1, 1])
    each = site.constant([groups, channels // groups])
    for index in (1, 2):
        wide = site.op("Expand", site.op("Reshape", site.input(index), column), each)
        site.node.input[index] = site.op("Reshape", wide, flat)


@_until(7, "Upsample")
def _upsample_height_width(site: Site) -> None:
    """Two scales in the middle of the words."""
    scales = [1.0, 1.0, site.take("height_scale", 1.0), site.take("width_scale", 1.0)]
    site.set("scales", scales)


@_until(9, "Upsample")
def _upsample_scales(site: Site) -> None:
    site.add_input(1, site.constant(site.take("scales", [1.0]), np.float32))


@_until(EVER, "Upsample")
def _upsample(site: Site) -> None:
    """Resize of old."""
    mode = site.take("mode", "nearest")
    _resize_from_corner(site, "linear" if mode == "bilinear" else mode, "floor")


@_until(11, "Resize")
def _resize(site: Site) -> None:
    """As Upsample, but onnxruntime rounds up where it makes smaller."""
    mode = site.take("mode", "nearest")
    scales = site.known.constants.get(site.input(1), np.ones(1))
    smaller = bool((scales < 1).any())
    if mode == "nearest" and smaller and (scales > 1).any():
        raise site.refusal("it makes one axis larger and another one smaller")
    _resize_from_corner(site, mode, "ceil" if smaller else "floor")


def _resize_from_corner(site: Site, mode: str, rounding: str) -> None:
    x, scales = site.input(0), site.input(1)
    nearest = {"nearest_mode": rounding} if mode == "nearest" else {}
    site.become(
        "Resize", x, "", scales, mode=mode, coordinate_transformation_mode="asymmetric", **nearest
    )


@_until(13, "Resize")
def _resize_tensorflow(site: Site) -> None:
    mode = site.take("coordinate_transformation_mode", "half_pixel")
    if mode == "tf_half_pixel_for_nn":
        raise site.refusal("newer opsets have no coordinates 'tf_half_pixel_for_nn'")
    site.set("coordinate_transformation_mode", mode)


@_until(EVER, "Scatter")
def _scatter(site: Site) -> None:
    site.node.op_type = "ScatterElements"


@_until(20, "GridSample")
def _grid_sample(site: Site) -> None:
    mode = site.take("mode", "bilinear")
    site.set("mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


@_until(22, "GlobalLpPool")
def _global_norm(site: Site) -> None:
    """As a reduction: onnxruntime 1.32 has no kernel of the newest version."""
    x, p = site.input(0), site.take("p", 2)
    axes = site.constant(range(2, len(site.shape(x))))
    if p in (1, 2):
        site.become(f"ReduceL{p}", x, axes, keepdims=1)
        return
    powers = site.op("Pow", site.op("Abs", x), site.scalar(p, x))
    total = site.op("ReduceSum", powers, axes, keepdims=1)
    site.become("Pow", total, site.scalar(1 / p, x))


@_until(
    22,
    *("MaxRoiPool", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    *("RandomUniformLike", "RoiAlign"),
)
def _without_kernel(site: Site) -> None:
    raise site.refusal("onnxruntime 1.32 has no kernel of it for opset 22 and newer")


@_until(9, "Scan")
def _scan(site: Site) -> None:
    raise site.refusal("it scans a batch; export the model with opset 9 or newer")


# ---- operators that the standard dropped and onnxruntime still has -------------------------


@_until(EVER, "Affine")
def _affine(site: Site) -> None:
    x = site.input(0)
    scaled = site.op("Mul", x, site.scalar(site.take("alpha", 1.0), x))
    site.become("Add", scaled, site.scalar(site.take("beta", 0.0), x))


@_until(EVER, "ScaledTanh")
def _scaled_tanh(site: Site) -> None:
    x = site.input(0)
    inner = site.op("Mul", x, site.scalar(site.take("beta", 1.0), x))
    site.become("Mul", site.op("Tanh", inner), site.scalar(site.take("alpha", 1.0), x))


@_until(EVER, "ParametricSoftplus")
def _parametric_softplus(site: Site) -> None:
    x = site.input(0)
    inner = site.op("Mul", x, site.scalar(site.take("beta", 1.0), x))
    site.become("Mul", site.op("Softplus", inner), site.scalar(site.take("alpha", 1.0), x))


@_until(EVER, "Scale")
def _scale(site: Site) -> None:
    x = site.input(0)
    site.become("Mul", x, site.scalar(site.take("scale", 1.0), x))


@_until(EVER, "ImageScaler")
def _image_scaler(site: Site) -> None:
    """A scale for all, a bias for every channel."""
    x = site.input(0)
    bias: list[float] = list(site.take("bias", []))
    scaled = site.op("Mul", x, site.scalar(site.take("scale", 1.0), x))
    if not bias:
        site.become("Identity", scaled)
        return
    site.become("Add", scaled, site.scalar([[[value]] for value in bias], x))


@_until(EVER, "Crop")
def _crop(site: Site) -> None:
    """Cuts left, top, right, bottom of an image; with a scale, to that height and width."""
    left, top, right, bottom = site.take("border", [0, 0, 0, 0])
    scale: list[int] | None = site.take("scale", None)
    far = 2**31 - 1
    ends = [-bottom or far, -right or far]
    if scale is not None:
        ends = [top + scale[0], left + scale[1]]
    cut = (site.constant(values) for values in ([top, left], ends, [2, 3]))
    site.become("Slice", site.input(0), *cut)
