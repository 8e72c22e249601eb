"""What a removal changes in a node besides its tensors: sizes, bounds, indices, group counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper, numpy_helper

from .folding import Names
from .registry import Site

__all__ = ["REVISIONS", "Kept", "Revision", "revision"]

#: For every axis of a value, which indices are kept.
Kept = tuple[npt.NDArray[np.bool_], ...]


@dataclass
class Revision:
    """One node of the smaller graph while it is written.

    Attributes:
        node: The node, to be changed in place.
        site: What the analysis knows of it: original shapes and constants.
        before: Nodes to put in front of it.
        after: Nodes to put behind it.
    """

    node: NodeProto
    site: Site
    names: Names
    lookup: Callable[[str], Kept | None]
    before: list[NodeProto] = field(default_factory=list)
    after: list[NodeProto] = field(default_factory=list)

    def kept(self, index: int) -> Kept:
        """Kept indices of an operand's axes."""
        return self._known(self.site.node.input[index])

    def kept_result(self, index: int = 0) -> Kept:
        """Kept indices of a result's axes."""
        return self._known(self.site.node.output[index])

    def counts(self, kept: Kept) -> list[int]:
        """Sizes of the axes after the removal."""
        return [int(mask.sum()) for mask in kept]

    def dynamic(self, index: int = 0) -> tuple[bool, ...]:
        """For each axis of a result, whether its size differs from run to run."""
        return self.site.sizes.dynamic(self.site.node.output[index])

    def set_attribute(self, name: str, value: int | float | Sequence[int]) -> None:
        """Set an attribute of the node."""
        self.drop_attribute(name)
        self.node.attribute.append(helper.make_attribute(name, value))

    def drop_attribute(self, name: str) -> None:
        """Remove an attribute of the node."""
        others = [attribute for attribute in self.node.attribute if attribute.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend(others)

    def set_operand(self, index: int, values: npt.ArrayLike) -> None:
        """Feed an operand from a new constant with the type and rank that it had."""
        old = self.site.constant(index) if self.site.has(index) else None
        dtype = np.dtype(np.int64) if old is None else old.dtype
        while len(self.node.input) <= index:
            self.node.input.append("")
        base = self.node.input[index] or f"{self.node.output[0]}_sizes"
        name = self.names.unused(f"{base}_kept")
        tensor = numpy_helper.from_array(np.array(values, dtype), name)
        self.before.append(helper.make_node("Constant", [], [name], value=tensor))
        self.node.input[index] = name

    def set_numbers(self, index: int, attribute: str, values: Sequence[int]) -> None:
        """Set a list of numbers where the node has it: an operand, or an attribute."""
        if self.site.has(index):
            self.set_operand(index, values)
        else:
            self.set_attribute(attribute, values)

    def scale_operand(self, index: int, new: Sequence[int], old: Sequence[int]) -> None:
        """Multiply each entry of a computed list of sizes by new / old."""
        if list(new) == list(old):
            return
        source = self.node.input[index]
        target = self.names.unused(f"{source}_kept")
        self.before += self._scaling(source, target, new, old)
        self.node.input[index] = target

    def scale_result(self, new: Sequence[int], old: Sequence[int]) -> None:
        """Multiply each entry of the node's result, a list of sizes, by new / old."""
        if list(new) == list(old):
            return
        target = self.node.output[0]
        source = self.names.unused(f"{target}_kept")
        self.node.output[0] = source
        self.after += self._scaling(source, target, new, old)

    def _known(self, name: str) -> Kept:
        found = self.lookup(name)
        assert found is not None, name
        return found

    def _scaling(
        self, source: str, target: str, new: Sequence[int], old: Sequence[int]
    ) -> list[NodeProto]:
        pairs = [(1, 1) if a == b else (a, b) for a, b in zip(new, old, strict=True)]
        values = self.site.sizes.one.values
        known = values.get(source, values.get(target))  # one of the two names is new
        dtype = np.int64 if known is None else known.dtype
        shape = () if known is not None and known.ndim == 0 else (len(pairs),)
        names = [self.names.unused(f"{target}_{part}") for part in ("times", "over", "product")]
        nodes = [
            helper.make_node(
                "Constant",
                [],
                [name],
                value=numpy_helper.from_array(np.array(numbers, dtype).reshape(shape), name),
            )
            for name, numbers in zip(names, zip(*pairs, strict=True), strict=False)
        ]
        nodes.append(helper.make_node("Mul", [source, names[0]], [names[2]]))
        nodes.append(helper.make_node("Div", [names[2], names[1]], [target]))
        return nodes


Reviser = Callable[[Revision], None]
REVISIONS: dict[tuple[str, str], Reviser] = {}


def revision(*names: str, domain: str = "") -> Callable[[Reviser], Reviser]:
    """Register what changes in nodes of these operators."""

    def register(function: Reviser) -> Reviser:
        for name in names:
            REVISIONS[domain, name] = function
        return function

    return register
