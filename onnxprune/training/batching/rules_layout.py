"""How operators that move, cut and join axes carry the batch axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...graph.attributes import integers, text
from .nodes import Batched, BatchNode, Entry, Multiple, State, batch_rule
from .sizes import product

INTERLEAVED = "mixes samples: the batch axis does not stay in its place"
PART = "takes a part of the batch"
#: An end that is behind every axis.
END = np.iinfo(np.int64).max


@batch_rule("Transpose")
def transpose(node: BatchNode) -> State:
    """The batch axis goes where `perm` puts it."""
    state = node.batched(0)
    order = integers(node.node, "perm") or tuple(range(node.rank(0)))[::-1]
    return state.at(order.index(state.axis))


@batch_rule("Unsqueeze")
def unsqueeze(node: BatchNode) -> State:
    """New axes of size one."""
    state = node.batched(0)
    rank = node.rank(0) + len(node.integers(1))
    added = set(node.axes(1, rank))
    old = [axis for axis in range(rank) if axis not in added]
    return state.at(old[state.axis])


@batch_rule("Squeeze")
def squeeze(node: BatchNode) -> State:
    """Axes of size one disappear; the batch must not be among them."""
    state = node.batched(0)
    if not node.has(1):
        node.refuse("drops every axis of size 1, and so that of a batch of 1")
    axes = node.axes(1, node.rank(0))
    if state.axis in axes:
        node.refuse("drops the batch axis")
    return state.at(state.axis - sum(axis < state.axis for axis in axes))


@batch_rule("Flatten")
def flatten(node: BatchNode) -> State:
    """To a matrix, cut in front of `axis`."""
    state = node.batched(0)
    cut = node.attribute("axis", 1)
    cut += node.rank(0) if cut < 0 else 0
    shape = node.shape(0)
    first, last = (0, cut) if state.axis < cut else (cut, len(shape))
    outer, inner = product(shape[first : state.axis]), product(shape[state.axis + 1 : last])
    if not isinstance(outer, int) or not isinstance(inner, int):
        node.refuse("merges the batch axis with one of unknown size")
    return Batched(int(state.axis >= cut), state.per * inner, state.before * outer)


@batch_rule("Reshape")
def reshape(node: BatchNode) -> State:
    """Samples must stay apart; a target that bakes in the size of the batch is rewritten."""
    state = node.batched(0)
    target = node.vector(1)
    if node.attribute("allowzero", 0) and 0 in target:
        node.refuse("has a target shape of no elements")
    plain = all(isinstance(size, int | str) for size in target[1:])
    if plain and state.axis == 0 and target[0] in (0, Multiple(state.each)):
        return state  # the first axis stays, whatever becomes of the others
    static = all(isinstance(size, int) for size in node.shape(0))
    if not static and state.axis == 0 and target[0] == node.size(state):
        node.edits[1] = np.array(_kept_first(node, target), np.int64)
        return state
    shape: list[Entry] = [*node.static(0)]
    shape[state.axis] = Multiple(state.each)
    wanted = [shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    places = [axis for axis, size in enumerate(wanted) if isinstance(size, Multiple)]
    if len(places) > 1:
        node.refuse("has a target shape with the size of the batch in it twice")
    if places:
        return _symbolic(node, state, wanted, places[0])
    return _baked(node, state, _numbers(node, wanted))


def _kept_first(node: BatchNode, target: Sequence[Entry]) -> list[int]:
    """A target whose first axis is as it was before."""
    if node.attribute("allowzero", 0):
        node.refuse("has a target shape in which 0 does not stand for an axis that stays")
    return [0, *_numbers(node, target[1:])]


def _numbers(node: BatchNode, sizes: Sequence[Entry]) -> list[int]:
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) != len(sizes):
        node.refuse("has a target shape that is not known in full")
    return numbers


def _surroundings(node: BatchNode, state: Batched) -> tuple[int, int]:
    """Pieces of every sample, and their elements."""
    shape = node.static(0)
    outer, inner = math.prod(shape[: state.axis]), math.prod(shape[state.axis + 1 :])
    if not outer * inner:
        node.refuse("reshapes a value without elements")
    return outer * state.before, state.per * inner


def _filled(node: BatchNode, sizes: Sequence[int], whole: int) -> list[int]:
    """A target of `whole` elements with its -1 replaced."""
    rest = math.prod(size for size in sizes if size != -1)
    missing = whole // rest if rest else 0
    filled = [missing if size == -1 else size for size in sizes]
    if math.prod(filled) != whole:
        node.refuse("has a target shape that does not fit every batch")
    return filled


def _split(sizes: Sequence[int], axis: int, outer: int, inner: int) -> Batched | None:
    """How samples lie on an axis; None where they do not stay apart on it."""
    before, loose = divmod(outer, math.prod(sizes[:axis]))
    per, torn = divmod(inner, math.prod(sizes[axis + 1 :]))
    return None if loose or torn else Batched(axis, per, before)


def _symbolic(node: BatchNode, state: Batched, wanted: Sequence[Entry], axis: int) -> State:
    """A target computed from the size of the batch: check that samples stay apart."""
    outer, inner = _surroundings(node, state)
    size = wanted[axis]
    each = size.factor if isinstance(size, Multiple) else 0
    sizes = _numbers(node, [*wanted[:axis], each, *wanted[axis + 1 :]])
    filled = _filled(node, sizes, outer * inner)
    return _split(filled, axis, outer, inner) or node.refuse(INTERLEAVED)


def _baked(node: BatchNode, state: Batched, wanted: Sequence[int]) -> State:
    """A target of numbers alone: find the axis that holds the samples, and leave its size open.

    With a batch of one several axes may hold them; what comes behind decides which is meant.
    """
    outer, inner = _surroundings(node, state)
    filled = _filled(node, wanted, outer * inner * node.batch)
    found = []
    for axis, size in enumerate(filled):
        split = _split(filled, axis, outer, inner)
        if split is not None and size == node.size(split):
            found.append(split)
    if not found:
        node.refuse(INTERLEAVED)
    node.readings = len(found)
    chosen = sorted(found, key=lambda split: (split.before != 1, split.each))[node.choice]
    if wanted[chosen.axis] == -1:
        return chosen
    if chosen == state and state.axis == 0 and not node.attribute("allowzero", 0):
        filled = _kept_first(node, wanted)
    else:
        filled[chosen.axis] = -1
    node.edits[1] = np.array(filled, np.int64)
    return chosen


@batch_rule("Concat")
def concat(node: BatchNode) -> State:
    """Along another axis; a constant of size one along the batch axis is repeated."""
    present = range(len(node.node.input))
    state = node.same(*(index for index in present if node.state(index) is not None))
    first = next(index for index in present if node.state(index) is not None)
    if state.axis == node.axis("axis", 0, first):
        node.refuse("joins values along the batch axis")
    for index in present:
        if node.state(index) is None:
            node.lift(index, state)
    return state


@batch_rule("Split")
def split(node: BatchNode) -> State:
    """Along another axis."""
    node.need_fixed(1)
    return node.apart(node.axis("axis", 0))


@batch_rule("Slice")
def slice_(node: BatchNode) -> State:
    """Of other axes, or all of the batch axis."""
    state = node.batched(0)
    axes = node.axes(3, node.rank(0)) if node.has(3) else list(range(len(node.vector(1))))
    place = axes.index(state.axis) if state.axis in axes else -1
    for index in (1, 2, 4):
        if isinstance(node.state(index), Batched):
            node.need_fixed(index)
        elif node.state(index) is not None:
            others = [size for i, size in enumerate(node.vector(index)) if i != place]
            if not all(isinstance(size, int | str) for size in others):
                node.refuse("takes a part as long as the batch is")
    if place < 0:
        return state
    start, end = node.vector(1)[place], node.vector(2)[place]
    step = node.vector(4)[place] if node.has(4) else 1
    if start != 0 or step != 1:
        node.refuse(PART)
    if end == Multiple(state.each):
        return state
    if not isinstance(end, int) or end < node.size(state):
        node.refuse(PART)
    if end < np.iinfo(np.int32).max:
        ends = node.integers(2)
        ends[place] = END
        node.edits[2] = np.array(ends, np.int64)
    return state


@batch_rule("Pad")
def pad(node: BatchNode) -> State:
    """Along other axes."""
    state = node.batched(0)
    node.need_fixed(1, 2, 3)
    axes = node.axes(3, node.rank(0)) if node.has(3) else list(range(node.rank(0)))
    if state.axis in axes:
        pads, place = node.integers(1), axes.index(state.axis)
        if pads[place] or pads[place + len(axes)]:
            node.refuse("pads the batch axis")
    return state


@batch_rule("Expand")
def expand(node: BatchNode) -> State:
    """To a shape: of a piece per sample, or of one piece for all of them."""
    target = node.vector(1)
    rank = max(len(target), node.rank(0))
    if isinstance(node.state(0), Batched):
        state = node.batched(0)
        result = state.at(rank - node.rank(0) + state.axis)
        place = result.axis - (rank - len(target))
        others = [size for axis, size in enumerate(target) if axis != place]
        if place >= 0 and target[place] not in (1, Multiple(state.each)):
            if target[place] != node.size(state):
                node.refuse("repeats the batch axis")
            numbers = _numbers(node, target)
            numbers[place] = 1
            node.edits[1] = np.array(numbers, np.int64)
        if not all(isinstance(size, int | str) for size in others):
            node.refuse("repeats another axis as often as there are samples")
        return result
    node.need_fixed(0)
    return _repeated(node, target, [1] * (rank - node.rank(0)) + list(node.shape(0)))


@batch_rule("Tile")
def tile(node: BatchNode) -> State:
    """As Expand, with the number of times that each axis is repeated."""
    repeats = node.vector(1)
    if not isinstance(node.state(0), Batched):
        node.need_fixed(0)
        return _repeated(node, repeats, list(node.shape(0)))
    state = node.batched(0)
    if repeats[state.axis] != 1 or not all(isinstance(size, int | str) for size in repeats):
        node.refuse("repeats the batch axis")
    return state


@batch_rule("ConstantOfShape")
def constant_of_shape(node: BatchNode) -> State:
    """One piece for all samples."""
    target = node.vector(0)
    return _repeated(node, target, [1] * len(target))


def _repeated(node: BatchNode, target: Sequence[Entry], shape: Sequence[object]) -> State:
    """What the batch does not change, repeated for every sample: where the repetition lies."""
    found = [axis for axis, size in enumerate(target) if isinstance(size, Multiple)]
    known = all(isinstance(size, int | str | Multiple) for size in target)
    if not known or len(found) != 1:
        node.refuse("has a shape in which the size of the batch is not alone")
    axis = found[0] + len(shape) - len(target)
    size = target[found[0]]
    if shape[axis] != 1 or not isinstance(size, Multiple):
        node.refuse("repeats something of its own size for the samples")
    return Batched(axis, size.factor)


@batch_rule("Resize")
def resize(node: BatchNode) -> State:
    """Of other axes."""
    state = node.batched(0)
    node.need_fixed(1, 2)
    axes = [axis % node.rank(0) for axis in integers(node.node, "axes") or range(node.rank(0))]
    if state.axis not in axes:
        node.need_fixed(3)
        return state
    if "crop" in (text(node.node, "coordinate_transformation_mode") or ""):
        node.refuse("crops the batch axis")
    place = axes.index(state.axis)
    if not node.has(3):
        scales = node.constant(2)
        if scales is None or scales.reshape(-1)[place] != 1:
            node.refuse("scales the batch axis")
        return state
    if (text(node.node, "keep_aspect_ratio_policy") or "stretch") != "stretch":
        node.refuse("scales all axes alike, that of the batch included")
    sizes = node.vector(3)
    if sizes[place] == Multiple(state.each):
        _numbers(node, [1 if i == place or isinstance(s, str) else s for i, s in enumerate(sizes)])
    elif sizes[place] == node.size(state):
        numbers = _numbers(node, sizes)
        node.edits[3] = (*numbers[:place], Multiple(state.each), *numbers[place + 1 :])
    else:
        node.refuse("scales the batch axis")
    return state
