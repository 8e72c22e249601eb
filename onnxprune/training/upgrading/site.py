"""One node of an old opset, and what its conversion may do to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

from ...errors import ModelError
from ...graph.attributes import find_attribute

__all__ = ["Knowledge", "Site"]

T = TypeVar("T")


@dataclass(frozen=True)
class Knowledge:
    """What conversions may ask about the values of the model.

    Attributes:
        types: Inferred types of values, all graphs together.
        constants: Values of small constants.
        read: Names of values that anything reads.
        names: Names that nothing in the model has.
    """

    types: Mapping[str, TypeProto]
    constants: Mapping[str, np.ndarray]
    read: frozenset[str]
    names: Iterator[str]

    @classmethod
    def of(
        cls,
        types: Mapping[str, TypeProto],
        constants: Mapping[str, np.ndarray],
        read: set[str],
        taken: set[str],
    ) -> Knowledge:
        """Knowledge with fresh names that avoid those taken."""
        made = (f"upgrade_{number}" for number in itertools.count())
        return cls(types, constants, frozenset(read), (name for name in made if name not in taken))

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Sizes (None: unknown); None where the rank is unknown."""
        known = self.types.get(name)
        if known is None or not known.tensor_type.HasField("shape"):
            return None
        dims = known.tensor_type.shape.dim
        return tuple(int(dim.dim_value) if dim.HasField("dim_value") else None for dim in dims)


@dataclass
class Site:
    """A node that is being converted.

    Attributes:
        node: The node, changed in place; its outputs stay.
        label: What messages call it.
        version: Opset that the node was written for.
        known: What is known about the model's values.
        before: Nodes to put in front of it.
    """

    node: NodeProto
    label: str
    version: int
    known: Knowledge
    before: list[NodeProto] = field(default_factory=list)

    def refusal(self, reason: str) -> ModelError:
        """The error that says why this node cannot be converted."""
        return ModelError(
            f"{self.node.op_type} '{self.label}' of opset {self.version} cannot be converted "
            f"for training: {reason}"
        )

    def take(self, name: str, default: T) -> T:
        """Value of an attribute, which is removed; the default where absent."""
        attribute = find_attribute(self.node, name)
        if attribute is None:
            return default
        if attribute.ref_attr_name:
            raise self.refusal(f"its attribute '{name}' is decided by the caller of a function")
        value: Any = helper.get_attribute_value(attribute)
        if value is None:
            raise self.refusal(f"its attribute '{name}' has no type")
        self.node.attribute.remove(attribute)
        return cast(T, value.decode() if isinstance(value, bytes) else value)

    def set(self, name: str, value: Any) -> None:
        """Add an attribute, in place of one of that name."""
        self.take(name, None)
        self.node.attribute.append(helper.make_attribute(name, value))

    def input(self, index: int) -> str:
        """Name of an input, "" where left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def add_input(self, index: int, name: str) -> None:
        """Set an input behind those there are."""
        while len(self.node.input) <= index:
            self.node.input.append("")
        self.node.input[index] = name

    def become(self, op_type: str, *inputs: str, **attributes: Any) -> None:
        """Turn the node into another one with the same outputs."""
        self.node.op_type = op_type
        del self.node.input[:]
        self.node.input.extend(inputs)
        del self.node.attribute[:]
        for name, value in attributes.items():
            self.node.attribute.append(helper.make_attribute(name, value))

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Put a node in front and return the name of its output."""
        name = next(self.known.names)
        self.before.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Name of a constant."""
        return self.op("Constant", value=numpy_helper.from_array(np.array(values, dtype)))

    def scalar(self, values: Any, like: str) -> str:
        """Name of a float constant in the element type of a value."""
        constant = self.constant(values, np.float32)
        known = self.known.types.get(like)
        if known is not None and known.tensor_type.elem_type == TensorProto.FLOAT:
            return constant
        return self.op("CastLike", constant, like)

    def shape(self, name: str) -> tuple[int | None, ...]:
        """Sizes of a value of known rank; refuses where the rank is unknown."""
        shape = self.known.shape(name)
        if shape is None:
            raise self.refusal(
                f"the rank of '{name}' is unknown; run ONNX shape inference on the model"
            )
        return shape
