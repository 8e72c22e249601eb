"""What pruning should leave of integer codes, counted apart from the product's code.

The value of a code is (code - zero point) x scale; a code whose value is below the threshold
becomes its zero point. Computed in float64 on whole arrays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from .constants import Constant, Key, constants
from .weights import Count

__all__ = ["expected_codes"]

#: For each input of codes: inputs of its scale (-1 for none) and zero point, and their axis.
CODES: Mapping[str, Mapping[int, tuple[int, int, int]]] = {
    "QLinearConv": {3: (4, 5, 0)},
    "QLinearMatMul": {0: (1, 2, -2), 3: (4, 5, -1)},
    "ConvInteger": {1: (-1, 3, 0)},
    "MatMulInteger": {0: (-1, 2, -2), 1: (-1, 3, -1)},
}


def expected_codes(proto: ModelProto, quality: float) -> dict[Key, tuple[np.ndarray, Count]]:
    """Codes in the main graph that an operator multiplies, as they should be, with their count."""
    known = constants(proto)
    found: dict[Key, tuple[np.ndarray, Count]] = {}
    for node in proto.graph.node:
        for index, (scale, zero_point, axis) in CODES.get(node.op_type, {}).items():
            key = ((), node.input[index])
            if key not in known:
                continue
            scales, zeros = _input(node, scale, known), _input(node, zero_point, known)
            if scales is None and scale >= 0:
                continue
            found[key] = _pruned(known[key].array, scales, zeros, axis, quality)
    return found


def _input(node: NodeProto, index: int, known: Mapping[Key, Constant]) -> np.ndarray | None:
    if index < 0 or index >= len(node.input):
        return None
    constant = known.get(((), node.input[index]))
    return None if constant is None else constant.array


def _pruned(
    codes: np.ndarray,
    scale: np.ndarray | None,
    zero_point: np.ndarray | None,
    axis: int,
    quality: float,
) -> tuple[np.ndarray, Count]:
    zeros = _along(zero_point, codes.ndim, axis)
    values = (codes.astype(np.float64) - zeros) * (
        1.0 if scale is None else _along(scale, codes.ndim, axis)
    )
    alive = values[values != 0]
    count = Count(codes.size, alive.size, alive.size)
    if alive.size < 2 or np.all(alive == alive[0]):
        return codes, count
    gone = np.abs(values) < quality * np.std(alive)
    pruned = np.where(gone, np.broadcast_to(zeros, codes.shape), codes).astype(codes.dtype)
    return pruned, Count(codes.size, alive.size, int(np.count_nonzero((values != 0) & ~gone)))


def _along(parameter: np.ndarray | None, rank: int, axis: int) -> np.ndarray:
    if parameter is None:
        return np.zeros(())
    if parameter.ndim != 1 or parameter.size == 1:
        return parameter.astype(np.float64).reshape(() if parameter.size == 1 else parameter.shape)
    shape = [1] * rank
    shape[axis] = parameter.size
    return parameter.astype(np.float64).reshape(shape)
