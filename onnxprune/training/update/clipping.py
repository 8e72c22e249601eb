"""Clipping gradients by their global norm (Pascanu et al., 2013)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...errors import UsageError
from ..builder import GraphBuilder

__all__ = ["append_clipping"]

#: Added to the norm before it divides, as PyTorch's `clip_grad_norm_` does.
_EPSILON = 1e-6
#: Up to so many squares are summed by one operator: 2e-6 off in float32, but 1e-3 for 64 times as
#: many. More are summed in rows of at most so many columns first, which takes twice the time.
_ONE_SUM = 2**18
_COLUMNS = 1024


def append_clipping(b: GraphBuilder, gradients: Sequence[str], max_norm: float) -> list[str]:
    """Scale gradients down together where their norm, all taken as one vector, is too large.

    The factor is ``min(1, max_norm / (norm + 1e-6))``. Every element counts, so gradients of
    pruned weights should be masked before (`onnxprune.training.update.optimizers.mask_gradients`).

    Args:
        b: The graph.
        gradients: Names of float32 values of any shapes.
        max_norm: The largest norm that is let through.

    Returns:
        Names of the scaled gradients.

    Raises:
        UsageError: `max_norm` is not a positive number.
    """
    if not (math.isfinite(max_norm) and max_norm > 0):
        raise UsageError(f"the largest gradient norm is {max_norm}: give a positive number")
    if not gradients:
        return []
    with b.within("clipping"):
        squares = [_sum_of_squares(b, gradient) for gradient in gradients]
        norm = b.op("Sqrt", b.total(squares))
        padded = b.op("Add", norm, _scalar(b, _EPSILON))
        factor = b.op("Min", b.op("Div", _scalar(b, max_norm), padded), _scalar(b, 1))
        return [b.op("Mul", gradient, factor) for gradient in gradients]


def _sum_of_squares(b: GraphBuilder, gradient: str) -> str:
    size = math.prod(b.static_shape(gradient) or ())
    if size <= _ONE_SUM:
        return b.op("ReduceSumSquare", gradient, keepdims=0)
    columns = next(width for width in range(_COLUMNS, 0, -1) if size % width == 0)
    squares = b.op("Mul", gradient, gradient)
    sums = b.op("ReduceSum", b.reshape(squares, [-1, columns]), b.constant([1]), keepdims=0)
    return b.op("ReduceSum", sums, keepdims=0)


def _scalar(b: GraphBuilder, value: float) -> str:
    return b.constant(np.array(value, np.float32))
