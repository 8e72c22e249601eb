"""Reducing the gradient of a broadcast result to the shape of one of its operands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .builder import GraphBuilder

__all__ = ["unbroadcast"]


def unbroadcast(b: GraphBuilder, gradient: str, like: str) -> str:
    """Sum a gradient over the axes along which `like` was repeated.

    Decided now as far as shapes are known, at run time for the rest.
    """
    wide, narrow = b.shape(gradient), b.shape(like)
    if wide is None or narrow is None or len(narrow) > len(wide):
        return _of_any_rank(b, gradient, like)
    lead = len(wide) - len(narrow)
    ones = [lead + i for i, size in enumerate(narrow) if size == 1 and wide[lead + i] != 1]
    unsure = any(
        size is None or (isinstance(size, str) and size != wide[lead + i])
        for i, size in enumerate(narrow)
    )
    if not ones and not unsure:
        return b.reduce_sum(gradient, range(lead))
    reduced = b.reduce_sum(gradient, [*range(lead), *ones], keepdims=True)
    result = b.squeeze(reduced, range(lead))
    if unsure:
        axes = _unit_axes(b, b.shape_of(like))
        result = b.op("ReduceSum", result, axes, keepdims=1, noop_with_empty_axes=1)
    b.values.declare(result, like)
    return result


def _unit_axes(b: GraphBuilder, shape: str) -> str:
    """Positions at which a shape vector is 1, at run time."""
    found = b.op("NonZero", b.op("Equal", shape, b.constant(np.array(1, np.int64))))
    return b.op("Reshape", found, b.constant([-1]))


def _of_any_rank(b: GraphBuilder, gradient: str, like: str) -> str:
    """`unbroadcast` where ranks are only known at run time."""
    shape = b.shape_of(like)
    missing = b.op("Sub", b.op("Shape", b.shape_of(gradient)), b.op("Shape", shape))
    ones = b.op("Expand", b.constant([1]), missing)
    axes = _unit_axes(b, b.op("Concat", ones, shape, axis=0))
    summed = b.op("ReduceSum", gradient, axes, keepdims=1, noop_with_empty_axes=1)
    result = b.op("Reshape", summed, shape, allowzero=1)
    b.values.declare(result, like)
    return result
