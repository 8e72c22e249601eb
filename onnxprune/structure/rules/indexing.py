"""Operators that pick, place or move indices."""

from __future__ import annotations

import numpy as np

from ...graph.attributes import integers
from ..registry import Axes, Site, rule
from ..revision import Revision, revision

_COMPUTED = "is addressed by computed indices"


@rule("Gather")
def gather(site: Site) -> None:
    """Constant indices pick labels; rows that are looked up at run time all stay."""
    x = site.axes(0)
    axis = site.integer("axis", 0) % len(x)
    indices = site.constant(1)
    if indices is None:
        site.freeze(x[axis], "is looked up by computed indices")
        site.set((*x[:axis], *site.axes(1), *x[axis + 1 :]))
        return
    picked = x[axis][indices.reshape(-1).astype(np.int64)]
    middle: Axes = (picked,)
    if indices.ndim != 1:
        site.freeze(picked, "picks single indices")
        middle = tuple(site.fixed(size) for size in indices.shape)
    site.set((*x[:axis], *middle, *x[axis + 1 :]))


@revision("Gather")
def revise_gather(edit: Revision) -> None:
    """The indices, counted in what is left."""
    site = edit.site
    axis = site.integer("axis", 0) % len(site.shape(0))
    mask, indices = edit.kept(0)[axis], site.constant(1)
    if mask.all() or indices is None:
        return
    position = np.cumsum(mask) - 1
    flat = indices.reshape(-1).astype(np.int64) % len(mask)
    if indices.ndim == 1:
        flat = flat[mask[flat]]
    shape = (-1,) if indices.ndim == 1 else indices.shape
    edit.set_operand(1, position[flat].reshape(shape))


@rule("GatherElements", "ScatterElements", "Scatter")
def by_element(site: Site) -> None:
    """Rows that are picked from or written to stay; axes that all operands share are equal."""
    x, indices = site.axes(0), site.axes(1)
    axis = site.integer("axis", 0) % len(x)
    followers = [indices] if site.node.op_type == "GatherElements" else [indices, site.axes(2)]
    for position, labels in enumerate(x):
        for other in followers:
            if position != axis and len(other[position]) == len(labels):
                site.unify(labels, other[position])
            else:
                site.freeze(labels, _COMPUTED)
                site.freeze(other[position], "addresses elements")
    site.set(indices if site.node.op_type == "GatherElements" else x)


@rule("GatherND")
def gather_slices(site: Site) -> None:
    """Axes behind those that are addressed pass."""
    x, indices = site.axes(0), site.axes(1)
    batch = site.integer("batch_dims", 0)
    depth = batch + len(indices[-1])
    for mine, its in zip(x[:batch], indices[:batch], strict=True):
        site.unify(mine, its)
    for labels in x[batch:depth]:
        site.freeze(labels, _COMPUTED)
    site.fix(indices[-1])
    site.set((*indices[:-1], *x[depth:]))


@rule("ScatterND")
def scatter_slices(site: Site) -> None:
    """Axes behind those that are addressed are equal in what is written and where."""
    x, indices, updates = (site.axes(index) for index in range(3))
    depth = len(indices[-1])
    for labels in x[:depth]:
        site.freeze(labels, _COMPUTED)
    for labels in (*indices, *updates[: len(indices) - 1]):
        site.freeze(labels, "addresses elements")
    for mine, its in zip(x[depth:], updates[len(indices) - 1 :], strict=True):
        site.unify(mine, its)
    site.set(x)


@rule("TensorScatter")
def update_cache(site: Site) -> None:
    """Steps are written into a cache; its other axes are equal to theirs."""
    x, update = site.axes(0), site.axes(1)
    axis = site.integer("axis", -2) % len(x)
    site.freeze(x[0], "has a place to write for each index of the axis")
    for position, (mine, its) in enumerate(zip(x, update, strict=True)):
        if position == axis:
            site.freeze(mine, "is written to step by step")
            site.freeze(its, "is written step by step")
        else:
            site.unify(mine, its)
    site.set(x)


@rule("OneHot")
def one_hot(site: Site) -> None:
    """A new axis, as long as there are values."""
    x = site.axes(0)
    axis = site.integer("axis", -1) % (len(x) + 1)
    depth = site.fixed(site.output_shape()[axis], "has an index for each value")
    site.set((*x[:axis], depth, *x[axis:]))


@rule("Trilu")
def triangle(site: Site) -> None:
    """The last two axes stay."""
    x = site.axes(0)
    for labels in x[-2:]:
        site.freeze(labels, "has a triangle along the axis")
    site.set(x)


@rule("ReverseSequence")
def reverse(site: Site) -> None:
    """Samples and steps stay, other axes pass."""
    x = site.axes(0)
    for name, default in (("batch_axis", 1), ("time_axis", 0)):
        site.freeze(x[site.integer(name, default)], "reverses along the axis")
    site.set(x)


@rule("CenterCropPad")
def centre(site: Site) -> None:
    """Axes that are cropped or padded stay, others pass."""
    x, shape = site.axes(0), site.output_shape()
    result = list(x)
    for axis in integers(site.node, "axes") or range(len(x)):
        site.freeze(x[axis], "crops or pads the axis")
        result[axis] = site.fixed(shape[axis], "crops or pads the axis")
    site.set(result)


@rule("Compress", "NonMaxSuppression", "NonZero", "Unique")
def by_value(site: Site) -> None:
    """How many elements are left depends on their values."""
    site.barrier("picks elements by their values")
