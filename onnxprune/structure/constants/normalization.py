"""Normalization, pooling and reduction: what a constant channel becomes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...graph.attributes import find_attribute
from ..registry import Site
from .known import Known, known, wide
from .registry import Fact, constant


@constant("BatchNormalization")
def batch_normalization(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """scale (x - mean) / sqrt(var + epsilon) + bias; with a scale of zero, the bias alone."""
    if site.opset < 7 or site.integer("training_mode", 0) or not site.integer("spatial", 1):
        return [None]
    parameters = [fact for fact in operands[1:5] if fact is not None and fact.mask.all()]
    if len(parameters) < 4:
        return [None]
    rank = len(site.axes(0))
    shape = (1, -1, *(1 for _ in range(rank - 2)))
    scale, bias, mean, var = (wide(fact.values).reshape(shape) for fact in parameters)
    attribute = find_attribute(site.node, "epsilon")
    epsilon = 1e-5 if attribute is None else attribute.f
    x = operands[0] or Known(np.zeros((1,) * rank), np.zeros((1,) * rank, bool))
    with np.errstate(all="ignore"):
        values = scale * (wide(x.values) - mean) / np.sqrt(var + epsilon) + bias
    fixed = (scale == 0) & np.isfinite(mean) & (var >= 0)
    return [known(np.where(fixed, bias, values), x.mask | fixed)]


@constant("InstanceNormalization")
def instance_normalization(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Of zeros, the bias; the mean of other constants is rounded, and the rest blown up."""
    x, bias = operands[0], operands[2]
    if x is None or bias is None or not x.uniform_but(1):
        return [None]
    shape = (1, -1, *(1 for _ in x.mask.shape[2:]))
    values = wide(bias.values).reshape(shape)
    return [known(values, x.zero & bias.mask.reshape(shape))]


@constant("GlobalAveragePool", "GlobalMaxPool", "MaxPool")
def pool(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """The mean and the largest of equal elements; padding is smaller than all of them."""
    x = operands[0]
    return [x if x is not None and x.uniform(*range(2, x.mask.ndim)) else None]


@constant("AveragePool")
def average_pool(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """The mean of equal elements, unless zeros of the padding count; that of zeros in any case."""
    x = operands[0]
    if x is None or not x.uniform(*range(2, x.mask.ndim)):
        return [None]
    attribute = find_attribute(site.node, "pads")
    padded = attribute is not None and any(attribute.ints)
    padded |= site.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    counted = padded and site.integer("count_include_pad", 0)
    whole = not counted and not site.integer("ceil_mode", 0)
    return [x if whole else known(x.values, x.zero)]


@constant("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
def reduce(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Over axes along which all elements are equal."""
    x = operands[0]
    if x is None:
        return [None]
    rank = x.mask.ndim
    axes = site.numbers(1, "axes") if site.given(1, "axes") else []
    if axes is None:
        return [None]
    if not axes and site.integer("noop_with_empty_axes", 0):
        return [x]
    axes = [axis % rank for axis in axes] or list(range(rank))
    if not x.uniform(*axes):
        return [None]
    values, mask = wide(x.values), x.mask
    if site.node.op_type == "ReduceSum":
        dynamic = site.sizes.dynamic(site.node.input[0])
        shape = site.shape(0)
        if any(dynamic[axis] for axis in axes):
            mask = x.zero
        values = values * prod(shape[axis] for axis in axes)
    if not site.integer("keepdims", 1):
        left = tuple(size for axis, size in enumerate(mask.shape) if axis not in axes)
        values, mask = values.reshape(left), mask.reshape(left)
    return [known(values, mask)]
