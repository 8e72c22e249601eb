"""What pruning should leave of integer codes, counted apart from the product's code.

The value of a code is (code - zero point) x scale; a code whose value is below the threshold
becomes its zero point. Computed in float64 on whole arrays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from .constants import Body, Key, bodies, constants
from .weights import Count

__all__ = ["expected_codes"]

#: For each input of codes: inputs of its scale (-1 for none) and zero point, and their axis.
CODES: Mapping[str, Mapping[int, tuple[int, int, int]]] = {
    "QLinearConv": {3: (4, 5, 0)},
    "QLinearMatMul": {0: (1, 2, -2), 3: (4, 5, -1)},
    "ConvInteger": {1: (-1, 3, 0)},
    "MatMulInteger": {0: (-1, 2, -2), 1: (-1, 3, -1)},
    "DynamicQuantizeMatMul": {1: (2, 3, -1)},
    "MatMulIntegerToFloat": {1: (3, 5, -1)},
}


def expected_codes(proto: ModelProto, quality: float) -> dict[Key, tuple[np.ndarray, Count]]:
    """Codes that an operator in the same graph multiplies, as they should be, with their count."""
    known = constants(proto)
    found: dict[Key, tuple[np.ndarray, Count]] = {}
    for scope, body in bodies(proto):
        here = {name: constant.array for (place, name), constant in known.items() if place == scope}
        for node in body.node:
            operands = CODES.get(node.op_type, {})
            if node.op_type == "DequantizeLinear" and _is_multiplied(node.output[0], body):
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                operands = {0: (1, 2, axis)}
            for index, (scale, zero_point, axis) in operands.items():
                scales, zeros = _input(node, scale, here), _input(node, zero_point, here)
                if node.input[index] in here and (scales is not None or scale < 0):
                    codes = here[node.input[index]]
                    pruned = _pruned(codes, scales, zeros, axis, quality)
                    found[scope, node.input[index]] = pruned
    return found


def _is_multiplied(name: str, body: Body) -> bool:
    return any(n.op_type == "MatMul" and name in n.input for n in body.node)


def _input(node: NodeProto, index: int, here: Mapping[str, np.ndarray]) -> np.ndarray | None:
    return here.get(node.input[index]) if 0 <= index < len(node.input) else None


def _pruned(
    codes: np.ndarray,
    scale: np.ndarray | None,
    zero_point: np.ndarray | None,
    axis: int,
    quality: float,
) -> tuple[np.ndarray, Count]:
    zeros = _along(zero_point, codes.shape, axis)
    values = (codes.astype(np.float64) - zeros) * (
        1.0 if scale is None else _along(scale, codes.shape, axis)
    )
    alive = values[values != 0]
    count = Count(codes.size, alive.size, alive.size)
    if alive.size < 2 or np.all(alive == alive[0]):
        return codes, count
    # In real numbers no standard deviation is above the largest magnitude; in float64 it can be.
    gone = np.abs(values) < quality * min(np.std(alive), np.max(np.abs(alive)))
    pruned = np.where(gone, np.broadcast_to(zeros, codes.shape), codes).astype(codes.dtype)
    return pruned, Count(codes.size, alive.size, int(np.count_nonzero((values != 0) & ~gone)))


def _along(parameter: np.ndarray | None, shape: tuple[int, ...], axis: int) -> np.ndarray:
    """A scale or zero point in float64, as it broadcasts over codes of a shape."""
    if parameter is None:
        return np.zeros(())
    values = parameter.astype(np.float64)
    if values.size == 1:
        return values.reshape(())
    if values.ndim == len(shape):  # blocks along the axis
        return np.repeat(values, shape[axis] // values.shape[axis], axis)
    spread = [1] * len(shape)
    spread[axis] = values.size
    return values.reshape(spread)
