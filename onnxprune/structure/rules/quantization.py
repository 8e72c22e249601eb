"""Quantized tensors: scales and zero points per channel follow the channels."""

from __future__ import annotations

from ..registry import Site, rule


@rule("DequantizeLinear", "QuantizeLinear")
@rule("DequantizeLinear", "QuantizeLinear", domain="com.microsoft")
def linear(site: Site) -> None:
    """A vector of scales and one of zero points run along the axis."""
    x = site.axes(0)
    if site.integer("block_size", 0):
        site.barrier("has one scale for several indices")
    for index in (1, 2):
        if not site.has(index):
            continue
        axes = site.axes(index)
        if len(axes) == 1 and len(axes[0]) > 1:
            site.unify(x[site.integer("axis", 1)], axes[0])
    site.set(x)


@rule("DynamicQuantizeLinear")
def dynamic(site: Site) -> None:
    """The scale is that of the whole tensor."""
    site.barrier("has one scale that depends on all elements")
