"""Writing what constant channels gave into what is left: into biases, and into other weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..graph.attributes import find_attribute
from ..model.housekeeping import INITIALIZERS_ALONE
from ..model.tensors import node_label
from .constants.known import wide
from .folding import Names
from .removal import set_constant
from .sizes import constant_tensor
from .stored import reader_counts

__all__ = ["Absorber"]

Array = npt.NDArray[np.float64]
_CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv")


class Absorber:
    """Changes a model from which channels have been removed so that it computes what it did.

    Attributes:
        existing: Nodes whose bias has changed.
        made: Nodes that were given a bias.
    """

    def __init__(self, model: ModelProto, types: Mapping[str, int]) -> None:
        """Take a model, to be changed in place, and the element types of its values."""
        self._graph = model.graph
        self._types = types
        self._listed = model.ir_version < INITIALIZERS_ALONE  # initializers are inputs as well
        self._names = Names(model.graph)
        self._readers = reader_counts(model.graph)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._holders: dict[str, NodeProto] = {}
        for node in model.graph.node:
            held = constant_tensor(node)
            if held is not None:
                self._tensors[node.output[0]] = held
                self._holders[node.output[0]] = node
        self._behind: dict[str, NodeProto] = {}
        self._labels = {
            name: (node, node_label(node, index))
            for index, node in enumerate(model.graph.node)
            for name in node.output
        }
        self.existing: list[str] = []
        self.made: list[str] = []

    def add(self, result: str, share: Array) -> None:
        """Add constants to the result of a MatMul, Gemm, Conv or ConvTranspose.

        Args:
            result: Its name.
            share: What to add, in a shape that broadcasts to the result's.
        """
        node, label = self._labels[result]
        share = share.reshape(_without_leading(share.shape))
        if node.op_type in _CONVOLUTIONS:
            changed = self._add_to_operand(node, 2, share.reshape(-1))
        elif node.op_type == "Gemm":
            changed = self._add_to_gemm(node, share)
        else:
            changed = self._add_to_next(node, share)
        if changed is None:
            self._insert_add(node, share)
        (self.existing if changed else self.made).append(label)

    def add_to_weight(self, result: str, change: Array) -> None:
        """Add to the weight of the convolution with this result; no other node may read it."""
        node, _ = self._labels[result]
        self._set(node, 1, wide(self._array(node.input[1])) + change)

    def _add_to_operand(self, node: NodeProto, index: int, share: Array) -> bool | None:
        """Whether a vector of biases was there; None where it is no constant."""
        if len(node.input) <= index or not node.input[index]:
            while len(node.input) <= index:
                node.input.append("")
            node.input[index] = self._new(node.output[0], share)
            return False
        if node.input[index] not in self._tensors:
            return None
        self._set(node, index, wide(self._array(node.input[index])) + share)
        return True

    def _add_to_gemm(self, node: NodeProto, share: Array) -> bool | None:
        held = find_attribute(node, "beta")
        beta = 1.0 if held is None else held.f
        if len(node.input) < 3 or not node.input[2]:
            if held is not None:
                held.f = 1.0
            return self._add_to_operand(node, 2, share)
        if beta == 0 or not self._takes(node.input[2], share):
            return None
        return self._add_to_operand(node, 2, share / beta)

    def _add_to_next(self, node: NodeProto, share: Array) -> bool | None:
        """Add to the bias that an Add behind a MatMul adds; None where there is none."""
        if self._readers[node.output[0]] != 1:
            return None
        for other in self._graph.node:
            if other.op_type != "Add" or node.output[0] not in other.input:
                continue
            index = 1 - list(other.input).index(node.output[0])
            if other.input[index] in self._tensors and self._takes(other.input[index], share):
                return self._add_to_operand(other, index, share)
        return None

    def _takes(self, name: str, share: Array) -> bool:
        """Whether a stored bias can hold the sum without getting longer than a share is."""
        if name not in self._tensors:
            return False
        dims = tuple(self._tensors[name].dims)
        return np.broadcast_shapes(dims, share.shape) in (dims, share.shape)

    def _insert_add(self, node: NodeProto, share: Array) -> None:
        result = node.output[0]
        inner = self._names.unused(f"{result}_product")
        self._behind[inner] = helper.make_node("Add", [inner, self._new(result, share)], [result])
        node.output[0] = inner

    def _set(self, node: NodeProto, index: int, values: Array) -> None:
        """Store an operand anew, apart from the old one where others read that too."""
        name = node.input[index]
        if self._readers[name] > 1 or values.shape != tuple(self._tensors[name].dims):
            self._readers[name] -= 1
            node.input[index] = self._new(node.output[0], values)
            return
        tensor = _tensor(values, self._tensors[name].data_type, name)
        if name in self._holders:
            set_constant(self._holders[name], tensor)
        else:
            self._tensors[name].CopyFrom(tensor)

    def _array(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self._tensors[name])

    def _new(self, result: str, values: Array) -> str:
        """The name of a new initializer with the element type of a result."""
        name = self._names.unused(f"{result}_bias")
        tensor = _tensor(values, self._types[result], name)
        self._graph.initializer.append(tensor)
        self._tensors[name] = self._graph.initializer[-1]
        self._readers[name] = 1
        if self._listed:
            info = helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            self._graph.input.append(info)
        return name

    def finish(self) -> None:
        """Put new nodes in their places and drop constants that nobody reads any more."""
        nodes: list[NodeProto] = []
        for node in self._graph.node:
            name = node.output[0] if node.output else ""
            if name in self._holders and not self._readers[name]:
                continue
            nodes.append(NodeProto.FromString(node.SerializeToString()))
            if name in self._behind:
                nodes.append(self._behind[name])
        del self._graph.node[:]
        self._graph.node.extend(nodes)


def _tensor(values: Array, data_type: int, name: str) -> TensorProto:
    array = values.astype(helper.tensor_dtype_to_np_dtype(data_type))
    tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
    tensor.data_type = data_type
    return tensor


def _without_leading(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without ones in front."""
    start = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[start:]) or (1,)
