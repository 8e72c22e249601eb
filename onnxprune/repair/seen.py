"""Which stored weight is behind every element that a node reads, through any chain of views."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..graph.constants import Constants
from ..graph.index import ModelIndex, Node, Value
from ..graph.view_nodes import is_join, is_view
from ..model.tensors import TensorAddress
from ..runtime import CannotRun, open_session, run

__all__ = ["OUTSIDE", "stored_positions"]

#: Stands for an element that comes from another tensor.
OUTSIDE = -1


def stored_positions(
    constants: Constants, value: Value, address: TensorAddress
) -> np.ndarray | str:
    """For every element of `value`, the flat index of the stored element that it is.

    The model's own view nodes are run on the indices in place of the weights, so that every view
    means here what it means in the model.

    Args:
        constants: Constants of the model.
        value: What a node reads.
        address: The stored tensor; elements of others are `OUTSIDE`.

    Returns:
        The indices in the shape that the node sees, or why they cannot be told.
    """
    stored = constants.stored(value)
    if stored is not None:
        return _numbered(stored.shape, stored.address == address)
    chain = _Chain(constants, address)
    problem = chain.follow(value)
    if problem is not None:
        return problem
    graph = helper.make_graph(
        chain.nodes[::-1], "views", [], [helper.make_empty_tensor_value_info(value.name)],
        list(chain.tensors.values()),
    )  # fmt: skip
    index = constants.index
    opset = helper.make_opsetid("", index.opset(0) or 1)
    model = helper.make_model(
        graph, opset_imports=[opset], ir_version=max(index.proto.ir_version, 4)
    )
    try:
        return np.asarray(
            run(open_session(model.SerializeToString(), light=True, threads=1), {})[0]
        )
    except CannotRun as error:
        return f"the way to its weight cannot be followed ({error})"


class _Chain:
    """The nodes between a value and the tensors that it shows, data turned into indices."""

    def __init__(self, constants: Constants, address: TensorAddress) -> None:
        self.constants = constants
        self.index: ModelIndex = constants.index
        self.address = address
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, TensorProto] = {}
        self._seen: set[tuple[Value, bool]] = set()

    def follow(self, value: Value) -> str | None:
        """Collect what makes a value, last node first; says why it cannot."""
        pending = [(value, True)]
        order: list[tuple[int, NodeProto]] = []
        while pending:
            current, is_data = pending.pop()
            if (current, is_data) in self._seen:
                continue
            self._seen.add((current, is_data))
            if current.graph:
                return "its weight comes out of a body or a function"
            stored = self.constants.stored(current)
            if stored is not None:
                array = (
                    _numbered(stored.shape, stored.address == self.address)
                    if is_data
                    else self.constants.model.array(stored.tensor)
                )
                self.tensors[current.name] = numpy_helper.from_array(array, current.name)
                continue
            made = self.index.producers.get(current)
            if made is None:
                return "its weight depends on an input of the model"
            node = made[0]
            if is_data and not (is_view(node) or is_join(node)):
                return f"its weight comes through {node.op_type}"
            if "Quantize" in node.op_type or "Dequantize" in node.op_type:
                return "its weight is quantised"
            order.append((node.index, _indexed(node) if is_data else node.proto))
            for position, given in enumerate(node.inputs):
                if given is not None and not (node.op_type == "CastLike" and position):
                    pending.append((given, is_data and (position == 0 or is_join(node))))
        self.nodes = [node for _, node in sorted(order, key=lambda entry: -entry[0])]
        return None


def _indexed(node: Node) -> NodeProto:
    """A view node as it works on indices: a Cast leaves them as they are."""
    if node.op_type in ("Cast", "CastLike"):
        return helper.make_node("Identity", [node.proto.input[0]], [node.proto.output[0]])
    return node.proto


def _numbered(shape: tuple[int, ...], own: bool) -> np.ndarray:
    if not own:
        return np.full(shape, OUTSIDE, np.int64)
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
