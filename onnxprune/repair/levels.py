"""How deep each layer lies: layers of one level do not depend on each other."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph.index import ModelIndex, Node

__all__ = ["node_levels"]


def node_levels(index: ModelIndex, marked: Mapping[int, object]) -> dict[int, int]:
    """For every node of the main graph, how many marked nodes lie on the longest way to it.

    Args:
        index: The model's index.
        marked: Nodes that count, by their position in the main graph; a marked node counts itself.

    Returns:
        Levels by position in the main graph.
    """
    made: dict[str, int] = {}
    levels: dict[int, int] = {}
    captured = _captured(index)
    for node in index.graphs[0].nodes:
        names = [value.name for value in node.inputs if value is not None and not value.graph]
        names += captured.get(node.index, [])
        level = max((made.get(name, 0) for name in names), default=0) + (node.index in marked)
        levels[node.index] = level
        made.update((name, level) for name in node.outputs if name)
    return levels


def _captured(index: ModelIndex) -> dict[int, list[str]]:
    """Values of the main graph that bodies read, by the node that holds the body."""
    holders = {
        index.label(node): node.index
        for node in index.graphs[0].nodes
        if any(a.HasField("g") or a.graphs for a in node.proto.attribute)
    }
    found: dict[int, list[str]] = {}
    for value, reads in index.readers.items():
        if value.graph:
            continue
        for read in reads:
            holder = _holder(index, read.node, holders)
            if holder is not None:
                found.setdefault(holder, []).append(value.name)
    return found


def _holder(index: ModelIndex, node: Node, holders: Mapping[str, int]) -> int | None:
    """The node of the main graph in whose body a node is."""
    scope = index.graphs[node.graph].scope
    if not scope:
        return None
    return next((at for label, at in holders.items() if scope[0].startswith(f"{label}.")), None)
