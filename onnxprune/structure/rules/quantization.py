"""Quantized tensors: scales and zero points by channel follow the channels."""

from __future__ import annotations

from ..atoms import Labels
from ..registry import Axes, Site, rule
from .convolution import finish, grouped
from .joining import joined
from .matmul import product

_DOMAIN = "com.microsoft"


@rule("DequantizeLinear", "QuantizeLinear")
@rule("DequantizeLinear", "QuantizeLinear", domain=_DOMAIN)
def linear(site: Site) -> None:
    """A vector of scales and one of zero points run along the axis."""
    x = site.axes(0)
    if site.integer("block_size", 0):
        site.barrier("has one scale for several indices")
    for index in (1, 2):
        if site.has(index) and len(site.axes(index)) == 1:
            _by_channel(site, index, x[site.integer("axis", 1)])
    site.set(x)


@rule("DynamicQuantizeLinear")
def dynamic(site: Site) -> None:
    """The scale is that of the whole tensor."""
    site.barrier("has one scale that depends on all elements")


def _by_channel(site: Site, index: int, channels: Labels) -> None:
    """A scale or zero point: one for all, or one by channel."""
    if site.has(index) and site.axes(index) and len(site.axes(index)[-1]) > 1:
        site.unify(channels, site.axes(index)[-1])


@rule("QLinearConv")
def convolution(site: Site) -> None:
    """Operands are tensor, scale, zero point, twice, those of the result, and the bias."""
    x, w = site.axes(0), site.axes(3)
    out = grouped(site, x[1], w[1], w[0], site.integer("group", 1))
    for index in (4, 5):
        _by_channel(site, index, w[0])
    finish(site, x, w, out, bias=8)


@rule("ConvInteger")
def whole_convolution(site: Site) -> None:
    """Without scales and bias; zero points may be by channel of the weight."""
    x, w = site.axes(0), site.axes(1)
    out = grouped(site, x[1], w[1], w[0], site.integer("group", 1))
    _by_channel(site, 3, w[0])
    finish(site, x, w, out, bias=4)


@rule("MatMulInteger")
def whole_matmul(site: Site) -> None:
    """Zero points of the first operand may be by row, of the second by column."""
    a, b = site.axes(0), site.axes(1)
    if site.has(2) and site.axes(2) and site.shape(2) != (1,):
        site.barrier("has a zero point for each row")
    _by_channel(site, 3, b[-1])
    product(site, a, b)


@rule("QLinearMatMul")
def quantized_matmul(site: Site) -> None:
    """Operands are tensor, scale, zero point, three times, the last without tensor."""
    if any(site.axes(index) and site.shape(index) != (1,) for index in (1, 2, 6, 7)):
        site.barrier("has a scale for each row")
    for index in (4, 5):
        _by_channel(site, index, site.axes(3)[-1])
    product(site, site.axes(0), site.axes(3))


@rule("MatMulIntegerToFloat", domain=_DOMAIN)
def matmul_to_float(site: Site) -> None:
    """Two tensors, two scales, two zero points, a bias along the columns."""
    b = site.axes(1)
    for index in (3, 5, 6):
        _by_channel(site, index, b[-1])
    product(site, site.axes(0), b)


@rule("DynamicQuantizeMatMul", domain=_DOMAIN)
def dynamic_matmul(site: Site) -> None:
    """The scale of the first operand depends on all its elements; columns of the second can go."""
    a, b = site.axes(0), site.axes(1)
    for labels in a:
        site.freeze(labels, "has one scale that depends on all elements")
    for index in (2, 3, 4):
        _by_channel(site, index, b[-1])
    product(site, a, b)


@rule("QGemm", domain=_DOMAIN)
def quantized_gemm(site: Site) -> None:
    """Tensor, scale, zero point, twice; bias; scale and zero point of the result."""
    a, b = site.axes(0), site.axes(3)
    a = a[::-1] if site.integer("transA", 0) else a
    b = b[::-1] if site.integer("transB", 0) else b
    for index in (4, 5, 6):
        _by_channel(site, index, b[1])
    product(site, a, b)


@rule("QLinearAdd", "QLinearMul", domain=_DOMAIN)
def binary(site: Site) -> None:
    """Aligned axes of the tensors, operands 0 and 3, are equal."""
    site.set(site.broadcast([site.axes(0), site.axes(3)]))


@rule("QLinearLeakyRelu", "QLinearSigmoid", domain=_DOMAIN)
def unary(site: Site) -> None:
    """The result is cut as the operand is."""
    site.set(site.axes(0))


@rule("QLinearConcat", domain=_DOMAIN)
def concat(site: Site) -> None:
    """Scale and zero point of the result come first, then every operand with its own."""
    operands: list[Axes] = [site.axes(index) for index in range(2, len(site.node.input), 3)]
    axis = site.integer("axis", 0) % len(operands[0])
    site.set(joined(site, operands, axis))


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=_DOMAIN)
def pool(site: Site) -> None:
    """Samples and channels pass; the spatial axes stay."""
    x, shape = list(site.axes(0)), site.output_shape()
    last = site.integer("channels_last", 0)
    for axis in range(1, len(x) - 1) if last else range(2, len(x)):
        site.freeze(x[axis], "slides over the axis")
        x[axis] = site.fixed(shape[axis], "slides over the axis")
    site.set(x)


@rule("DynamicQuantizeLSTM", "MatMulBnb4", "MatMulNBits", domain=_DOMAIN)
def packed(site: Site) -> None:
    """Several weights share a byte or a scale."""
    site.barrier("has packed weights of which no channel can be cut out")
