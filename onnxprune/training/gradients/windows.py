"""Sliding windows: the geometry that convolutions and pooling share, and its linear adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node

__all__ = [
    "SAME",
    "Window",
    "kernel_of",
    "padded",
    "plain_window",
    "share_padding",
    "spatial",
    "spatial_of",
    "transposed",
    "window_of",
]

#: Values of auto_pad that depend on sizes.
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
    def end(self) -> tuple[int, ...]:
        """Zeros after every axis, as far as known now."""
        return (0,) * self.rank if isinstance(self.pads, str) else self.pads[self.rank :]

    @property
    def dense(self) -> bool:
        """Whether positions follow each other without steps."""
        return set(self.strides) == {1}

    @property
    def unpadded(self) -> bool:
        """Whether there are no zeros around any axis, whatever the sizes."""
        return self.pads == (0,) * (2 * self.rank)

    @property
    def pointwise(self) -> bool:
        """Whether every position reads just the element it stands on."""
        return self.dense and self.taps == 1 and self.unpadded


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


def plain_window(node: Node, kernel: Sequence[int]) -> Window:
    """The window of a node as its attributes say, auto_pad aside."""
    ones, none = (1,) * len(kernel), (0,) * 2 * len(kernel)
    explicit = node.attribute("auto_pad", "NOTSET") == "NOTSET"
    return Window(
        tuple(kernel),
        tuple(node.attribute("strides", ones)),
        tuple(node.attribute("dilations", ones)),
        tuple(node.attribute("pads", none)) if explicit else none,
    )


def window_of(b: GraphBuilder, node: Node, x: str, kernel: Sequence[int]) -> Window:
    """The window of a Conv or pooling node over its input."""
    window, auto = plain_window(node, kernel), node.attribute("auto_pad", "NOTSET")
    if auto not in SAME:
        return window
    if set(window.dilations) != {1}:
        raise ModelError(
            f"{node.op_type} '{node.label}' has auto_pad and dilations, which runtimes understand "
            "differently; give it explicit pads"
        )
    return replace(window, pads=share_padding(b, _missing(b, x, window), auto == "SAME_UPPER"))


def _missing(b: GraphBuilder, x: str, window: Window) -> Sequence[int] | str:
    """Elements that x lacks for ceil(size / stride) positions, negative where it has more."""
    if window.dense:  # whatever the sizes
        return [width - 1 for width in window.kernel]
    sizes = spatial(b, x)
    if sizes is not None:
        steps = zip(sizes, window.strides, window.kernel, strict=True)
        return [(size - 1) // step * step + width - size for size, step, width in steps]
    size, step = spatial_of(b, x), b.constant(window.strides)
    last = b.op("Mul", b.op("Div", b.op("Sub", size, b.constant([1])), step), step)
    return b.op("Sub", b.op("Add", last, b.constant(window.kernel)), size)


def share_padding(
    b: GraphBuilder, totals: Sequence[int] | str, upper: bool
) -> tuple[int, ...] | str:
    """Share the padding of every axis between its ends; the odd one goes to the end if `upper`.

    Args:
        b: The builder.
        totals: The padding of every axis, or the name of a vector of it; below 0 counts as 0.
        upper: Whether the end gets the odd one, rather than the start.
    """
    if isinstance(totals, str):
        total = b.op("Max", totals, b.constant([0]))
        half = b.op("Div", total, b.constant([2]))
        rest = b.op("Sub", total, half)
        return b.op("Concat", *((half, rest) if upper else (rest, half)), axis=0)
    less = tuple(max(total, 0) // 2 for total in totals)
    more = tuple((max(total, 0) + 1) // 2 for total in totals)
    return less + more if upper else more + less


def padded(b: GraphBuilder, x: str, window: Window) -> tuple[str, Window]:
    """A value with its padding made explicit, and the window that then has none."""
    if window.unpadded:
        return x, window
    pads = window.pads if isinstance(window.pads, str) else b.constant(window.pads)
    axes = b.constant(range(2, 2 + window.rank))
    return b.op("Pad", x, pads, None, axes), replace(window, pads=(0,) * 2 * window.rank)


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
        end, more = list(window.end), none
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
