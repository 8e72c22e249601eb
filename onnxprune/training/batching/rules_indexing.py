"""How operators that pick elements by index carry the batch axis."""

from __future__ import annotations

from .nodes import BatchNode, State, batch_rule


@batch_rule("Gather")
def gather(node: BatchNode) -> State:
    """Slices of each sample by common indices, or of a common table by each sample's indices."""
    axis = node.axis("axis", 0)
    if node.state(0) is None:
        indices = node.batched(1)
        return indices.at(axis + indices.axis)
    state = node.batched(0)
    if node.state(1) is not None:
        node.refuse("picks from each sample by indices of its own")
    if state.axis == axis:
        node.refuse("picks samples by index")
    return state.at(state.axis + (node.rank(1) - 1 if state.axis > axis else 0))


@batch_rule("GatherElements", "ScatterElements")
def along_axis(node: BatchNode) -> State:
    """Along another axis, with indices (and updates) for every sample."""
    state = node.same(*(i for i in range(len(node.node.input)) if node.state(i) is not None))
    if state.axis == node.axis("axis", 0):
        node.refuse("picks samples by index")
    for index in range(len(node.node.input)):
        if node.state(index) is None:
            node.lift(index, state)
    return state


@batch_rule("GatherND")
def gather_nd(node: BatchNode) -> State:
    """Of a common table, or within each sample (batch_dims)."""
    if node.state(0) is None:
        indices = node.batched(1)
        if node.attribute("batch_dims", 0) or indices.axis == node.rank(1) - 1:
            node.refuse("has indices that are made of several samples")
        return indices
    state = node.same(0, 1)
    if state.axis >= node.attribute("batch_dims", 0):
        node.refuse("picks samples by index")
    return state


@batch_rule("OneHot")
def one_hot(node: BatchNode) -> State:
    """A new axis, the last by default."""
    node.need_fixed(1, 2)
    state = node.batched(0)
    axis = node.attribute("axis", -1) % (node.rank(0) + 1)
    return state.at(state.axis + (axis <= state.axis))
