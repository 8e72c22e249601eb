"""Operators that join axes and take parts of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..atoms import Labels
from ..registry import Axes, Site, rule
from ..revision import Revision, revision


@rule("Concat")
def concat(site: Site) -> None:
    """Labels are joined along the axis; the other axes are equal."""
    operands = [site.axes(index) for index in range(len(site.node.input))]
    axis = site.integer("axis", 1) % len(operands[0])
    site.set(joined(site, operands, axis))


@rule("Split")
def split(site: Site) -> None:
    """Each result has its part of the labels."""
    x = site.axes(0)
    axis = site.integer("axis", 0) % len(x)
    start = 0
    for index, name in enumerate(site.node.output):
        size = site.output_shape(index)[axis] if name else 0
        if not name:
            site.barrier("has a part that nobody named")
        site.set(_with(x, axis, x[axis][start : start + size]), index)
        start += size


@revision("Split")
def revise_split(edit: Revision) -> None:
    """The sizes of the parts."""
    site = edit.site
    axis = site.integer("axis", 0) % len(site.shape(0))
    if edit.kept(0)[axis].all():
        return
    parts = range(len(site.node.output))
    sizes = [int(edit.kept_result(index)[axis].sum()) for index in parts]
    edit.drop_attribute("num_outputs")
    if site.opset < 13:
        edit.set_attribute("split", sizes)
    else:
        edit.set_operand(1, sizes)


@rule("Slice")
def slice_(site: Site) -> None:
    """A run of indices with step 1 is followed; other axes that are cut stay."""
    x = site.axes(0)
    axes = _slice_axes(site, len(x))
    shape, result = site.output_shape(), list(x)
    starts, ends = site.numbers(1, "starts"), site.numbers(2, "ends")
    steps = site.numbers(4, "steps") if site.has(4) else [1] * len(axes)
    for place, axis in enumerate(axes):
        taken = None
        if starts is not None and ends is not None and steps is not None and steps[place] == 1:
            taken = slice(starts[place], ends[place])
        if taken is not None and not site.sizes.dynamic(site.node.input[0])[axis]:
            result[axis] = x[axis][taken]
        else:
            site.freeze(x[axis], "takes a part that is not a fixed run of indices")
            result[axis] = site.fixed(shape[axis])
    site.set(result)


def _slice_axes(site: Site, rank: int) -> list[int]:
    if not site.given(3, "axes"):
        return list(range(len(site.numbers(1, "starts") or range(rank))))
    axes = site.numbers(3, "axes")
    if axes is None:
        site.barrier("its axes are only known when it runs")
    return [axis % rank for axis in axes]


@revision("Slice")
def revise_slice(edit: Revision) -> None:
    """The bounds, counted in the indices that are left."""
    site = edit.site
    kept = edit.kept(0)
    starts, ends = site.numbers(1, "starts"), site.numbers(2, "ends")
    if starts is None or ends is None:
        return
    axes = _slice_axes(site, len(kept))
    new = [list(starts), list(ends)]
    for place, axis in enumerate(axes):
        mask = kept[axis]
        if mask.all():
            continue
        begin, end, _ = slice(starts[place], ends[place]).indices(len(mask))
        new[0][place], new[1][place] = int(mask[:begin].sum()), int(mask[:end].sum())
    if new != [starts, ends]:
        edit.set_numbers(1, "starts", new[0])
        edit.set_numbers(2, "ends", new[1])


@rule("Pad")
def pad(site: Site) -> None:
    """Constant padding stays, and so do axes that are padded with what is in them."""
    x = site.axes(0)
    pads = site.numbers(1, "pads" if site.opset > 1 else "paddings")
    axes = site.numbers(3, "axes") if site.given(3, "axes") else list(range(len(x)))
    if axes is None:
        site.barrier("its axes are only known when it runs")
    result, shape = list(x), site.output_shape()
    constant = site.text("mode", "constant") == "constant"
    for place, axis in enumerate(axes):
        if pads is None or not constant:
            unpadded = pads is not None and not pads[place] and not pads[place + len(axes)]
            if not unpadded:
                site.freeze(x[axis], "pads the axis with its own elements or by an open number")
                result[axis] = site.fixed(shape[axis])
            continue
        result[axis] = _padded(site, x[axis % len(x)], pads[place], pads[place + len(axes)])
    site.set(result)


def _padded(site: Site, labels: Labels, before: int, after: int) -> Labels:
    if before < 0 or after < 0:
        site.freeze(labels, "crops the axis")
    inner = labels[max(-before, 0) : len(labels) - max(-after, 0)]
    parts = [site.fixed(max(before, 0)), inner, site.fixed(max(after, 0))]
    return np.concatenate(parts)


def joined(site: Site, operands: Sequence[Axes], axis: int) -> list[Labels]:
    """Axes of operands that are laid side by side along one of them."""
    result = list(operands[0])
    for axes in operands[1:]:
        for position, labels in enumerate(axes):
            if position != axis:
                site.unify(result[position], labels)
    result[axis] = np.concatenate([axes[axis] for axes in operands])
    return result


def _with(axes: Axes, axis: int, labels: Labels) -> list[Labels]:
    found = list(axes)
    found[axis] = labels
    return found
