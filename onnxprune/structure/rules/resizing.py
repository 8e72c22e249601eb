"""Interpolation along some axes."""

from __future__ import annotations

from ...graph.attributes import integers
from ..registry import Site, rule
from ..revision import Revision, revision
from ..scales import find_scales


@rule("Resize", "Upsample")
def resize(site: Site) -> None:
    """Axes that are scaled by one pass, the others stay, also where their size does not change."""
    x, shape = site.axes(0), site.output_shape()
    if site.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        site.barrier("crops while it resizes")
    if site.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        site.barrier("scales all axes alike")
    sizes = site.sizes.two
    other = sizes.shapes[site.node.input[0]], sizes.shapes[site.node.output[0]]
    scales = find_scales(site)
    result = []
    for axis, labels in enumerate(x):
        same = len(labels) == shape[axis] and other[0][axis] == other[1][axis]
        if same and scales.get(axis, 1.0) == 1:
            result.append(labels)
        else:
            site.freeze(labels, "resizes the axis")
            result.append(site.fixed(shape[axis]))
    site.set(result)


@revision("Resize")
def revise(edit: Revision) -> None:
    """The sizes, where these are given and not scales."""
    site = edit.site
    if not site.has(3):
        return
    first = site.sizes.one.values.get(site.node.input[3])
    if first is None:
        return
    old = [int(size) for size in first]
    counts = edit.counts(edit.kept_result())
    axes = [axis % len(counts) for axis in integers(site.node, "axes") or range(len(counts))]
    whole = site.output_shape()
    new = [
        counts[axis] if counts[axis] != whole[axis] else size
        for axis, size in zip(axes, old, strict=True)
    ]
    if new == old:
        return
    if site.constant(3) is not None:
        edit.set_operand(3, new)
    else:
        edit.scale_operand(3, new, old)
