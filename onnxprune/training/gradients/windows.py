"""Sliding windows: the geometry that convolutions and pooling share, and its linear adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node

__all__ = [
    "Window",
    "kernel_of",
    "padded",
    "spatial",
    "spatial_of",
    "split_padding",
    "transposed",
    "window_of",
]

SAME = ("SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True)
class Window:
    """How a kernel slides over the spatial axes of a value; every tuple has one entry per axis.

    Attributes:
        kernel: Sizes of the kernel.
        strides: Steps between positions.
        dilations: Steps between the kernel's elements.
        pads: Zeros before every axis, then those after every axis; the name of a vector of them
            where they follow from sizes that are known at run time only.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Number of elements of the kernel."""
        return prod(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """Sizes of the kernel with its holes."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple((size - 1) * step + 1 for size, step in pairs)

    @property
    def begin(self) -> tuple[int, ...]:
        """Zeros before every axis, as far as known now."""
        return (0,) * self.rank if isinstance(self.pads, str) else self.pads[: self.rank]

    @property
    def dense(self) -> bool:
        """Whether positions follow each other without steps."""
        return set(self.strides) == {1}

    @property
    def pointwise(self) -> bool:
        """Whether every position reads just the element it stands on."""
        return self.dense and self.taps == 1 and self.pads == (0,) * (2 * self.rank)


def spatial(b: GraphBuilder, name: str) -> tuple[int, ...] | None:
    """Sizes of a value's spatial axes (those after batch and channel), where all are known."""
    sizes = (b.shape(name) or (None,) * 3)[2:]
    known = tuple(size for size in sizes if isinstance(size, int))
    return known if len(known) == len(sizes) else None


def spatial_of(b: GraphBuilder, name: str) -> str:
    """The same as a vector: a constant, or taken from the value at run time."""
    known = spatial(b, name)
    return b.op("Shape", name, start=2) if known is None else b.constant(known)


def kernel_of(b: GraphBuilder, node: Node, weight: str) -> tuple[int, ...]:
    """Sizes of a convolution's kernel, from the attribute or else the weight's shape."""
    kernel: Sequence[int] | None = node.attribute("kernel_shape", None) or spatial(b, weight)
    if kernel is None:
        raise ModelError(
            f"the kernel of {node.op_type} '{node.label}' has no known size, so its gradient "
            f"cannot be built; give the weight '{weight}' a fixed shape"
        )
    return tuple(kernel)


def window_of(b: GraphBuilder, node: Node, x: str, kernel: Sequence[int]) -> Window:
    """The window of a Conv or pooling node over its input."""
    ones, rank = [1] * len(kernel), len(kernel)
    strides, dilations, pads = (
        tuple(node.attribute(name, default) or default)
        for name, default in (("strides", ones), ("dilations", ones), ("pads", [0] * 2 * rank))
    )
    auto = node.attribute("auto_pad", "NOTSET")
    window = Window(tuple(kernel), strides, dilations, pads if auto == "NOTSET" else (0,) * 2 * rank)
    return _same(b, node, x, window) if auto in SAME else window


def _same(b: GraphBuilder, node: Node, x: str, window: Window) -> Window:
    """As much padding as makes the output ceil(size / stride) long."""
    if set(window.dilations) != {1}:
        raise ModelError(
            f"{node.op_type} '{node.label}' has auto_pad and dilations, which runtimes understand "
            "differently; give it explicit pads"
        )
    upper = node.attribute("auto_pad", "") == "SAME_UPPER"
    sizes = spatial(b, x)
    if sizes is None and window.dense:
        sizes = (1,) * window.rank  # any size gives the same
    if sizes is not None:
        steps = zip(sizes, window.strides, window.kernel, strict=True)
        totals = [max((-(-size // step) - 1) * step + width - size, 0) for size, step, width in steps]
        return replace(window, pads=_split(totals, upper))
    size, step = spatial_of(b, x), b.constant(window.strides)
    one = b.constant([1])
    last = b.op("Mul", b.op("Div", b.op("Sub", size, one), step), step)
    reach = b.op("Add", last, b.constant(window.kernel))
    return replace(window, pads=split_padding(b, b.op("Sub", reach, size), upper))


def _split(totals: Sequence[int], upper: bool) -> tuple[int, ...]:
    """Padding shared between both ends, the odd one at the end (upper) or at the start."""
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return tuple(less + more if upper else more + less)


def split_padding(b: GraphBuilder, totals: str, upper: bool) -> str:
    """The same at run time, of what may be negative and then counts as none."""
    totals = b.op("Max", totals, b.constant([0]))
    less = b.op("Div", totals, b.constant([2]))
    ends = [less, b.op("Sub", totals, less)]
    return b.op("Concat", *(ends if upper else reversed(ends)), axis=0)


def padded(b: GraphBuilder, x: str, window: Window) -> tuple[str, Window]:
    """A value with its padding made explicit, and the window that then has none."""
    none = (0,) * 2 * window.rank
    if window.pads == none:
        return x, window
    pads = window.pads if isinstance(window.pads, str) else b.constant(window.pads)
    axes = b.constant(range(2, 2 + window.rank))
    return b.op("Pad", x, pads, None, axes), replace(window, pads=none)


def transposed(
    b: GraphBuilder, dy: str, weight: str, window: Window, like: str, group: int = 1
) -> str:
    """Spread every position back over the elements it read: the adjoint of a convolution.

    Args:
        b: The builder.
        dy: Values at the positions of the window, [N, Cy, ...].
        weight: The weight of the convolution, [Cy, Cx / group, ...].
        window: Its window.
        like: The value that the window slides over: of the result's spatial sizes.
        group: Number of groups.

    Returns:
        A value [N, Cx, ...] as large as `like`.
    """
    inner, outer = spatial(b, dy), spatial(b, like)
    none = [0] * window.rank
    crop = False
    if window.dense and not isinstance(window.pads, str):
        end, more = list(window.pads[window.rank :]), none
    elif inner is not None and outer is not None and not isinstance(window.pads, str):
        reach = zip(inner, window.strides, window.extent, window.begin, strict=True)
        full = [(count - 1) * step + width - before for count, step, width, before in reach]
        end = [max(size - wanted, 0) for size, wanted in zip(full, outer, strict=True)]
        more = [max(wanted - size, 0) for size, wanted in zip(full, outer, strict=True)]
    else:
        # As many elements as the sizes unknown now may need; what is too much is cut off.
        end, more, crop = none, [step - 1 for step in window.strides], True
    found = b.op(
        "ConvTranspose",
        dy,
        weight,
        group=group,
        kernel_shape=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        pads=[*window.begin, *end],
        output_padding=more,
    )
    return _cropped(b, found, window, like) if crop else found


def _cropped(b: GraphBuilder, x: str, window: Window, like: str) -> str:
    """The part of a spread value that stands on `like`: without run-time padding and excess."""
    axes, sizes = b.constant(range(2, 2 + window.rank)), spatial_of(b, like)
    if not isinstance(window.pads, str):
        return b.op("Slice", x, b.constant([0] * window.rank), sizes, axes)
    start = b.op("Slice", window.pads, b.constant([0]), b.constant([window.rank]))
    return b.op("Slice", x, start, b.op("Add", start, sizes), axes)
