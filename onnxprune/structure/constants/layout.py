"""Operators that order and group elements anew, repeat, join or pick them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...graph.attributes import find_attribute, integers
from ..registry import Site
from ..scales import find_scales
from .known import LIMIT, Known, joined, known, wide
from .registry import Fact, constant

#: Axes of the operand and of the result that hold the same elements in the same order.
Block = tuple[tuple[int, ...], tuple[int, ...]]


@constant("Transpose")
def transpose(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Axes in another order."""
    x = operands[0]
    if x is None:
        return [None]
    perm = integers(site.node, "perm") or tuple(reversed(range(x.mask.ndim)))
    return [Known(x.values.transpose(perm), x.mask.transpose(perm))]


@constant("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Only axes that are regrouped and not uniform are written out: those of a sample."""
    x = operands[0]
    if x is None:
        return [None]
    source, result = site.node.input[0], site.node.output[0]
    old, new = site.shape(0), site.output_shape()
    blocks = _blocks(old, new)
    runs = site.sizes.two.shapes
    if blocks is None or blocks != _blocks(runs[source], runs[result]):
        return [None]
    dynamic = site.sizes.dynamic(source)
    shape = [1] * len(new)
    for before, after in blocks:
        if x.uniform(*before):
            continue
        if any(dynamic[axis] for axis in before) and (len(before), len(after)) != (1, 1):
            return [None]
        for axis in before:
            x = x.along(axis, old[axis])
        for axis in after:
            shape[axis] = new[axis]
        if prod(shape) > LIMIT:
            return [None]
    return [Known(x.values.reshape(shape), x.mask.reshape(shape))]


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[Block] | None:
    """The finest runs of axes with as many elements before as after."""
    if prod(old) != prod(new) or 0 in old:
        return None
    blocks: list[Block] = []
    i = j = 0
    while i < len(old) or j < len(new):
        start, sizes = (i, j), (1, 1)
        while True:
            if (sizes[0] <= sizes[1] and i < len(old)) or j == len(new):
                sizes, i = (sizes[0] * old[i], sizes[1]), i + 1
            else:
                sizes, j = (sizes[0], sizes[1] * new[j]), j + 1
            if sizes[0] == sizes[1]:
                break
        blocks.append((tuple(range(start[0], i)), tuple(range(start[1], j))))
    return blocks


@constant("Expand")
def expand(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Leading axes are added; whatever is repeated is uniform."""
    x, rank = operands[0], len(site.output_shape())
    if x is None:
        return [None]
    shape = (*(1 for _ in range(rank - x.mask.ndim)), *x.mask.shape)
    return [Known(x.values.reshape(shape), x.mask.reshape(shape))]


@constant("Tile")
def tile(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Axes that are not uniform are repeated as a whole."""
    x, repeats = operands[0], site.constant(1)
    if x is None or site.opset < 6:
        return [None]
    for axis in range(x.mask.ndim):
        if x.uniform(axis):
            continue
        if repeats is None or prod(x.mask.shape) * int(repeats[axis]) > LIMIT:
            return [None]
        times = [int(repeats[axis]) if i == axis else 1 for i in range(x.mask.ndim)]
        x = Known(np.tile(x.values, times), np.tile(x.mask, times))
    return [x]


@constant("Resize", "Upsample")
def resize(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Weights of an interpolation sum to one."""
    x, shape = operands[0], site.output_shape()
    if x is None or site.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return [None]
    before, dynamic = site.shape(0), site.sizes.dynamic(site.node.input[0])
    scales = find_scales(site)
    changed = [
        axis
        for axis, size in enumerate(shape)
        if size != before[axis] or dynamic[axis] or scales.get(axis, 1.0) != 1
    ]
    return [x if x.uniform(*changed) else None]


@constant("Concat")
def concat(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Along the axis, each operand's constants in their places."""
    name, count = site.node.output[0], len(operands)
    axis = site.integer("axis", 1) % len(site.output_shape())
    if site.sizes.dynamic(name)[axis]:
        return [None]
    return [joined(operands, [site.shape(index)[axis] for index in range(count)], axis)]


@constant("Split")
def split(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Each result has its part."""
    x, count = operands[0], len(site.node.output)
    if x is None:
        return [None] * count
    axis = site.integer("axis", 0) % x.mask.ndim
    if x.uniform(axis):
        return [x] * count
    found: list[Fact] = []
    start = 0
    for index in range(count):
        size = site.output_shape(index)[axis]
        found.append(_part(x, axis, slice(start, start + size)))
        start += size
    return found


@constant("Slice")
def slice_(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """The indices taken, along axes that are not uniform."""
    x = operands[0]
    if x is None:
        return [None]
    starts, ends = site.numbers(1, "starts"), site.numbers(2, "ends")
    rank = x.mask.ndim
    axes = site.numbers(3, "axes") if site.given(3, "axes") else list(range(len(starts or ())))
    steps = site.numbers(4, "steps") if site.has(4) else [1] * len(axes or ())
    if axes is None:
        return [None]
    dynamic = site.sizes.dynamic(site.node.input[0])
    for place, axis in enumerate(axis % rank for axis in axes):
        if x.uniform(axis):
            continue
        if starts is None or ends is None or steps is None or dynamic[axis]:
            return [None]
        part = _part(x, axis, slice(starts[place], _end(ends[place], steps[place]), steps[place]))
        if part is None:
            return [None]
        x = part
    return [x]


def _end(end: int, step: int) -> int | None:
    """The end of a slice as Python takes it: backwards, the smallest number is 'to the start'."""
    return None if step < 0 and end <= -(2**31) else end


@constant("Gather")
def gather(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Rows picked by constants; with computed indices, columns in which all rows are equal."""
    x, indices = operands[0], site.constant(1)
    if x is None:
        return [None]
    axis = site.integer("axis", 0) % len(site.axes(0))
    inner = len(site.output_shape()) - x.mask.ndim + 1
    if indices is not None and not x.uniform(axis):
        flat = indices.reshape(-1).astype(np.int64)
        shape = (*x.mask.shape[:axis], *indices.shape, *x.mask.shape[axis + 1 :])
        if prod(shape) > LIMIT:
            return [None]
        values, mask = np.take(x.values, flat, axis), np.take(x.mask, flat, axis)
        return [Known(values.reshape(shape), mask.reshape(shape))]
    first = _part(x, axis, slice(0, 1))
    if first is None:
        return [None]
    equal = (x.mask & (x.values == first.values)).all(axis, keepdims=True)
    shape = (*x.mask.shape[:axis], *(1 for _ in range(inner)), *x.mask.shape[axis + 1 :])
    return [known(wide(first.values).reshape(shape), equal.reshape(shape))]


@constant("Pad")
def pad(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Along an axis that is written out, padding is joined to it; along others it must be alike."""
    x, fill = operands[0], _fill(site, operands)
    pads = site.numbers(1, "pads" if site.opset > 1 else "paddings")
    if x is None or pads is None or fill is None or site.given(3, "axes"):
        return [None]
    if site.text("mode", "constant") != "constant":
        return [None]
    dynamic, rank = site.sizes.dynamic(site.node.input[0]), x.mask.ndim
    fact: Fact = x
    for axis, (before, after) in enumerate(zip(pads[:rank], pads[rank:], strict=True)):
        if fact is None or not (before or after):
            continue
        if fact.uniform(axis):
            fact = known(wide(fact.values), fact.mask & (fact.values == fill))
        elif before < 0 or after < 0 or dynamic[axis]:
            fact = None
        else:
            edge, size = _filled(fact, axis, fill), site.shape(0)[axis]
            fact = joined([edge, fact, edge], [before, size, after], axis)
    return [fact]


def _fill(site: Site, operands: Sequence[Fact]) -> float | None:
    """What a Pad pads with; None where that is only known when it runs."""
    if site.opset < 11:
        attribute = find_attribute(site.node, "value")
        return 0.0 if attribute is None else attribute.f
    if not site.has(2):
        return 0.0
    value = operands[2]
    known_value = value is not None and value.mask.all() and value.mask.size == 1
    return float(wide(value.values).reshape(())) if value is not None and known_value else None


def _filled(fact: Known, axis: int, fill: float) -> Known:
    shape = [1 if i == axis else size for i, size in enumerate(fact.mask.shape)]
    return Known(np.full(shape, fill), np.ones(shape, bool))


def _part(fact: Known, axis: int, taken: slice) -> Fact:
    place = (slice(None),) * axis + (taken,)
    values, mask = fact.values[place], fact.mask[place]
    return Known(values, mask) if mask.any() else None
