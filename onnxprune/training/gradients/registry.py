"""The table of gradient rules, and the view of a node that rules get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from onnx import NodeProto, helper

from ...model.domain import plain_domain
from ..builder import GraphBuilder

__all__ = ["NON_DIFFERENTIABLE", "Node", "Rule", "gradient", "is_constant", "rule_for"]

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """A node of the forward graph as gradient rules see it.

    Attributes:
        proto: The node itself; rules do not change it except by `output`.
        label: What messages call it.
        needs: For every input, whether its gradient is wanted. Rules may ignore it: what nobody
            uses is removed afterwards. It saves rules from failing over what nobody asked for.
    """

    proto: NodeProto
    label: str
    needs: tuple[bool, ...]

    @property
    def op_type(self) -> str:
        """The operator."""
        return self.proto.op_type

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the inputs; "" where an optional one is left out."""
        return self.proto.input

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs; "" where an optional one is left out."""
        return self.proto.output

    def input(self, index: int) -> str | None:
        """Name of an optional input, None where it is left out."""
        return (self.proto.input[index] or None) if index < len(self.proto.input) else None

    def attribute(self, name: str, default: T) -> T:
        """Value of an attribute (int, float, str, list of those), or the default."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value: Any = helper.get_attribute_value(attribute)
                return cast(T, value.decode() if isinstance(value, bytes) else value)
        return default

    def output(self, builder: GraphBuilder, index: int) -> str:
        """Name of an output, which is added to the forward node where it was left out."""
        names = self.proto.output
        while len(names) <= index:
            names.append("")
        if not names[index]:
            names[index] = builder.fresh(f"{self.proto.op_type}_output{index}")
            builder.values.add_node(self.proto)
        return names[index]


#: Appends the gradient of a node. Gets the builder, the node and the gradient of every output
#: (None: the loss does not depend on it; at least one is given). Returns the gradient of every
#: input, None (or left out at the end) for those that have none.
Rule = Callable[[GraphBuilder, Node, Sequence[str | None]], Sequence[str | None]]

_RULES: dict[tuple[str, str], Rule] = {}

_CONSTANT = """
    And ArgMax ArgMin Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Constant
    ConstantOfShape Equal EyeLike Floor Greater GreaterOrEqual Hardmax IsInf IsNaN Less LessOrEqual
    Multinomial NonMaxSuppression NonZero Not Or RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Round Shape Sign Size Unique Xor
"""
#: Operators whose result does not change under small changes of their inputs, or that give no
#: float value at all: no gradient passes, and that is right.
NON_DIFFERENTIABLE = frozenset(("", op_type) for op_type in _CONSTANT.split())


def gradient(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register a function as the gradient rule of operators."""

    def register(rule: Rule) -> Rule:
        for op_type in op_types:
            assert (domain, op_type) not in _RULES, f"{op_type} has a rule already"
            _RULES[domain, op_type] = rule
        return rule

    return register


def rule_for(node: NodeProto) -> Rule | None:
    """The rule of a node's operator, None where there is none."""
    return _RULES.get((plain_domain(node.domain), node.op_type))


def is_constant(node: NodeProto) -> bool:
    """Whether no gradient passes this node."""
    return (plain_domain(node.domain), node.op_type) in NON_DIFFERENTIABLE
