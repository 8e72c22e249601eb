"""Writing new Dropout ratios into a copy of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from ..model.dtypes import logical_dtype
from ..model.housekeeping import INITIALIZERS_ALONE
from ..model.model import Model
from ..model.tensors import Scope
from .attributes import find_attribute
from .constants import Constants
from .index import Graph, ModelIndex, Node, Value
from .ratio import RATIO_INPUTS, Ratio, read_ratio

__all__ = ["rewrite_ratios"]

_VALUE_FIELDS = (
    "float_data",
    "int32_data",
    "double_data",
    "raw_data",
    "external_data",
    "data_location",
)


def rewrite_ratios(model: Model, ratios: Mapping[tuple[Scope, int], float]) -> Model:
    """A copy of a model with new ratios for the Dropout nodes at (scope, position)."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    copied = replace(model, proto=proto)
    rewriter = _Rewriter(copied)
    for graph in rewriter.index.graphs:
        for node in graph.nodes:
            ratio = ratios.get((graph.scope, node.index))
            if ratio is not None and (node.domain, node.op_type) in RATIO_INPUTS:
                rewriter.rewrite(node, ratio)
    rewriter.insert_nodes()
    return copied if rewriter.modified else model


class _Rewriter:
    """Edits one copy; the index is of the copy, so that its nodes can be changed."""

    def __init__(self, model: Model) -> None:
        self.index = ModelIndex(model.proto)
        self.constants = Constants(model, self.index)
        self.modified = False
        self._listed = model.proto.ir_version < INITIALIZERS_ALONE
        self._unread: Counter[Value] = Counter()
        self._new_nodes: list[tuple[Graph, int, NodeProto]] = []
        self._names: set[str] | None = None

    def rewrite(self, node: Node, ratio: float) -> None:
        """Give one Dropout a ratio, in the type it is stored in."""
        found = read_ratio(self.index, self.constants, node)
        if found.reason is not None:
            return
        value = np.asarray(ratio).astype(logical_dtype(found.data_type))
        if float(value) == found.value:
            return
        self.modified = True
        if found.form == "attribute":
            self._set_attribute(node.proto, float(value))
        elif not self._edit_in_place(found, value):
            self._set_input(node, found, value)

    def insert_nodes(self) -> None:
        """Put new Constant nodes before their Dropouts, last first so that positions hold."""
        for graph, position, node in reversed(self._new_nodes):
            graph.proto.node.insert(position, node)

    def _set_attribute(self, node: NodeProto, ratio: float) -> None:
        attribute = find_attribute(node, "ratio")
        if attribute is None:
            node.attribute.append(helper.make_attribute("ratio", ratio))
        else:
            attribute.f = ratio

    def _edit_in_place(self, found: Ratio, value: np.ndarray) -> bool:
        """Change a constant that only this Dropout reads; whether there is one."""
        holder = found.stored.value if found.stored is not None else found.source
        if holder is None or holder != found.source:
            return False
        readers = len(self.index.readers.get(holder, ())) - self._unread[holder]
        if readers != 1 or holder in self.index.returned:
            return False
        if found.number is not None:
            found.number.f = float(value)
        elif found.stored is not None:
            _fill(found.stored.tensor, value)
        return True

    def _set_input(self, node: Node, found: Ratio, value: np.ndarray) -> None:
        """Give a Dropout a constant of its own."""
        position = RATIO_INPUTS[node.domain, node.op_type]
        name = self._fresh(self.index.label(node) + "_ratio")
        tensor = TensorProto(name=name, data_type=found.data_type)
        _fill(tensor, value)
        graph = self.index.graphs[node.graph]
        if isinstance(graph.proto, GraphProto) and not (self._listed and graph.scope):
            graph.proto.initializer.append(tensor)
            if self._listed:
                # Before IR 4 every initializer is an input too.
                entry = helper.make_tensor_value_info(name, found.data_type, [])
                graph.proto.input.append(entry)
        else:
            constant = helper.make_node("Constant", [], [name], value=tensor)
            self._new_nodes.append((graph, node.index, constant))
        if found.source is not None:
            self._unread[found.source] += 1
        inputs = node.proto.input
        inputs.extend([""] * (position + 1 - len(inputs)))
        inputs[position] = name

    def _fresh(self, base: str) -> str:
        """A name that nothing in the model has yet."""
        if self._names is None:
            self._names = set()
            for graph in self.index.graphs:
                self._names.update(graph.inputs, graph.initializers)
                for node in graph.nodes:
                    self._names.update(node.outputs, node.proto.input)
        name, number = base, 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name


def _fill(tensor: TensorProto, value: np.ndarray) -> None:
    """Give a tensor of one element its value, in raw bytes; its shape stays."""
    for name in _VALUE_FIELDS:
        tensor.ClearField(name)
    tensor.raw_data = value.astype(value.dtype.newbyteorder("<")).tobytes()
