"""Operators that only order and group elements anew, or repeat them."""

from __future__ import annotations

import numpy as np

from ...graph.attributes import integers
from ..atoms import Labels
from ..factoring import Factor, common_factors
from ..registry import Site, rule
from ..revision import Revision, revision


@rule("Transpose")
def transpose(site: Site) -> None:
    """Axes in another order."""
    x = site.axes(0)
    perm = integers(site.node, "perm") or tuple(reversed(range(len(x))))
    site.set([x[axis] for axis in perm])


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(site: Site) -> None:
    """Axes are split into the factors that old and new ones have in common, and merged."""
    name, result = site.node.input[0], site.node.output[0]
    x, target, sizes = site.axes(0), site.output_shape(), site.sizes
    found = common_factors([len(labels) for labels in x], target)
    other = common_factors(sizes.two.shapes[name], sizes.two.shapes[result])
    if found is None or other is None:
        site.barrier("changes the number of elements")
    factors, torn = found
    if [(f.old, f.new) for f in factors] != [(f.old, f.new) for f in other[0]]:
        site.barrier("regroups its axes differently from run to run")
    for axis in torn:
        site.freeze(x[axis], "cuts the axis into parts that do not fit")
    parts = _split(site, x, factors)
    for mine, its, labels in zip(factors, other[0], parts, strict=True):
        if mine.size != its.size:
            site.freeze(labels, "regroups the axis with one whose size is open")
    site.set([_merged(site, axis, size, factors, parts) for axis, size in enumerate(target)])


def _split(site: Site, x: tuple[Labels, ...], factors: list[Factor]) -> list[Labels]:
    parts: list[Labels] = []
    for axis, labels in enumerate(x):
        sizes = [factor.size for factor in factors if factor.old == axis]
        if sizes:
            parts += site.factors(labels, sizes)
    return parts


def _merged(site: Site, axis: int, size: int, factors: list[Factor], parts: list[Labels]) -> Labels:
    own = [part for factor, part in zip(factors, parts, strict=True) if factor.new == axis]
    return site.product(*own) if own else site.fixed(size)


@revision("Reshape")
def revise_reshape(edit: Revision) -> None:
    """The target shape: 0 and -1 stay where they still say the right size."""
    site = edit.site
    shape, counts = site.output_shape(), edit.counts(edit.kept_result())
    before = edit.counts(edit.kept(0))
    computed = site.constant(1) is None and site.has(1)
    target = site.numbers(1, "shape")
    if computed:
        target = [int(size) for size in site.sizes.one.values[site.node.input[1]]]
    if target is None:
        return
    dynamic = edit.dynamic()
    wanted = list(target)
    for axis, size in enumerate(target):
        said = before[axis] if size == 0 else shape[axis]
        if size != -1 and counts[axis] != said:
            wanted[axis] = counts[axis]
    if wanted == target:
        return
    if not computed:
        edit.set_numbers(1, "shape", wanted)
    elif sum(dynamic) == 1 and -1 not in wanted:
        wanted[dynamic.index(True)] = -1
        edit.set_operand(1, wanted)
    else:
        edit.scale_operand(1, wanted, target)


@revision("Squeeze")
def revise_squeeze(edit: Revision) -> None:
    """Axes that get as short as one are not to be dropped: name those that were."""
    if not edit.site.given(1, "axes") and 1 in edit.counts(edit.kept(0)):
        axes = [axis for axis, size in enumerate(edit.site.shape(0)) if size == 1]
        if edit.site.opset < 13:
            edit.set_attribute("axes", axes)
        else:
            edit.set_operand(1, axes)


@rule("Expand")
def expand(site: Site) -> None:
    """Axes of size one are repeated: how often can change, like any size."""
    x, shape = site.axes(0), site.output_shape()
    x = (*(site.fixed(1) for _ in range(len(shape) - len(x))), *x)
    site.set(_repeated(site, x, shape))


@rule("Tile")
def tile(site: Site) -> None:
    """As Expand; an axis that is repeated as a whole keeps its labels in every copy."""
    x, shape, repeats = site.axes(0), site.output_shape(), site.constant(1)
    if site.opset < 6:
        site.barrier("is of an opset that is not followed")
    if repeats is None:
        for labels in x:
            site.freeze(labels, "is repeated a number of times that is open")
        return site.set_fixed()
    site.set(
        [
            new if len(labels) == 1 else np.tile(labels, int(times))
            for labels, new, times in zip(
                x, _repeated(site, x, shape), repeats.reshape(-1), strict=True
            )
        ]
    )


@rule("ConstantOfShape")
def constant_of_shape(site: Site) -> None:
    """Every axis can get shorter, as all elements are equal."""
    shape = site.output_shape()
    site.set(_repeated(site, tuple(site.fixed(1) for _ in shape), shape))


def _repeated(site: Site, x: tuple[Labels, ...], shape: tuple[int, ...]) -> list[Labels]:
    dynamic = site.sizes.dynamic(site.node.output[0])
    return [
        labels if len(labels) == size or len(labels) != 1 else _made(site, size, is_open)
        for labels, size, is_open in zip(x, shape, dynamic, strict=True)
    ]


def _made(site: Site, size: int, is_open: bool) -> Labels:
    return site.fixed(size) if is_open else site.fresh(size)


@revision("Expand", "ConstantOfShape")
def revise_expand(edit: Revision) -> None:
    """The target shape."""
    site = edit.site
    index = 1 if site.node.op_type == "Expand" else 0
    first = site.sizes.one.values.get(site.node.input[index])
    if first is None:
        return
    old = [int(size) for size in first]
    shape, counts = site.output_shape(), edit.counts(edit.kept_result())
    offset = len(shape) - len(old)
    new = [
        count if size == whole and count != whole else size
        for size, whole, count in zip(old, shape[offset:], counts[offset:], strict=True)
    ]
    if new == old:
        return
    if site.constant(index) is not None:
        edit.set_operand(index, new)
    else:
        edit.scale_operand(index, new, old)


@revision("Tile")
def revise_tile(edit: Revision) -> None:
    """How often an axis of size one is repeated."""
    repeats = edit.site.constant(1)
    if repeats is None:
        return
    counts = edit.counts(edit.kept_result())
    new = [
        count if size == 1 else int(times)
        for size, times, count in zip(edit.site.shape(0), repeats.reshape(-1), counts, strict=True)
    ]
    if new != [int(times) for times in repeats.reshape(-1)]:
        edit.set_operand(1, new)
