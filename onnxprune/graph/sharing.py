"""Who else reads a weight: a tensor that is also a bias, an output or an addend must not change."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from .index import ModelIndex, Node, Read, Value
from .trace import Tracer
from .view_nodes import is_join, is_view

__all__ = ["OtherReaders", "other_readers"]

# Operators that look at the shape, never at the values.
_SHAPE_ONLY = frozenset({"Shape", "Size"})
_LOOKUPS = frozenset(
    {"Gather", "GatherElements", "GatherND", "EmbedLayerNormalization", "TorchEmbedding"}
)


@dataclass(frozen=True)
class OtherReaders:
    """What else becomes of a weight.

    Attributes:
        reason: the first reading that forbids to change it; None where there is none.
        lookups: nodes that look its rows up, which pruning serves as well as the weight.
    """

    reason: str | None
    lookups: tuple[str, ...]


def other_readers(
    index: ModelIndex, tracer: Tracer, start: Value, weight_reads: Container[tuple[int, int, int]]
) -> OtherReaders:
    """Follow a stored tensor forward through views, bodies and functions to all who read it.

    Args:
        index: the model.
        tracer: the same model's tracer, which knows the views inside functions.
        start: the value that the tensor defines.
        weight_reads: (graph, node, input) of every reading as a weight: these are fine.
    """
    lookups: list[str] = []
    reason: str | None = None
    pending = [start]
    seen = {start}
    while pending and reason is None:
        value = pending.pop()
        reason = _returned(index, start, value)
        for read in index.readers.get(value, ()):
            node = read.node
            if (node.graph, node.index, read.position) in weight_reads:
                continue
            onward = _onward(index, tracer, read)
            if onward is not None:
                pending.extend(v for v in onward if v not in seen)
                seen.update(onward)
            elif _looks_up(read):
                lookups.append(f"also read by {node.op_type} '{index.label(node)}'")
            elif not _ignores_values(read):
                label = index.label(node)
                reason = f"also used by {node.op_type} '{label}' as something other than a weight"
                break
    return OtherReaders(reason, tuple(dict.fromkeys(lookups)))


def _ignores_values(read: Read) -> bool:
    return read.node.op_type in _SHAPE_ONLY or (read.node.op_type, read.position) == ("CastLike", 1)


def _looks_up(read: Read) -> bool:
    tables = (2, 3, 4) if read.node.op_type == "EmbedLayerNormalization" else (0,)
    return read.node.op_type in _LOOKUPS and read.position in tables


def _returned(index: ModelIndex, start: Value, value: Value) -> str | None:
    """Why being an output of a graph forbids to change a tensor, if it does.

    A function's output is its callers' affair: `_onward` went there from the call already.
    """
    for number in index.returned.get(value, ()):
        graph = index.graphs[number]
        if not graph.scope:
            return f"also an output of the model ('{value.name}')"
        if not graph.is_function:
            return f"also an output of body '{'/'.join(graph.scope)}'"
        if start.graph == number:
            return f"also an output of '{graph.scope[-1]}'"
    return None


def _onward(index: ModelIndex, tracer: Tracer, read: Read) -> list[Value] | None:
    """Values that show the same numbers after a reading; None where the way ends there."""
    node = read.node
    if is_view(node):
        return _outputs(node) if read.position == 0 else None
    if is_join(node):
        onward = _outputs(node)
        stored = all(source.stored for value in onward for source in tracer.sources(value))
        return onward if stored else None
    function = index.called(node)
    if function is None:
        return None
    graph = index.graphs[function]
    if read.position >= len(graph.inputs):
        return []
    formal = Value(function, graph.inputs[read.position])
    onward = [formal]
    for position, result in enumerate(graph.outputs):
        if position < len(node.outputs) and tracer.passage(result)[1] == formal:
            onward.append(Value(node.graph, node.outputs[position]))
    return onward


def _outputs(node: Node) -> list[Value]:
    return [Value(node.graph, name) for name in node.outputs if name]
