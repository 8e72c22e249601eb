"""Scales and zero points: from the axes a reader sees onto the axes of the stored tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .layer import Quantization
from .views import View

__all__ = ["same_quantization", "stored_quantization"]


def stored_quantization(
    view: View,
    stored_shape: Sequence[int],
    scale: np.ndarray | None,
    zero_point: np.ndarray,
    axis: int | None,
    block_size: int = 0,
) -> Quantization | str:
    """Quantization of the stored tensor, or the reason why it cannot be told.

    Args:
        view: the codes as the operator that dequantises sees them.
        stored_shape: shape of the stored tensor.
        scale: None where the operator takes none; 0-d, 1-d along `axis`, or of the view's rank.
        zero_point: as `scale`.
        axis: axis of the view that 1-d parameters run along; None where unknown.
        block_size: codes per block along `axis`; 0 means not blocked.
    """
    parameters = [p for p in (scale, zero_point) if p is not None]
    if all(p.size == 1 for p in parameters):
        return Quantization(None if scale is None else scale.reshape(()), zero_point.reshape(()))
    shape = next(p.shape for p in parameters if p.size != 1)
    if any(p.size == 0 for p in parameters):
        return "its scale or zero point is empty"
    rank = view.rank
    if rank is None:
        return "its scales belong to axes that a Reshape hides"
    if len(shape) == 1 and not block_size:
        if axis is None or not -rank <= axis < rank:
            return f"its scale of shape {_text(shape)} does not say which axis it runs along"
        return _along_axis(view, stored_shape, scale, zero_point, axis % rank)
    if len(shape) == rank:
        return _blocked(view, stored_shape, scale, zero_point, axis, block_size)
    return f"its scale of shape {_text(shape)} does not fit its own {_text(view.shape or ())}"


def _along_axis(
    view: View,
    stored_shape: Sequence[int],
    scale: np.ndarray | None,
    zero_point: np.ndarray,
    axis: int,
) -> Quantization | str:
    """Parameters with one entry per index of an axis."""
    size = (view.shape or ())[axis]
    for parameter in (scale, zero_point):
        if parameter is not None and parameter.size not in (1, size):
            return f"its {parameter.size} scales do not fit its axis of size {size}"
    stored_axis = view.axes[axis]
    if stored_axis < 0:
        return "its scales run along an axis that a Reshape hides"
    if stored_shape[stored_axis] != size:
        return "its scales run along an axis that is cut or joined first"
    stored_scale = None if scale is None else _flat(scale)
    return Quantization(stored_scale, _flat(zero_point), stored_axis)


def _blocked(
    view: View,
    stored_shape: Sequence[int],
    scale: np.ndarray | None,
    zero_point: np.ndarray,
    axis: int | None,
    block_size: int,
) -> Quantization | str:
    """Parameters of the view's rank: blocks along one axis, or broadcast along some axes."""
    shape, rank = view.shape or (), len(view.axes)
    given = next(p.shape for p in (scale, zero_point) if p is not None and p.size > 1)
    if any(p.size > 1 and p.shape != given for p in (scale, zero_point) if p is not None):
        return "its scale and zero point have different shapes"
    differing = [i for i in range(rank) if given[i] != shape[i]]
    if not block_size:
        long = [i for i in range(rank) if given[i] > 1]
        if len(long) == 1:
            return _along_axis(view, stored_shape, scale, zero_point, long[0])
        if not differing:
            axis, block_size = rank - 1, 1
        elif len(differing) == 1 and given[differing[0]] == 1:
            axis, block_size = differing[0], shape[differing[0]]
    if axis is None or not block_size or not -rank <= axis < rank:
        return f"its scale of shape {_text(given)} does not fit its own {_text(shape)}"
    axis %= rank
    blocks = -(-shape[axis] // block_size)
    if given[axis] != blocks or any(i != axis for i in differing):
        return f"its scale of shape {_text(given)} does not fit its own {_text(shape)}"
    kept = {stored: size for stored, size in zip(view.axes, shape, strict=True) if stored >= 0}
    if any(kept.get(i, 1) != size for i, size in enumerate(stored_shape)) or view.axes[axis] < 0:
        return "its scales run along axes that are hidden, cut or joined first"
    stored_rank = len(stored_shape)
    stored_scale = None if scale is None else _onto_stored(view, stored_rank, scale)
    codes_zero = _onto_stored(view, stored_rank, zero_point)
    return Quantization(stored_scale, codes_zero, view.axes[axis], block_size)


def _onto_stored(view: View, stored_rank: int, given: np.ndarray) -> np.ndarray:
    """Axes of a blocked parameter in stored order."""
    if given.size == 1:
        return given.reshape(())
    order = [int(i) for i in np.argsort(view.axes, kind="stable") if view.axes[i] >= 0]
    rest = [i for i in range(given.ndim) if view.axes[i] < 0]
    sizes = [1] * stored_rank
    for i in order:
        sizes[view.axes[i]] = given.shape[i]
    return given.transpose([*order, *rest]).reshape(sizes)


def _flat(parameter: np.ndarray) -> np.ndarray:
    return parameter.reshape(() if parameter.size == 1 else -1)


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def same_quantization(one: Quantization, two: Quantization) -> bool:
    """Whether two readers of a tensor give its codes the same values, as far as both tell."""
    if one is two:
        return True
    if not np.array_equal(one.zero_point, two.zero_point):
        return False
    if one.scale is None or two.scale is None:
        return True
    return (one.axis, one.block_size) == (two.axis, two.block_size) and np.array_equal(
        one.scale, two.scale
    )
