"""Factors of an interpolation, which may move elements of an axis whose size stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph.attributes import find_attribute, integers
from .registry import Site

__all__ = ["find_scales"]


def find_scales(site: Site) -> dict[int, float]:
    """Factors of a Resize or an Upsample by axis, where these are given and known, not sizes."""
    rank = len(site.shape(0))
    attribute = find_attribute(site.node, "scales")
    operand = 2 if site.node.op_type == "Resize" and site.opset > 10 else 1
    found: Sequence[float] = () if attribute is None else attribute.floats
    if site.has(operand):
        found = site.sizes.one.values.get(site.node.input[operand], np.ones(0)).tolist()
    axes = integers(site.node, "axes") or range(rank)
    return {axis % rank: factor for axis, factor in zip(axes, found, strict=False)}
