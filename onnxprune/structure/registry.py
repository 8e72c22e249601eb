"""Rules of operators: how the indices of their operands and results are coupled.

A rule states equations between the labels of a node's operands and sets those of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
from onnx import NodeProto

from ..graph.attributes import find_attribute, integer, integers, text
from .atoms import Atoms, Labels
from .sizes import Shape, Sizes

__all__ = ["RULES", "Axes", "Barrier", "Rule", "Site", "rule"]

Axes = tuple[Labels, ...]


class Barrier(Exception):
    """Raised by a rule that cannot follow its node; the message is the reason.

    `unknown` names an operand whose shape is not known, where that is it.
    """

    def __init__(self, reason: str, unknown: str = "") -> None:
        super().__init__(reason)
        self.unknown = unknown


class Site:
    """One node while the graph is followed.

    Attributes:
        node: The node.
        opset: Version of its operator set.
        results: Labels of its outputs, as far as the rule has set them.
        followed: Operands whose labels the rule has read; the others are sizes, indices, modes.
    """

    def __init__(
        self,
        node: NodeProto,
        opset: int,
        atoms: Atoms,
        sizes: Sizes,
        axes: Callable[[str], Axes | None],
        cause: Callable[[str], int],
    ) -> None:
        self.node = node
        self.opset = opset
        self.atoms = atoms
        self.sizes = sizes
        self.results: dict[str, Axes] = {}
        self.followed: set[str] = set()
        self._axes = axes
        self._cause = cause

    # What is known of the node.

    def has(self, index: int) -> bool:
        """Whether the operand is there."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def has_output(self, index: int) -> bool:
        """Whether the result has a name."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def axes(self, index: int) -> Axes:
        """Labels of an operand's axes."""
        name = self.node.input[index]
        found = self._axes(name)
        self.followed.add(name)
        if found is None:
            raise Barrier(f"the shape of '{name}' is not known", name)
        return found

    def shape(self, index: int) -> Shape:
        """Shape of an operand at the sizes of the analysis."""
        return tuple(len(axis) for axis in self.axes(index))

    def output_shape(self, index: int = 0) -> Shape:
        """Shape of a result at the sizes of the analysis."""
        name = self.node.output[index]
        found = self.sizes.shape(name)
        return self.barrier("has a result of unknown shape") if found is None else found

    def constant(self, index: int) -> np.ndarray | None:
        """The value of a small operand that is the same in every run."""
        return self.sizes.static(self.node.input[index]) if self.has(index) else None

    def numbers(self, index: int, name: str) -> list[int] | None:
        """A list of whole numbers, an operand or (in older opsets) an attribute."""
        value = self.constant(index)
        if value is not None:
            return [int(number) for number in value.reshape(-1)]
        found = None if self.has(index) else integers(self.node, name)
        return None if found is None else list(found)

    def given(self, index: int, name: str) -> bool:
        """Whether a list of numbers is given at all, as operand or attribute."""
        return self.has(index) or find_attribute(self.node, name) is not None

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = integer(self.node, name, default)
        return default if found is None else found

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = text(self.node, name)
        return default if found is None else found

    # What a rule states.

    def barrier(self, reason: str) -> NoReturn:
        """Give up: everything that touches the node stays."""
        raise Barrier(reason)

    def unify(self, first: Labels, second: Labels) -> None:
        """State that two axes lose the same indices."""
        if len(first) != len(second):
            self.barrier("the sizes of its operands do not fit together")
        self.atoms.cause = self._cause("meets indices that stay")
        self.atoms.unify(first, second)

    def freeze(self, labels: Labels, reason: str) -> None:
        """State that an axis stays, and why."""
        self.atoms.cause = self._cause(reason)
        self.atoms.freeze(labels)

    def fix(self, *axes: Labels) -> None:
        """State that axes stay that nobody would think of removing (the taps of a kernel)."""
        self.atoms.cause = 0
        for labels in axes:
            self.atoms.freeze(labels)

    def factors(self, labels: Labels, sizes: Sequence[int]) -> list[Labels]:
        """Labels of the axes that an axis is split into."""
        self.atoms.cause = self._cause("splits indices that stay")
        return self.atoms.factors(labels, sizes)

    def product(self, *axes: Labels) -> Labels:
        """Labels of the axis that axes are merged into."""
        return self.atoms.product(axes)

    def fresh(self, size: int) -> Labels:
        """Labels of an axis that is made here; one of size one stays."""
        return self.atoms.fresh(size) if size > 1 else self.fixed(size)

    def fixed(self, size: int, reason: str = "") -> Labels:
        """Labels of an axis that stays, and why."""
        cause = self._cause(reason) if reason and size > 1 else 0
        return np.broadcast_to(np.int64(self.atoms.frozen(cause)), (size,))

    def set(self, axes: Sequence[Labels], index: int = 0) -> None:
        """Set the labels of a result; an axis of size one stays, as broadcasting depends on it."""
        if not self.has_output(index):
            return
        for labels in axes:
            if len(labels) == 1:
                self.freeze(labels, "leaves a single index of the axis")
        self.results[self.node.output[index]] = tuple(axes)

    def set_fixed(self, index: int = 0) -> None:
        """Set a result of which nothing is ever removed."""
        if self.has_output(index):
            self.set([self.fixed(size) for size in self.output_shape(index)], index)

    def broadcast(self, operands: Sequence[Axes]) -> list[Labels]:
        """Unify aligned axes of operands; labels of the broadcast result."""
        rank = max(len(axes) for axes in operands)
        result = [self.fixed(1) for _ in range(rank)]
        for axes in operands:
            for position, labels in enumerate(axes, rank - len(axes)):
                if len(labels) == 1:
                    continue
                if len(result[position]) == 1:
                    result[position] = labels
                else:
                    self.unify(result[position], labels)
        return result


Rule = Callable[[Site], None]
RULES: dict[tuple[str, str], Rule] = {}


def rule(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register the coupling rule of operators."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[domain, name] = function
        return function

    return register
