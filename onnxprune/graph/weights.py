"""Every weight operand of every node, and the stored tensors behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from onnx import TensorProto

from ..model.model import Model
from .constants import Constants, Stored
from .index import ModelIndex, Node, Read, Value
from .layer import Quantization, Role, WeightUse
from .operators import Operand, operands
from .quantization import same_quantization, stored_quantization
from .trace import Source, Tracer
from .views import View, stored_roles

__all__ = ["Found", "Missing", "WeightSearch"]

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
#: Roles of the axis that a 1-d scale runs along, most telling first.
_SCALED: tuple[Role, ...] = ("direction", "output")


@dataclass(eq=False)
class Found:
    """A stored tensor that at least one node reads as a weight or as a table."""

    stored: Stored
    first: Read
    reads: list[Read] = field(default_factory=list)
    uses: dict[WeightUse, None] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    quantization: Quantization | None = None
    cast: bool = False
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Missing:
    """A weight operand with no stored tensor behind it."""

    name: str
    read: Read
    reason: str


class WeightSearch:
    """Looks through all nodes of a model once.

    Attributes:
        found: stored tensors read as weights, by the value that defines them, in graph order.
        missing: weights that only running makes, by the value where the way back ended.
        reads: every (graph, node, input) position that is a weight operand and not a table.
    """

    def __init__(self, model: Model, *, embeddings: bool = False) -> None:
        """Index the model and collect its weights; `embeddings` makes tables weights."""
        self.embeddings = embeddings
        self.index = ModelIndex(model.proto)
        self.constants = Constants(model, self.index)
        self.tracer = Tracer(self.index, self.constants)
        self.found: dict[Value, Found] = {}
        self.missing: dict[Value, Missing] = {}
        self.reads: set[tuple[int, int, int]] = set()
        self._static: dict[Value, bool] = {}
        for node in self.index.nodes():
            if self.index.called(node) is None:
                self._visit(node)

    def _visit(self, node: Node) -> None:
        for operand in operands(node):
            value = node.input(operand.index)
            if value is None:
                continue
            read = Read(node, operand.index)
            fed = self._is_fed(node, operand)
            for source in self.tracer.sources(value):
                stored = source.stored
                # A vector or a computed constant before a stored matrix is what it multiplies.
                if fed and (stored is None or len(stored.shape) < 2):
                    continue
                if stored is not None and source.view is not None:
                    self._add(read, operand, stored, source.view)
                elif self._is_weight(operand, source):
                    missing = Missing(source.value.name, read, source.reason)
                    self.missing.setdefault(source.value, missing)

    def _is_fed(self, node: Node, operand: Operand) -> bool:
        """Whether the other side of a product is a stored weight."""
        other = None if operand.unless is None else node.input(operand.unless)
        return other is not None and any(s.stored for s in self.tracer.sources(other))

    def _is_weight(self, operand: Operand, source: Source) -> bool:
        """Whether an operand without a stored tensor is a weight at all, not an activation."""
        if operand.table or operand.packed:
            return False
        if not operand.either or source.origin == "form":
            return True
        return source.origin == "computed" and self.is_static(source.value)

    def _add(self, read: Read, operand: Operand, stored: Stored, view: View) -> None:
        if len(stored.shape) < operand.least_rank or (operand.table and not _is_table(stored)):
            return
        found = self.found.get(stored.value)
        if found is None:
            found = self.found[stored.value] = Found(stored, read)
        label = self.index.label(read.node)
        if operand.table and not self.embeddings:
            found.tables.append(label)
            return
        self.reads.add((read.node.graph, read.node.index, read.position))
        found.reads.append(read)
        found.cast |= view.cast
        problem = operand.packed or view.problem
        seen = None
        if problem is None:
            seen = _roles(read, operand, view)
            quantization = self._quantization(read, operand, stored, view, seen)
            problem = _merge(found, quantization)
        found.problem = found.problem or problem
        roles = stored_roles(view, stored.shape, seen)
        node = read.node
        found.uses[WeightUse(label, node.op_type, node.domain, read.position, roles)] = None

    def _quantization(
        self,
        read: Read,
        operand: Operand,
        stored: Stored,
        view: View,
        seen: Sequence[Role] | None,
    ) -> Quantization | str | None:
        """How the codes that this operand reads become values; a reason where it cannot be told."""
        if not operand.quantized or view.requantized or view.quantization is not None:
            return view.quantization
        scale = None
        if operand.scale is not None and read.node.input(operand.scale) is not None:
            scale = self.constants.constant(read.node.input(operand.scale))
            if scale is None:
                return "its scale is made at run time"
        position = operand.zero_point
        value = read.node.input(position) if position is not None else None
        zero_point = self.constants.zero_point(value, stored)
        if zero_point is None:
            return "its zero point is made at run time"
        roles = tuple(seen or ())
        if "direction" in roles:
            # Recurrent scales are (directions,) or (directions, outputs): the inputs share them.
            scale = scale if scale is None or scale.ndim != 2 else scale[:, None, :]
            zero_point = zero_point if zero_point.ndim != 2 else zero_point[:, None, :]
        axis = next((roles.index(r) for r in _SCALED if r in roles), None)
        return stored_quantization(view, stored.shape, scale, zero_point, axis)

    def is_static(self, value: Value) -> bool:
        """Whether a value is the same in every run: made from constants alone."""
        pending = [value]
        opened: set[Value] = set()
        while pending:
            current = pending[-1]
            if current in self._static:
                pending.pop()
                continue
            needed = self._ingredients(current)
            if needed is None or not needed:
                self._static[current] = needed is not None
                continue
            missing = [v for v in needed if v not in self._static and v not in opened]
            opened.add(current)
            if missing:
                pending.extend(missing)
                continue
            self._static[current] = all(self._static.get(v, False) for v in needed)
        return self._static[value]

    def _ingredients(self, value: Value) -> list[Value] | None:
        """What a value is computed from: nothing for a constant, None where runs may differ."""
        if self.index.initializer(value) is not None:
            return []
        made = self.index.producers.get(value)
        if made is None:
            return None
        node = made[0]
        if node.op_type == "Constant" and not node.domain:
            return []
        inputs = [v for v in node.inputs if v is not None]
        attributes = node.proto.attribute
        has_body = any(a.HasField("g") or a.graphs for a in attributes)
        return None if not inputs or has_body or node.op_type in _RANDOM else inputs


def _is_table(stored: Stored) -> bool:
    """Whether a tensor can be an embedding: rows of floats or codes, not of indices or shapes."""
    whole_numbers = (TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL)
    return len(stored.shape) == 2 and stored.tensor.data_type not in whole_numbers


def _roles(read: Read, operand: Operand, view: View) -> Sequence[Role] | None:
    if view.rank is None:
        return None
    return operand.layout(read.node.proto, operand.index, view.rank)


def _merge(found: Found, quantization: Quantization | str | None) -> str | None:
    """Keep what all readers of a tensor say about its codes; a reason where they disagree."""
    if isinstance(quantization, str):
        return quantization
    known = found.quantization
    if known is None:
        found.quantization = quantization
        return None
    if quantization is None:
        return None
    if not same_quantization(known, quantization):
        return "its readers give it different scales or zero points"
    if known.scale is None:
        found.quantization = quantization
    return None
