"""Constant tensors of a model: weights by address, and small constants by value."""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ..errors import OnnxPruneError
from ..model.dtypes import logical_dtype
from ..model.model import Model
from ..model.tensors import TensorAddress, TensorKind
from .attributes import find_attribute, integers
from .index import ModelIndex, Value

__all__ = ["Constants", "Stored"]

# Operators behind which a list of whole numbers stays the same list.
_FLAT = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"})

#: Elements of the largest constant whose values are looked at.
LARGEST = 2**24


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in the model: its address, and the message that describes it."""

    address: TensorAddress
    kind: TensorKind
    tensor: TensorProto
    value: Value

    @property
    def shape(self) -> tuple[int, ...]:
        """Stored shape."""
        return tuple(self.tensor.dims)


class Constants:
    """Looks constants of one model up; decoded arrays are kept, as many readers share them."""

    def __init__(self, model: Model, index: ModelIndex) -> None:
        """Keep the model and its index at hand."""
        self.model = model
        self.index = index
        self._arrays: dict[Value, np.ndarray | None] = {}

    def stored(self, value: Value) -> Stored | None:
        """The initializer or Constant tensor that a value itself is; None where it is neither."""
        tensor = self.index.initializer(value)
        if tensor is not None:
            return self._at(value, "initializer", tensor)
        made = self.index.producers.get(value)
        if made is None or made[0].op_type != "Constant" or made[0].domain:
            return None
        attribute = find_attribute(made[0].proto, "value")
        if attribute is None or not attribute.HasField("t"):
            return None
        return self._at(value, "constant", attribute.t)

    def _at(self, value: Value, kind: TensorKind, tensor: TensorProto) -> Stored:
        address = TensorAddress(self.index.graphs[value.graph].scope, value.name)
        return Stored(address, kind, tensor, value)

    def constant(self, value: Value | None) -> np.ndarray | None:
        """Array of a small constant (scale, shape, axes, ratio), through Identity; else None."""
        return self._decoded(self.plain_constant(value))

    def _decoded(self, stored: Stored | None) -> np.ndarray | None:
        if stored is None or math.prod(stored.tensor.dims) > LARGEST:
            return None
        if stored.value not in self._arrays:
            try:
                array = self.model.array(stored.tensor)
            except (OnnxPruneError, ValueError, KeyError, TypeError):
                array = None
            self._arrays[stored.value] = array
        return self._arrays[stored.value]

    def plain_constant(self, value: Value | None) -> Stored | None:
        """The stored tensor that a value is, through Identity only; None where it is none."""
        end = self._origin(value, ("Identity",))
        return None if end is None else self.stored(end)

    def numbers(self, value: Value | None) -> tuple[int, ...] | None:
        """A small constant as a flat list of whole numbers, also behind a Reshape or Cast."""
        end = self._origin(value, _FLAT)
        if end is None:
            return None
        stored = self.stored(end)
        if stored is None:
            return self._listed(end)
        array = self._decoded(stored)
        if array is None or array.dtype.kind not in "iu":
            return None
        return tuple(int(number) for number in array.reshape(-1))

    def _listed(self, value: Value) -> tuple[int, ...] | None:
        """Whole numbers that a Constant node lists in an attribute of its own."""
        made = self.index.producers.get(value)
        if made is None or made[0].op_type != "Constant" or made[0].domain:
            return None
        listed = integers(made[0].proto, "value_ints")
        single = find_attribute(made[0].proto, "value_int")
        if listed is None and single is not None and not single.ref_attr_name:
            return (int(single.i),)
        return listed

    def _origin(self, value: Value | None, through: Container[str]) -> Value | None:
        """Where a value comes from through the first inputs of these operators."""
        seen: set[Value] = set()
        while value is not None and value not in seen:
            seen.add(value)
            made = self.index.producers.get(value)
            if made is None or made[0].op_type not in through or made[0].domain:
                return value
            value = made[0].input(0)
        return None

    def zero_point(self, value: Value | None, stored: Stored) -> np.ndarray | None:
        """Zero point of stored codes: 0 where left out, None where only running would tell it."""
        if value is not None:
            return self.constant(value)
        try:
            return np.zeros((), logical_dtype(stored.tensor.data_type))
        except (KeyError, TypeError):
            return np.zeros((), np.int8)
