"""What is known of one node while the batch axis is followed through a graph."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
from onnx import NodeProto

from ...graph.attributes import integer
from ..values import Shape, Values

__all__ = [
    "RULES",
    "BatchNode",
    "Batched",
    "Edit",
    "Entry",
    "Lift",
    "Multiple",
    "Refusal",
    "Sizes",
    "State",
    "batch_rule",
]


@dataclass(frozen=True)
class Batched:
    """A value made of equal pieces, one for every sample, that lie along an axis.

    The axis has `before` blocks, each of which has `per` entries of every sample in turn: axes
    in front of the batch, and axes behind it, may have been merged with it.

    Attributes:
        axis: The axis, counted from the front.
        per: Entries in a row of one sample.
        before: Number of blocks.
    """

    axis: int
    per: int = 1
    before: int = 1

    @property
    def each(self) -> int:
        """Entries of the axis that belong to one sample."""
        return self.before * self.per

    def at(self, axis: int) -> Batched:
        """The same on another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True)
class Multiple:
    """A whole number that is so many times the size of the batch."""

    factor: int


#: One element of an array of sizes: a number; a name of a number that the batch does not change;
#: a multiple of the size of the batch; None where nothing is known.
Entry = int | str | Multiple | None


@dataclass(frozen=True)
class Sizes:
    """An array, not a piece per sample, computed from the size of the batch.

    Attributes:
        entries: Object array of `Entry`.
    """

    entries: np.ndarray


#: None: the same whatever the batch is.
State = Batched | Sizes | None
Outcome = State | Sequence[State]


class Refusal(Exception):
    """The batch axis cannot be freed; the message says where and why."""


@dataclass(frozen=True)
class Lift:
    """Repeat a value of size one along an axis as often as there are samples.

    Attributes:
        axis: The axis.
        rank: Number of dimensions of the value.
    """

    axis: int
    rank: int


#: What an input of a node becomes: a constant, a vector with multiples of the size of the batch
#: in it, or the input repeated.
Edit = np.ndarray | tuple[int | Multiple, ...] | Lift


@dataclass
class BatchNode:
    """A node at least one of whose inputs depends on the batch.

    Attributes:
        node: The node.
        label: What messages call it.
        states: What its inputs are.
        batch: Size of the batch axis that the model was exported with.
        values: What is known about the values of the model as it was exported.
        constants: Constants known beyond those, by name.
        choice: Which of several readings to take, where a rule has a choice.
        edits: New inputs by position, that the rule asks for.
        readings: How many readings there are.
    """

    node: NodeProto
    label: str
    states: Sequence[State]
    batch: int
    values: Values
    constants: MutableMapping[str, np.ndarray]
    choice: int = 0
    edits: dict[int, Edit] = field(default_factory=dict)
    readings: int = 1

    def refuse(self, reason: str) -> NoReturn:
        """Give up, for this reason."""
        raise Refusal(f"{self.node.op_type} '{self.label}' {reason}")

    # ---- inputs ----------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def name(self, index: int) -> str:
        """Name of an input; refuses where it is left out: older opsets had attributes instead."""
        if not self.has(index):
            self.refuse(f"has no input {index}: its operator set is older than what is known of it")
        name: str = self.node.input[index]
        return name

    def state(self, index: int) -> State:
        """What an input is."""
        return self.states[index] if self.has(index) else None

    def batched(self, index: int) -> Batched:
        """The input's batch axis; refuses where the input has none."""
        state = self.state(index)
        if isinstance(state, Batched):
            return state
        if isinstance(state, Sizes):
            self.refuse(f"computes with the size of the batch, '{self.name(index)}'")
        self.refuse(f"mixes samples with '{self.name(index)}', which the batch does not have")

    def need_fixed(self, *indices: int) -> None:
        """Refuse where one of these inputs depends on the batch."""
        for index in indices:
            if self.state(index) is not None:
                self.refuse(f"takes '{self.name(index)}', which differs between samples")

    def shape(self, index: int) -> Shape:
        """Shape as exported; refuses where the rank is unknown."""
        shape = self.values.shape(self.name(index))
        if shape is None:
            self.refuse(f"reads '{self.name(index)}', whose number of axes is unknown")
        return shape

    def rank(self, index: int) -> int:
        """Number of axes."""
        return len(self.shape(index))

    def static(self, index: int) -> tuple[int, ...]:
        """Sizes as exported; refuses where one is unknown."""
        shape = self.shape(index)
        sizes = tuple(size for size in shape if isinstance(size, int))
        if len(sizes) != len(shape):
            self.refuse(f"reads '{self.name(index)}', whose shape is not known in full")
        return sizes

    def constant(self, index: int) -> np.ndarray | None:
        """Value of an input that the batch does not change, where known."""
        if not self.has(index) or self.state(index) is not None:
            return None
        name = self.name(index)
        known = self.constants.get(name)
        return self.values.constant(name) if known is None else known

    def entries(self, index: int) -> np.ndarray | None:
        """Elements of an array of sizes, as objects; None where it is none."""
        state = self.state(index)
        if isinstance(state, Sizes):
            return state.entries
        constant = self.constant(index)
        if constant is not None:
            return np.array(constant.tolist(), object).reshape(constant.shape)
        shape = self.values.shape(self.name(index))
        sizes = [size for size in shape or () if isinstance(size, int)]
        if state is not None or shape is None or len(sizes) != len(shape):
            return None
        return np.full(sizes, "?", object)

    def vector(self, index: int) -> list[Entry]:
        """Elements of a vector of sizes; refuses where it is none."""
        entries = self.entries(index)
        if entries is None or entries.ndim > 1:
            self.refuse(f"reads '{self.name(index)}', whose value is not known")
        return list(entries.reshape(-1))

    def integers(self, index: int) -> list[int]:
        """Elements of a constant vector of integers; refuses where it is not constant."""
        constant = self.constant(index)
        if constant is None:
            self.refuse(f"reads '{self.name(index)}', whose value is not constant")
        return [int(value) for value in constant.reshape(-1)]

    # ---- attributes and axes ---------------------------------------------------------------

    def attribute(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = integer(self.node, name, default)
        return default if value is None else value

    def axis(self, name: str, default: int, index: int = 0) -> int:
        """An attribute that names an axis of an input, counted from the front."""
        return self.attribute(name, default) % max(self.rank(index), 1)

    def axes(self, index: int, rank: int) -> list[int]:
        """An input that lists axes, counted from the front."""
        return [axis % rank for axis in self.integers(index)]

    def size(self, state: Batched) -> int:
        """Size of a batch axis as exported."""
        return self.batch * state.each

    # ---- what rules have in common ---------------------------------------------------------

    def leading(self, index: int = 0) -> Batched:
        """An input whose samples must lie along axis 0."""
        state = self.batched(index)
        if state.axis != 0:
            self.refuse(f"takes axis 0 for the batch, which is on axis {state.axis}")
        return state

    def apart(self, axis: int, index: int = 0) -> Batched:
        """An input whose axis `axis` is worked along, and must not be that of the batch."""
        state = self.batched(index)
        if state.axis == axis:
            self.refuse("works along the batch axis, so it mixes samples")
        return state

    def same(self, *indices: int) -> Batched:
        """Inputs that must have their samples in the same places."""
        states = {self.batched(index) for index in indices if self.has(index)}
        if len(states) != 1:
            self.refuse("combines values whose batch axes do not correspond")
        return states.pop()

    def broadcast(self, *indices: int) -> Batched:
        """The batch axis of inputs that broadcast together; refuses where samples would mix."""
        present = [index for index in indices if self.has(index)]
        ends: set[tuple[int, Batched]] = set()
        for index in present:
            if self.state(index) is not None:
                state = self.batched(index)
                ends.add((self.rank(index) - state.axis, state.at(0)))
        if len(ends) != 1:
            self.refuse("combines values whose batch axes do not correspond")
        ((end, state),) = ends
        for index in present:
            if self.state(index) is None:
                self._repeats(index, end)
        return state.at(max(self.rank(index) for index in present) - end)

    def _repeats(self, index: int, end: int) -> None:
        """Refuse a constant that is not the same for all samples (axes counted from the end)."""
        shape = self.shape(index)
        if len(shape) >= end and shape[-end] != 1:
            self.refuse(
                f"combines the batch with '{self.name(index)}' of shape {list(shape)}, "
                "which has sizes of its own along the batch axis"
            )

    def lift(self, index: int, state: Batched) -> None:
        """Make an input that the batch does not change have a piece for every sample."""
        shape = self.shape(index)
        single = len(shape) > state.axis and shape[state.axis] == 1
        if not single or self.batch != 1 or state.each != 1:
            self.refuse(f"needs '{self.name(index)}' for a batch of one fixed size")
        self.edits[index] = Lift(state.axis, len(shape))


Rule = Callable[[BatchNode], Outcome]
#: Rules by domain and operator.
RULES: dict[tuple[str, str], Rule] = {}


def batch_rule(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register how these operators carry the batch axis."""

    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[domain, name] = rule
        return rule

    return register
