"""Gradients of convolution weights, in the form that is fastest for their shapes.

The forms were measured on onnxruntime's CPU kernels; all give the same values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from onnx import helper

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node
from .windows import Window, padded, spatial

__all__ = [
    "FORMS",
    "Form",
    "Sizes",
    "channels_first",
    "choose_form",
    "taps",
    "weight_gradient",
]

#: How the weight's gradient is computed:
#: - "samples": what lies under the kernel side by side, a product per sample, their sum;
#: - "batch": the same with one product over the whole batch, which needs it transposed;
#: - "sample taps": a product per kernel element and sample, for all kernel elements in turn;
#: - "batch taps": a product per kernel element over the whole batch, whatever is known of sizes;
#: - "convolution": one convolution over operands whose batch and channels are exchanged.
Form = Literal["samples", "batch", "sample taps", "batch taps", "convolution"]

#: Up to so many kernel elements it pays to lay out what lies under them.
_MANY_TAPS = 64
#: So many elements of one sample may be laid out side by side: 8 MiB.
_MOST_LAID_OUT = 2**21
#: Writing and adding up an element of the products of samples costs as much as moving so many
#: elements of operands that are transposed.
_COST_OF_SUM = 1.4
#: Elements of a row of a product that are computed at once.
_LANES = 16
_TO_THE_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Sizes:
    """Sizes of a correlation; None where unknown.

    Attributes:
        rows: Channels of the small operand.
        columns: Channels of the large operand that each of them meets.
        positions: Positions of the window.
        group: Number of groups.
    """

    rows: int | None
    columns: int | None
    positions: int | None
    group: int = 1


def weight_gradient(
    b: GraphBuilder, node: Node, large: str, small: str, weight: str, window: Window
) -> str:
    """Sum over batch and positions of small[o] large[o · stride + k · dilation - begin].

    Args:
        b: The builder.
        node: The convolution, for its groups and for messages.
        large: What the window slides over, [N, Cl, ...].
        small: Values at the window's positions, [N, Cs, ...].
        weight: The weight, [Cs, Cl / group, *kernel].
        window: The window. Positions that fit must be those that `small` has.

    Raises:
        ModelError: There are groups, and the weight's shape is unknown.
    """
    rows, columns = (
        size if isinstance(size, int) else None for size in (b.shape(weight) or (None, None))[:2]
    )
    group, places = node.attribute("group", 1), spatial(b, small)
    if group > 1 and (rows is None or columns is None):
        raise ModelError(
            f"{node.op_type} '{node.label}' has groups and a weight '{weight}' of unknown "
            "shape, so the weight's gradient cannot be built; give it a fixed shape"
        )
    sizes = Sizes(rows, columns, None if places is None else prod(places), group)
    return FORMS[choose_form(sizes, window)](b, large, small, window, sizes)


def choose_form(sizes: Sizes, window: Window) -> Form:
    """The fastest form that is possible with what is known."""
    rows, columns, positions, taps = sizes.rows, sizes.columns, sizes.positions, window.taps
    if sizes.group == 1 and (taps > _MANY_TAPS or rows is None or columns is None):
        return "convolution" if taps > _MANY_TAPS else "batch taps"
    assert rows is not None and columns is not None  # groups need them
    if positions is None:  # as many as may be
        lay_out, apart = window.pointwise, True
    else:
        reads = columns * taps
        lay_out = window.pointwise or sizes.group * reads * positions <= _MOST_LAID_OUT
        moved = (rows + (reads if lay_out else columns)) * positions
        apart = _COST_OF_SUM * rows * reads <= moved
    if sizes.group > 1:
        return "samples" if lay_out and taps <= _MANY_TAPS else "sample taps"
    if lay_out:
        return "samples" if apart else "batch"
    return "sample taps" if apart and positions is not None else "batch taps"


# ---- everything under the kernel laid out ------------------------------------------------------


def _by_samples(b: GraphBuilder, large: str, small: str, window: Window, sizes: Sizes) -> str:
    group, rows, columns = _known(sizes)
    height, reads = rows // group, columns * window.taps
    left = b.reshape(small, [0, group, height, -1])
    right = b.reshape(_laid_out(b, large, window, group * columns), [0, group, reads, -1])
    if _turns(height, reads):
        product = b.reduce_sum(b.op("MatMul", right, b.swap_last(left)), [0])
        summed = b.transpose(product, [0, 2, 1])
    else:
        summed = b.reduce_sum(b.op("MatMul", left, b.swap_last(right)), [0])
    return b.reshape(summed, [rows, columns, *window.kernel])


def _turns(height: int, reads: int) -> bool:
    """Whether the transposed product is the faster one: its right operand, which is packed, is
    the smaller one, and fills the registers that hold a row of the result.
    """
    return height <= reads and height % _LANES == 0


def _by_batch(b: GraphBuilder, large: str, small: str, window: Window, sizes: Sizes) -> str:
    _, rows, columns = _known(sizes)
    laid_out = _laid_out(b, large, window, columns)
    left, right = (
        b.op("Flatten", b.transpose(b.reshape(value, [0, height, -1]), [1, 0, 2]), axis=1)
        for value, height in ((small, rows), (laid_out, columns * window.taps))
    )
    return b.reshape(b.op("Gemm", left, right, transB=1), [rows, columns, *window.kernel])


def _laid_out(b: GraphBuilder, x: str, window: Window, channels: int) -> str:
    """What every kernel element meets: [N, channels · taps, ...], a row per channel and element.

    A convolution with one-hot kernels moves elements faster than Slice and Concat do.
    """
    if window.pointwise:
        return x
    if isinstance(window.pads, str):
        x, window = padded(b, x, window)
    picks = np.eye(window.taps, dtype=helper.tensor_dtype_to_np_dtype(b.dtype(x)))
    kernels = np.tile(picks.reshape(-1, 1, *window.kernel), (channels, 1, *[1] * window.rank))
    return b.op(
        "Conv",
        x,
        b.constant(kernels),
        group=channels,
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
    )


# ---- one kernel element at a time --------------------------------------------------------------


def _by_sample_taps(b: GraphBuilder, large: str, small: str, window: Window, sizes: Sizes) -> str:
    group, rows, columns = _known(sizes)
    left = b.reshape(small, [0, group, rows // group, -1])
    parts = [
        b.op("MatMul", left, b.swap_last(b.reshape(part, [0, group, columns, -1])))
        for part in taps(b, large, window)
    ]
    products = b.op("Concat", *parts, axis=3)
    summed = b.reshape(b.reduce_sum(products, [0]), [rows, window.taps, columns])
    return b.reshape(b.transpose(summed, [0, 2, 1]), [rows, columns, *window.kernel])


def _by_batch_taps(b: GraphBuilder, large: str, small: str, window: Window, _: Sizes) -> str:
    left = b.op("Flatten", channels_first(b, small, window), axis=1)
    parts = [
        b.op("Gemm", left, b.op("Flatten", part, axis=1), transB=1)
        for part in taps(b, channels_first(b, large, window), window)
    ]
    cube = b.reshape(b.op("Concat", *parts, axis=1), [0, window.taps, -1])
    return b.reshape(b.transpose(cube, [0, 2, 1]), [0, 0, *window.kernel])


def taps(b: GraphBuilder, x: str, window: Window) -> list[str]:
    """For every kernel element the part of x (two axes, then spatial ones) that it meets."""
    x, window = padded(b, x, window)
    if window.pointwise:
        return [x]
    axes, steps = range(2, 2 + window.rank), b.constant(window.strides)
    found = []
    for tap in itertools.product(*map(range, window.kernel)):
        start = [k * step for k, step in zip(tap, window.dilations, strict=True)]
        # Counted from the end: right whatever the sizes are, for what is left over at the end is
        # less than a stride.
        end = [at - width + 1 for at, width in zip(start, window.extent, strict=True)]
        stop = b.constant([place or _TO_THE_END for place in end])
        found.append(b.op("Slice", x, b.constant(start), stop, b.constant(axes), steps))
    return found


# ---- the whole as a convolution ----------------------------------------------------------------


def _by_convolution(b: GraphBuilder, large: str, small: str, window: Window, _: Sizes) -> str:
    """Batch and channels exchanged, strides and dilations too."""
    if isinstance(window.pads, str):
        large, window = padded(b, large, window)
    found = b.op(
        "Conv",
        channels_first(b, large, window),
        channels_first(b, small, window),
        strides=window.dilations,
        dilations=window.strides,
        pads=window.pads,
    )
    pairs = zip(window.strides, window.dilations, strict=True)
    if any(step > dilation for step, dilation in pairs):
        # What is left over at the end of x made room for more positions.
        axes = b.constant(range(2, 2 + window.rank))
        found = b.op("Slice", found, b.constant([0] * window.rank), b.constant(window.kernel), axes)
    return channels_first(b, found, window)


def channels_first(b: GraphBuilder, x: str, window: Window) -> str:
    """The first two axes exchanged."""
    return b.transpose(x, [1, 0, *range(2, 2 + window.rank)])


def _known(sizes: Sizes) -> tuple[int, int, int]:
    """Group, rows and columns of a form that needs them."""
    assert sizes.rows is not None and sizes.columns is not None
    return sizes.group, sizes.rows, sizes.columns


#: Every form gets the builder, both operands (see `weight_gradient`), the window and the sizes.
FORMS: dict[Form, Callable[[GraphBuilder, str, str, Window, Sizes], str]] = {
    "samples": _by_samples,
    "batch": _by_batch,
    "sample taps": _by_sample_taps,
    "batch taps": _by_batch_taps,
    "convolution": _by_convolution,
}
