"""How two operands met before opset 7: the second began at an axis of the first."""

from __future__ import annotations

from .registry import Site

__all__ = ["axes_behind"]


def axes_behind(site: Site) -> int:
    """Axes of size one to add behind the second operand, so that it broadcasts as since opset 7.

    Add and its like said by `broadcast` and `axis` where the second operand begins; a vector of
    slopes of PRelu always ran along the channels, axis 1.
    """
    if site.opset >= 7:
        return 0
    first, second = site.axes(0), site.axes(1)
    axis = len(first) - len(second)
    if site.node.op_type == "PRelu":
        axis = 1 if len(second) == 1 and len(second[0]) > 1 else axis
    elif site.integer("broadcast", 0):
        axis = site.integer("axis", axis) % max(len(first), 1)
    return max(len(first) - axis - len(second), 0)
