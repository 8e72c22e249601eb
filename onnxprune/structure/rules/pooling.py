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
        for labels in site.axes(1):
            site.freeze(labels, "holds coordinates")
    site.set((*x[:2], *(site.fixed(size) for size in site.output_shape()[2:])))


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
