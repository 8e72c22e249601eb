"""Arithmetic on shapes in which the size of the batch occurs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...graph.attributes import integer
from .nodes import BatchNode, Entry, Multiple, Sizes

__all__ = ["SIZE_OPERATORS", "product"]

Entries = np.ndarray
SizeRule = Callable[[BatchNode], Entries]


def product(entries: Sequence[Entry]) -> Entry:
    """Product of sizes."""
    result: Entry = 1
    for entry in entries:
        result = _times(result, entry)
    return result


def _times(left: Entry, right: Entry) -> Entry:
    if isinstance(right, Multiple):
        left, right = right, left
    if isinstance(left, Multiple):
        return _scaled(left, right) if isinstance(right, int) else None
    return _plain(left, right, lambda a, b: a * b)


def _scaled(size: Multiple, by: int) -> Entry:
    return Multiple(size.factor * by) if by else 0


def _plus(left: Entry, right: Entry) -> Entry:
    if isinstance(left, Multiple) and isinstance(right, Multiple):
        total = left.factor + right.factor
        return Multiple(total) if total else 0
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Multiple):
            return one if not isinstance(other, str) and other == 0 else None
    return _plain(left, right, lambda a, b: a + b)


def _minus(left: Entry, right: Entry) -> Entry:
    return _plus(left, _times(right, -1))


def _over(left: Entry, right: Entry) -> Entry:
    """Exact quotients only: rounding differs between integers and floats."""
    if isinstance(left, Multiple) and isinstance(right, Multiple):
        return left.factor // right.factor if left.factor % right.factor == 0 else None
    if isinstance(left, Multiple) and isinstance(right, int):
        return Multiple(left.factor // right) if right and left.factor % right == 0 else None
    if isinstance(right, Multiple):
        return None
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return _plain(left, right, lambda *_: "?")


def _equals(left: Entry, right: Entry) -> Entry:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Multiple):
            if isinstance(other, Multiple):
                return one == other or None
            # There is at least one sample.
            return False if isinstance(other, int) and other * one.factor <= 0 else None
    return _plain(left, right, lambda a, b: a == b)


def _plain(left: Entry, right: Entry, compute: Callable[[Any, Any], Entry]) -> Entry:
    """Of operands without the batch."""
    if left is None or right is None:
        return None
    if isinstance(left, str) or isinstance(right, str):
        return "?"
    return compute(left, right)


def _choose(condition: Entry, left: Entry, right: Entry) -> Entry:
    if isinstance(condition, bool | int):
        return left if condition else right
    if left == right and left != "?":
        return left
    independent = isinstance(left, int | str) and isinstance(right, int | str)
    return "?" if isinstance(condition, str) and independent else None


def _elementwise(compute: Callable[..., Entry]) -> SizeRule:
    def rule(node: BatchNode) -> Entries:
        operands = [_input(node, index) for index in range(len(node.node.input))]
        return _objects(np.frompyfunc(compute, len(operands), 1)(*operands))

    return rule


def _input(node: BatchNode, index: int = 0) -> Entries:
    entries = node.entries(index)
    if entries is None:
        node.refuse(f"computes a shape from '{node.node.input[index]}', of unknown value")
    return entries


def _objects(result: Any) -> Entries:
    """An object array, where numpy makes a bare object of a 0-d one."""
    if isinstance(result, np.ndarray):
        return result
    array = np.empty((), object)
    array[()] = result
    return array


def _dimensions(node: BatchNode) -> list[Entry]:
    if isinstance(node.state(0), Sizes):
        return list(_input(node).shape)
    state = node.batched(0)
    found: list[Entry] = list(node.shape(0))
    found[state.axis] = Multiple(state.each)
    return found


def _shape(node: BatchNode) -> Entries:
    found = _dimensions(node)
    start, end = node.attribute("start", 0), integer(node.node, "end", len(found))
    return np.array(found, object)[start:end]


def _size(node: BatchNode) -> Entries:
    return _objects(product(_dimensions(node)))


def _same(node: BatchNode) -> Entries:
    return _input(node)


def _gather(node: BatchNode) -> Entries:
    indices = node.constant(1)
    if indices is None:
        node.refuse("picks unknown elements of a shape")
    return _objects(np.take(_input(node), indices, axis=node.attribute("axis", 0)))


def _concat(node: BatchNode) -> Entries:
    parts = [_input(node, index) for index in range(len(node.node.input))]
    return np.concatenate(parts, axis=node.attribute("axis", 0))


def _slice(node: BatchNode) -> Entries:
    entries = _input(node)
    starts, ends = node.integers(1), node.integers(2)
    axes = node.integers(3) if node.has(3) else list(range(len(starts)))
    steps = node.integers(4) if node.has(4) else [1] * len(starts)
    window = [slice(None)] * entries.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        beyond = step < 0 and end < -entries.shape[axis]  # numpy has no number for that
        window[axis] = slice(start, None if beyond else end, step)
    return entries[tuple(window)]


def _squeeze(node: BatchNode) -> Entries:
    entries = _input(node)
    return np.squeeze(entries, tuple(node.integers(1)) if node.has(1) else None)


def _unsqueeze(node: BatchNode) -> Entries:
    return np.expand_dims(_input(node), tuple(node.integers(1)))


def _reshape(node: BatchNode) -> Entries:
    entries, target = _input(node), node.integers(1)
    sizes = [entries.shape[i] if size == 0 else size for i, size in enumerate(target)]
    return entries.reshape(sizes)


def _reduce_product(node: BatchNode) -> Entries:
    entries = _input(node)
    whole = node.integers(1) in ([0], [-1]) if node.has(1) else True
    if entries.ndim != 1 or not whole or node.attribute("noop_with_empty_axes", 0):
        node.refuse("multiplies sizes along axes that are not followed")
    result = _objects(product(list(entries)))
    return result.reshape(1) if node.attribute("keepdims", 1) else result


#: Operators with which exporters compute shapes.
SIZE_OPERATORS: dict[str, SizeRule] = {
    "Add": _elementwise(_plus),
    "Cast": _same,
    "Concat": _concat,
    "Div": _elementwise(_over),
    "Equal": _elementwise(_equals),
    "Gather": _gather,
    "Identity": _same,
    "Mul": _elementwise(_times),
    "ReduceProd": _reduce_product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _elementwise(_minus),
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(_choose),
}
