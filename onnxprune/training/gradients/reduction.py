"""Gradients of reductions along axes, and of CumSum, TopK and Trilu.

Axes may be constants or computed at run time: reduced values are brought back to the rank of the
input by Unsqueeze with the very axes of the node, and reductions in gradients read them too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..builder import GraphBuilder
from .registry import Node, gradient

__all__ = ["element_ratio"]

Gradients = Sequence[str | None]


def element_ratio(b: GraphBuilder, x: str, reduced: str) -> str:
    """How many elements of `x` go into one of `reduced`, as a scalar of the type of `x`.

    Args:
        b: The builder.
        x: A value.
        reduced: A reduction of it to one element, or one that kept the axes at size one.
    """
    wide, narrow = b.shape(x), b.shape(reduced)
    if wide is not None and narrow is not None:
        narrow = narrow or (1,) * len(wide)
        left = [pair for pair in zip(wide, narrow, strict=True) if pair[0] != pair[1]]
        sizes = [one for one, other in left if isinstance(one, int) and other == 1]
        if len(sizes) == len(left):
            return b.scalar(float(np.prod(sizes)), x)
        kept = [size for size in narrow if isinstance(size, int)]
        if len(kept) == len(narrow) and all(kept):
            count = b.cast(b.op("Size", x), x)
            parts = float(np.prod(kept))
            return count if parts == 1 else b.op("Div", count, b.scalar(parts, x))
    # Divided as floats: an empty batch would end the process in integers.
    return b.op("Div", *(b.cast(b.op("Size", name), x) for name in (x, reduced)))


class _Reduction:
    """A reducing node with its gradient and result at the rank of its input."""

    def __init__(self, b: GraphBuilder, node: Node, grads: Gradients) -> None:
        self._b, self._axes = b, node.input(1)
        self._noop = node.attribute("noop_with_empty_axes", 0)
        self._kept = bool(node.attribute("keepdims", 1))
        self.x = node.inputs[0]
        self.dy = self._widened(str(grads[0]))
        self.y = self._widened(node.outputs[0])

    def _widened(self, name: str) -> str:
        """A reduced value with its axes put back; without axes it is a scalar that broadcasts."""
        if self._kept or self._axes is None:
            return name
        return self._b.op("Unsqueeze", name, self._axes)

    def again(self, op_type: str, name: str) -> str:
        """Another reduction over the same axes, which stay as axes of size one."""
        return self._b.op(
            op_type, name, self._axes, keepdims=1, noop_with_empty_axes=self._noop or None
        )

    def spread(self, slope: str) -> str:
        """A reduced gradient over all elements."""
        return self._b.op("Expand", slope, self._b.shape_of(self.x))


@gradient("ReduceSum")
def reduce_sum(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy for every element."""
    r = _Reduction(b, node, grads)
    return [r.spread(r.dy)]


@gradient("ReduceMean")
def reduce_mean(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy / n for every element."""
    r = _Reduction(b, node, grads)
    count = element_ratio(b, r.x, r.y)
    return [r.spread(b.op("Div", r.dy, count))]


@gradient("ReduceMax", "ReduceMin")
def reduce_extreme(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy to the extreme element; among equal ones in equal shares, as PyTorch's amax."""
    r = _Reduction(b, node, grads)
    hits = b.cast(b.op("Equal", r.x, r.y), r.x)
    return [b.op("Mul", b.op("Div", r.dy, r.again("ReduceSum", hits)), hits)]


@gradient("ReduceL1")
def reduce_l1(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy sign(x)."""
    r = _Reduction(b, node, grads)
    return [b.op("Mul", r.dy, b.op("Sign", r.x))]


@gradient("ReduceL2")
def reduce_l2(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy x / y; 0 where all elements are 0."""
    r = _Reduction(b, node, grads)
    zero = b.cast(b.op("Equal", r.y, b.scalar(0, r.y)), r.y)
    return [b.op("Mul", b.op("Div", r.dy, b.op("Add", r.y, zero)), r.x)]


@gradient("ReduceSumSquare")
def reduce_sum_square(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """2 x dy."""
    r = _Reduction(b, node, grads)
    return [b.op("Mul", b.op("Add", r.dy, r.dy), r.x)]


@gradient("ReduceLogSum")
def reduce_log_sum(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """dy / sum(x), the sum being exp(y)."""
    r = _Reduction(b, node, grads)
    return [r.spread(b.op("Div", r.dy, b.op("Exp", r.y)))]


@gradient("ReduceLogSumExp")
def reduce_log_sum_exp(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy exp(x - y)."""
    r = _Reduction(b, node, grads)
    return [b.op("Mul", r.dy, b.op("Exp", b.op("Sub", r.x, r.y)))]


@gradient("ReduceProd")
def reduce_prod(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy times the product of the other elements, which may be zeros.

    That is the product of all elements but zeros over the element, where no other one is 0.
    """
    r = _Reduction(b, node, grads)
    zero = b.cast(b.op("Equal", r.x, b.scalar(0, r.x)), r.x)
    filled = b.op("Add", r.x, zero)
    alone = b.cast(b.op("Equal", r.again("ReduceSum", zero), zero), r.x)
    whole = b.op("Mul", r.dy, r.again("ReduceProd", filled))
    return [b.op("Mul", b.op("Div", whole, filled), alone)]


@gradient("CumSum")
def cum_sum(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Sums of dy from the other end."""
    return [
        b.op(
            "CumSum",
            grads[0],
            node.inputs[1],
            exclusive=node.attribute("exclusive", 0),
            reverse=1 - node.attribute("reverse", 0),
        )
    ]


@gradient("Trilu")
def trilu(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """The same triangle of dy."""
    return [b.op("Trilu", grads[0], node.input(1), upper=node.attribute("upper", 1))]


@gradient("TopK")
def top_k(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy to the elements that were chosen."""
    indices = node.output(b, 1)
    zeros = b.zeros_like(node.inputs[0])
    axis = node.attribute("axis", -1)
    return [b.op("ScatterElements", zeros, indices, grads[0], axis=axis)]
