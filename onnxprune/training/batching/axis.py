"""Making a batch axis of fixed size symbolic, where it is certain that samples stay apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    ValueInfoProto,
    numpy_helper,
    shape_inference,
)

from ...model.domain import plain_domain
from ...model.tensors import node_label, subgraphs
from ..values import Values
from . import rules, rules_indexing, rules_layout, rules_matmul
from .check import disagreement
from .edits import apply_edits, fresh_names
from .nodes import RULES, Batched, BatchNode, Edit, Refusal, Sizes, State
from .sizes import SIZE_OPERATORS

__all__ = ["FreedBatch", "already_free", "free_batch"]

#: Modules whose import registers the rules.
RULE_MODULES = (rules, rules_indexing, rules_layout, rules_matmul)
ALREADY = "already free"
NAME = "batch"
NO_BATCH = "no input has axes"
#: How often a search may meet a wrong end before it gives up.
ATTEMPTS = 2000


@dataclass(frozen=True)
class FreedBatch:
    """A model that takes batches of any size, or why there is none.

    Attributes:
        proto: The model; None where its batch axis cannot be freed.
        reason: Why it cannot be freed (a sentence without its full stop), or "already free" where
            the model is as it was; None where it was freed.
    """

    proto: ModelProto | None
    reason: str | None


def already_free(proto: ModelProto) -> bool:
    """Whether all inputs have a batch axis of open size.

    An input has one where its first axis has no size, or another axis has the name of such a
    first axis (a recurrent state); inputs without axes need none.
    """
    shapes = [_declared(info) for info in proto.graph.input]
    ranked = [shape for shape in shapes if shape is None or shape]
    firsts = [shape[0] for shape in ranked if shape]
    names = {size for size in firsts if isinstance(size, str)}
    return bool(ranked) and all(
        shape is None or not isinstance(shape[0], int) or not names.isdisjoint(shape)
        for shape in ranked
    )


def free_batch(proto: ModelProto) -> FreedBatch:
    """Make axis 0 of all inputs symbolic, and with it all that depends on it.

    The result computes for every sample (for every batch of the old size, where that was more than
    one) what the model computes for it alone. Rules follow the batch axis from node to node and
    rewrite sizes that were baked in (targets of Reshape, ends of Slice, ...). Whatever no rule
    vouches for is refused. Then both models are run, where onnxruntime can, and compared.

    Args:
        proto: A model with its weights in memory; it stays as it is.
    """
    if already_free(proto):
        return FreedBatch(proto, ALREADY)
    try:
        batch = _batch_size(proto.graph)
        flow = _Flow(proto, batch)
    except Refusal as refusal:
        return FreedBatch(None, str(refusal))
    except shape_inference.InferenceError as error:
        return FreedBatch(None, f"its shapes cannot be inferred: {' '.join(str(error).split())}")
    freed = ModelProto()
    freed.CopyFrom(proto)
    apply_edits(freed, flow.edits, next(i.name for i in freed.graph.input if _declared(i)))
    _open(freed.graph, flow.states)
    axes = {
        info.name: state.axis if isinstance(state := flow.states[info.name], Batched) else None
        for info in proto.graph.output
    }
    reason = disagreement(proto, freed, axes)
    return FreedBatch(None, reason) if reason else FreedBatch(freed, None)


def _declared(info: ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Declared shape; None where there is none."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or None
        for dim in info.type.tensor_type.shape.dim
    )


def _batch_size(graph: GraphProto) -> int:
    """The size that the first axes of all inputs agree on."""
    found: dict[int | str | None, str] = {}
    for info in graph.input:
        shape = _declared(info)
        if shape is None:
            raise Refusal(f"input '{info.name}' has no shape")
        if shape:
            found.setdefault(shape[0], info.name)
    if len(found) != 1:
        told = ", ".join(f"{size or 'open'} of '{name}'" for size, name in found.items())
        raise Refusal(f"inputs have first axes of different sizes: {told}" if told else NO_BATCH)
    ((size, name),) = found.items()
    if not isinstance(size, int) or size < 1:
        raise Refusal(f"input '{name}' has a first axis of size {size}")
    return size


def _values(proto: ModelProto) -> Values:
    """What is known of a model's values, constants that nodes compute taken for constants."""
    known = Values(proto)
    folded = ModelProto()
    folded.CopyFrom(proto)
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        constants = [known.constant(name) for name in node.output]
        if len(constants) != 1 or constants[0] is None:
            kept.append(node)
        else:
            tensor = numpy_helper.from_array(constants[0], node.output[0])
            folded.graph.initializer.append(tensor)
    del folded.graph.node[:]
    folded.graph.node.extend(kept)
    del folded.graph.value_info[:]
    return Values(folded)


class _Flow:
    """Follows the batch axis through a graph.

    Attributes:
        states: Where the samples are, for every value.
    """

    def __init__(self, proto: ModelProto, batch: int) -> None:
        self.states: dict[str, State] = {}
        self._edits: dict[int, Mapping[int, Edit]] = {}
        self._outputs = [info.name for info in proto.graph.output]
        self._batch = batch
        self._values = _values(proto)
        self._constants: dict[str, np.ndarray] = {}
        for info in proto.graph.input:
            if _declared(info):
                self.states[info.name] = Batched(0)
        self._search(list(proto.graph.node))

    @property
    def edits(self) -> dict[tuple[int, int], Edit]:
        """New inputs, by index of the node and of the input."""
        return {
            (index, position): edit
            for index, edits in self._edits.items()
            for position, edit in edits.items()
        }

    def _search(self, nodes: Sequence[NodeProto]) -> None:
        """Follow all nodes; behind a wrong choice go back to the last one that was made."""
        open_choices: list[tuple[int, int]] = []
        farthest = -1, Refusal("it has no nodes")
        index = choice = attempts = 0
        while index <= len(nodes):
            try:
                if index == len(nodes):
                    self._check_outputs()
                elif self._follow(index, nodes[index], choice) > choice + 1:
                    open_choices.append((index, choice + 1))
                index, choice = index + 1, 0
            except Refusal as refusal:
                farthest = max(farthest, (index, refusal), key=lambda found: found[0])
                attempts += 1
                if not open_choices or attempts > ATTEMPTS:
                    raise farthest[1] from None
                index, choice = open_choices.pop()

    def _follow(self, index: int, node: NodeProto, choice: int) -> int:
        """Find the states of a node's outputs; returns how many readings the node has."""
        states = [self.states.get(name) for name in node.input]
        found: Sequence[State] | State = None
        readings = 1
        self._edits.pop(index, None)
        if any(state is not None for state in states) or self._captures(node, index):
            label = node_label(node, index)
            site = BatchNode(
                node, label, states, self._batch, self._values, self._constants, choice
            )
            found = self._outcome(site)
            self._edits[index] = site.edits
            readings = site.readings
        every = found if isinstance(found, Sequence) else [found] * len(node.output)
        for name, state in zip(node.output, every, strict=False):
            if not name:
                continue
            self.states[name] = self._settled(name, state)
            self._check_size(name, node_label(node, index))
        return readings

    def _outcome(self, site: BatchNode) -> Sequence[State] | State:
        node = site.node
        if any(subgraphs(node, 0)):
            site.refuse("has a body, through which the batch is not followed")
        standard = not plain_domain(node.domain)
        whole = not any(isinstance(state, Batched) for state in site.states)
        sizes = SIZE_OPERATORS.get(node.op_type) if standard else None
        if sizes is not None and (whole or node.op_type in ("Shape", "Size")):
            return Sizes(sizes(site))
        rule = RULES.get(("" if standard else node.domain, node.op_type))
        if rule is None:
            site.refuse("is not known to keep samples apart")
        return rule(site)

    def _captures(self, node: NodeProto, index: int) -> bool:
        """Whether a body reads what depends on the batch."""
        bodies = [graph for _, graph in subgraphs(node, index)]
        for body in bodies:
            for inner in body.node:
                bodies += [graph for _, graph in subgraphs(inner, 0)]
                if any(self.states.get(name) is not None for name in inner.input):
                    return True
            if any(self.states.get(info.name) is not None for info in body.output):
                return True
        return False

    def _settled(self, name: str, state: State) -> State:
        """Sizes in which the batch does not occur are constants like others."""
        self._constants.pop(name, None)
        if not isinstance(state, Sizes):
            return state
        entries = state.entries.reshape(-1).tolist()
        if not all(isinstance(entry, int | float | str) for entry in entries):
            return state
        if not any(isinstance(entry, str) for entry in entries):
            self._constants[name] = np.array(state.entries.tolist())
        return None

    def _check_size(self, name: str, label: str) -> None:
        """What a rule says must fit what shape inference says."""
        state = self.states[name]
        shape = self._values.shape(name)
        if isinstance(state, Batched) and shape is not None:
            size = shape[state.axis] if state.axis < len(shape) else -1
            if isinstance(size, int) and size != self._batch * state.each:
                raise Refusal(f"the shape of '{name}', of '{label}', does not tell its batch axis")

    def _check_outputs(self) -> None:
        for name in self._outputs:
            self._check_output(name)
        if not any(self.states[name] for name in self._outputs):
            raise Refusal("no output depends on the batch")

    def _check_output(self, name: str) -> None:
        state = self.states.get(name)
        if isinstance(state, Sizes):
            raise Refusal(f"output '{name}' is computed from the size of the batch")
        if isinstance(state, Batched) and state.each != 1:
            raise Refusal(
                f"output '{name}' has {state.each} entries of axis {state.axis} for every sample"
            )
        self.states.setdefault(name, None)


def _open(graph: GraphProto, states: Mapping[str, State]) -> None:
    """Name the batch axis of inputs and outputs, and drop what was inferred with the old size."""
    taken = {
        dim.dim_param
        for info in (*graph.input, *graph.output)
        for dim in info.type.tensor_type.shape.dim
    }
    name = next(name for name in fresh_names(NAME) if name not in taken)
    for info in (*graph.input, *graph.output):
        state = states.get(info.name)
        if isinstance(state, Batched) and info.type.tensor_type.HasField("shape"):
            shape = info.type.tensor_type.shape
            if len(shape.dim) > state.axis:
                shape.dim[state.axis].dim_param = name
            else:
                info.type.tensor_type.ClearField("shape")  # it was wrong
    del graph.value_info[:]
