"""Where the bias of a node's outputs is stored, or whether one can be added."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.attributes import find_attribute
from ..graph.constants import Constants
from ..graph.index import Node, Read, Value
from ..model.tensors import TensorAddress
from .seen import OUTSIDE, stored_positions

__all__ = ["BIAS_INPUT", "Bias", "find_bias"]

#: Position of the optional bias input.
BIAS_INPUT = 2
#: First opset in which the bias of an operator may be left out, and so be added.
OPTIONAL_SINCE = {"Conv": 1, "ConvTranspose": 1, "Gemm": 11}


@dataclass(frozen=True, eq=False)
class Bias:
    """The bias of a node.

    Attributes:
        address: The stored tensor; None for one that is not there yet.
        positions: Flat index of each output's number in it [outputs].
        scale: What the operator multiplies it by (beta).
    """

    address: TensorAddress | None
    positions: np.ndarray
    scale: float = 1.0


def find_bias(constants: Constants, node: Node, outputs: int, *, left: bool) -> Bias | None:
    """The bias of a node that only this node uses, or a place for one.

    Args:
        constants: Constants of the model.
        node: Conv, ConvTranspose, Gemm or MatMul. The bias of a MatMul is the constant of an Add
            that alone reads it.
        outputs: Number of outputs that a bias has an entry for.
        left: The weight is the left operand: outputs run along the last axis but one.

    Returns:
        None where it is computed, shared, not one number per output, or cannot be added.
    """
    if node.op_type == "MatMul":
        value = _added(constants, node)
        return None if value is None else _stored(constants, value, outputs, left, 1.0)
    value = node.input(BIAS_INPUT)
    beta = find_attribute(node.proto, "beta") if node.op_type == "Gemm" else None
    scale = 1.0 if beta is None else float(beta.f)
    if value is not None:
        return _stored(constants, value, outputs, left, scale) if scale else None
    return _addable(constants, node, outputs, left, scale)


def _added(constants: Constants, node: Node) -> Value | None:
    """The other summand of the Add that alone reads a node's output."""
    read = _only_read(constants, Value(node.graph, node.outputs[0]))
    if read is None or read.node.op_type != "Add" or read.node.domain:
        return None
    return read.node.input(1 - read.position)


def _only_read(constants: Constants, value: Value) -> Read | None:
    """The single reading of a value in its own graph; None where it has others."""
    reads = constants.index.readers.get(value, [])
    if len(reads) != 1 or value in constants.index.returned or reads[0].node.graph != value.graph:
        return None
    return reads[0]


def _stored(
    constants: Constants, value: Value, outputs: int, left: bool, scale: float
) -> Bias | None:
    origin = _origin(constants, value)
    if origin is None:
        return None
    seen = stored_positions(constants, value, origin)
    if isinstance(seen, str) or seen.size != outputs or (seen == OUTSIDE).any():
        return None
    axis = -2 if left else -1
    is_line = seen.ndim >= -axis and seen.shape[axis] == outputs
    if not is_line or np.unique(seen).size != outputs:
        return None
    return Bias(origin, seen.reshape(-1), scale)


def _origin(constants: Constants, value: Value) -> TensorAddress | None:
    """The float tensor at the start of a chain of nodes in which each is read only once."""
    while not value.graph and _only_read(constants, value) is not None:
        stored = constants.stored(value)
        if stored is not None:
            kind = constants.model.payload(stored.tensor).dtype.kind
            return stored.address if kind in "fV" else None
        made = constants.index.producers.get(value)
        following = made[0].input(0) if made else None
        if following is None:
            return None
        value = following
    return None


def _addable(
    constants: Constants, node: Node, outputs: int, left: bool, scale: float
) -> Bias | None:
    version = constants.index.opset(0) or 0
    weight = node.input(1)
    # A bias has the type of the weight: one that is stored as it is read tells it.
    typed = weight is not None and constants.stored(weight) is not None
    fits = typed and not left and version >= OPTIONAL_SINCE[node.op_type] and scale != 0
    return Bias(None, np.arange(outputs), scale) if fits else None
