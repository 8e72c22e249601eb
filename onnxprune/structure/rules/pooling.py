"""Pools and other operators that work on every channel by itself, along the spatial axes."""

from __future__ import annotations

from ..registry import Site, rule


@rule(
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GridSample",
    "LpPool",
    "MaxPool",
)
def pool(site: Site) -> None:
    """Samples and channels pass; the spatial axes stay."""
    if site.has_output(1):
        site.barrier("its indices count all channels")
    x = site.axes(0)
    for labels in x[2:]:
        site.freeze(labels, "slides over the axis")
    if site.node.op_type == "GridSample":
        site.unify(site.axes(0)[0], site.axes(1)[0])
        for labels in site.axes(1)[1:]:
            site.freeze(labels, "holds coordinates")
    shape = site.output_shape()
    site.set((*x[:2], *(site.fixed(size, "slides over the axis") for size in shape[2:])))


@rule("Crop")
def crop(site: Site) -> None:
    """Borders of an image go; the rest of the spatial axes stays."""
    x, shape = site.axes(0), site.output_shape()
    for labels in x[2:]:
        site.freeze(labels, "crops the axis")
    site.set((*x[:2], *(site.fixed(size, "crops the axis") for size in shape[2:])))


@rule("ImageScaler")
def scaler(site: Site) -> None:
    """One attribute has an offset for each channel."""
    x = site.axes(0)
    site.freeze(x[1], "has an offset for each channel")
    site.set(x)


@rule("MaxRoiPool", "RoiAlign")
def regions(site: Site) -> None:
    """Parts of images: their samples and sizes stay, channels pass."""
    x, boxes = site.axes(0), site.axes(1)
    for labels in (x[0], *x[2:]):
        site.freeze(labels, "is picked from by computed boxes")
    site.fix(boxes[1])
    if site.has(2):
        site.unify(boxes[0], site.axes(2)[0])
    site.set((boxes[0], x[1], *(site.fixed(size) for size in site.output_shape()[2:])))


@rule("Col2Im")
def fold(site: Site) -> None:
    """The channel axis is (channel, position in a block)."""
    n, c, blocks = site.axes(0)
    shape = site.output_shape()
    channel, block = site.factors(c, (shape[1], len(c) // shape[1]))
    for labels in (block, blocks):
        site.freeze(labels, "is spread over space")
    site.set((n, channel, *(site.fixed(size) for size in shape[2:])))


@rule("DepthToSpace", "SpaceToDepth")
def depth_space(site: Site) -> None:
    """The channel axis is (block, channel) or, in CRD mode, (channel, block)."""
    (n, c, *space), block = site.axes(0), site.integer("blocksize", 1) ** 2
    for labels in space:
        site.freeze(labels, "moves between space and channels")
    shape = site.output_shape()
    spatial = [site.fixed(size) for size in shape[2:]]
    if site.node.op_type == "SpaceToDepth":
        site.set((n, site.product(site.fixed(block), c), *spatial))
        return
    first = site.text("mode", "DCR") == "CRD"
    sizes = (shape[1], block) if first else (block, shape[1])
    parts = site.factors(c, sizes)
    channel, within = parts if first else parts[::-1]
    site.freeze(within, "is spread over space")
    site.set((n, channel, *spatial))
