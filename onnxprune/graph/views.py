"""Views: what a reader sees of a stored tensor after Transpose, Reshape and their like.

A view keeps, for every axis that the reader sees, the stored axis it is. Roles of the axes at the
reader then follow back onto the stored tensor, and so does the axis of a DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .layer import Quantization, Role

__all__ = [
    "HIDDEN",
    "UNIT",
    "View",
    "flattened",
    "joined",
    "obscured",
    "reshaped",
    "sliced",
    "split",
    "squeezed",
    "stored_roles",
    "transposed",
    "unsqueezed",
    "whole",
]

#: Marks an axis of size one that the stored tensor does not have.
UNIT = -1
#: Marks an axis that mixes several stored axes.
HIDDEN = -2


@dataclass(frozen=True)
class View:
    """What a reader sees of a stored tensor.

    Attributes:
        shape: shape that the reader sees; None where it cannot be told before running.
        axes: the stored axis behind every axis of `shape`, or `UNIT`, or `HIDDEN`.
        quantization: set by a DequantizeLinear on the way.
        cast: whether a Cast turned the stored type into another.
        requantized: whether a QuantizeLinear came first: codes are made from stored floats.
        problem: why the tensor cannot be pruned through this view.
    """

    shape: tuple[int, ...] | None
    axes: tuple[int, ...]
    quantization: Quantization | None = None
    cast: bool = False
    requantized: bool = False
    problem: str | None = None

    @property
    def rank(self) -> int | None:
        """Number of axes that the reader sees."""
        return None if self.shape is None else len(self.shape)


def whole(shape: Sequence[int]) -> View:
    """The stored tensor itself."""
    return View(tuple(shape), tuple(range(len(shape))))


def obscured(view: View) -> View:
    """After something that hides the shape until the model runs."""
    return replace(view, shape=None, axes=())


def transposed(view: View, permutation: Sequence[int] | None) -> View:
    """After a Transpose; no permutation reverses the axes."""
    if view.shape is None:
        return view
    shape, axes, rank = view.shape, view.axes, len(view.shape)
    order = list(range(rank))[::-1] if permutation is None else list(permutation)
    if sorted(order) != list(range(rank)):
        return obscured(view)
    return replace(view, shape=tuple(shape[i] for i in order), axes=tuple(axes[i] for i in order))


def unsqueezed(view: View, positions: Sequence[int] | None) -> View:
    """After an Unsqueeze."""
    if view.shape is None or positions is None:
        return obscured(view)
    rank = len(view.shape) + len(positions)
    new = {position % rank if rank else 0 for position in positions}
    if len(new) != len(positions) or any(not -rank <= p < rank for p in positions):
        return obscured(view)
    kept = iter(zip(view.shape, view.axes, strict=True))
    seen = [(1, UNIT) if position in new else next(kept) for position in range(rank)]
    return replace(view, shape=tuple(s for s, _ in seen), axes=tuple(a for _, a in seen))


def squeezed(view: View, positions: Sequence[int] | None) -> View:
    """After a Squeeze; no positions drop every axis of size one."""
    if view.shape is None:
        return view
    rank = len(view.shape)
    if positions is None:
        gone = {i for i, size in enumerate(view.shape) if size == 1}
    else:
        gone = {position % rank for position in positions if -rank <= position < rank}
    if any(view.shape[i] != 1 for i in gone):
        return obscured(view)
    kept = [i for i in range(rank) if i not in gone]
    shape = tuple(view.shape[i] for i in kept)
    return replace(view, shape=shape, axes=tuple(view.axes[i] for i in kept))


def flattened(view: View, axis: int | None) -> View:
    """After a Flatten to two axes."""
    if view.shape is None or axis is None:
        return obscured(view)
    shape, rank = view.shape, len(view.shape)
    if not -rank <= axis <= rank:
        return obscured(view)
    cut = axis + rank if axis < 0 else axis
    return reshaped(view, (_product(shape[:cut]), _product(shape[cut:])))


def reshaped(view: View, target: Sequence[int] | None, *, allow_zero: bool = False) -> View:
    """After a Reshape: axes whose borders survive are kept, the others are hidden."""
    if view.shape is None or target is None:
        return obscured(view)
    shape = _target_shape(view.shape, target, allow_zero)
    if shape is None:
        return obscured(view)
    axes = [UNIT if size == 1 else HIDDEN for size in shape]
    before = [i for i, size in enumerate(view.shape) if size != 1]
    after = [i for i, size in enumerate(shape) if size != 1]
    for old, new in _aligned([view.shape[i] for i in before], [shape[i] for i in after]):
        axes[after[new]] = view.axes[before[old]]
    if shape == view.shape:
        axes = list(view.axes)
    return replace(view, shape=shape, axes=tuple(axes))


def _target_shape(
    shape: tuple[int, ...], target: Sequence[int], allow_zero: bool
) -> tuple[int, ...] | None:
    """The shape that a Reshape gives: 0 copies an axis, -1 takes what is left."""
    sizes = list(target)
    for i, size in enumerate(sizes):
        if size == 0 and not allow_zero:
            if i >= len(shape):
                return None
            sizes[i] = shape[i]
    total = _product(shape)
    if sizes.count(-1) == 1:
        rest = -_product(sizes)
        if rest <= 0 or total % rest:
            return None
        sizes[sizes.index(-1)] = total // rest
    if any(size < 0 for size in sizes) or _product(sizes) != total:
        return None
    return tuple(sizes)


def _aligned(before: Sequence[int], after: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of axes that a reshape keeps whole: equal sizes with equal products before them."""
    if 0 in before or 0 in after:
        return []
    pairs = []
    i = j = 0
    left = right = 1
    while i < len(before) and j < len(after):
        if left == right and before[i] == after[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif left <= right:
            left, i = left * before[i], i + 1
        else:
            right, j = right * after[j], j + 1
    return pairs


def sliced(
    view: View,
    starts: Sequence[int] | None,
    ends: Sequence[int] | None,
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> View:
    """After a Slice; no axes mean the first ones, no steps mean 1."""
    if view.shape is None or starts is None or ends is None:
        return obscured(view)
    along = list(range(len(starts))) if axes is None else list(axes)
    strides = [1] * len(starts) if steps is None else list(steps)
    if len({len(starts), len(ends), len(along), len(strides)}) != 1 or 0 in strides:
        return obscured(view)
    shape, rank = list(view.shape), len(view.shape)
    for start, end, axis, step in zip(starts, ends, along, strides, strict=True):
        if not -rank <= axis < rank:
            return obscured(view)
        shape[axis] = len(range(shape[axis])[slice(start, _stop(end, step, shape[axis]), step)])
    return replace(view, shape=tuple(shape))


def _stop(end: int, step: int, size: int) -> int | None:
    """End of a Python slice: going backwards, an end before the first index means all of it."""
    return None if step < 0 and end < -size else end


def split(view: View, axis: int | None, sizes: Sequence[int] | None, part: int) -> View:
    """After a Split: the part of that number."""
    rank = view.rank
    if view.shape is None or rank is None or axis is None or not -rank <= axis < rank:
        return obscured(view)
    if sizes is None or part >= len(sizes) or sum(sizes) != view.shape[axis]:
        return obscured(view)
    shape = list(view.shape)
    shape[axis] = sizes[part]
    return replace(view, shape=tuple(shape))


def joined(view: View, parts: Sequence[View], axis: int | None) -> View:
    """After a Concat of `parts`, of which `view` is one."""
    rank = view.rank
    if view.shape is None or rank is None or axis is None or not -rank <= axis < rank:
        return obscured(view)
    total = 0
    for part in parts:
        if part.shape is None or len(part.shape) != rank:
            return obscured(view)
        total += part.shape[axis]
    shape = list(view.shape)
    shape[axis] = total
    return replace(view, shape=tuple(shape))


def stored_roles(
    view: View, stored_shape: Sequence[int], seen: Sequence[Role] | None
) -> tuple[Role, ...]:
    """Roles of the stored axes, from those of the axes that the reader sees.

    A stored axis of size one that the view drops runs over nothing: it counts as a "tap".
    """
    if seen is None or view.shape is None or len(seen) != len(view.axes):
        return tuple("unknown" for _ in stored_shape)
    roles: list[Role] = ["tap" if size == 1 else "unknown" for size in stored_shape]
    for axis, role in zip(view.axes, seen, strict=True):
        if axis >= 0:
            roles[axis] = role
    return tuple(roles)


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
