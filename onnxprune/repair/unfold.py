"""From a node's data to the rows of a linear map: what each output position multiplies.

Every operator here computes, at each position, ``y = x @ w.T`` (plus a bias) with ``x`` [groups,
rows, inputs] and ``w`` [groups, outputs, inputs]. An unfolding makes those rows from the operator's
data and finds its outputs in the same order. Positions can be picked, so that no more than a part
of them is ever laid out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

__all__ = ["ConvUnfolding", "MatrixUnfolding", "Unfolding"]

Picks = np.ndarray


class Unfolding(Protocol):
    """How one node's data and outputs are rows of a linear map."""

    @property
    def stackable(self) -> bool:
        """Whether several runs can be joined along the first axis of data and outputs."""
        ...

    def positions(self, y: np.ndarray) -> tuple[int, int]:
        """How many positions can be picked from, and how many rows each of them gives."""
        ...

    def rows(self, x: np.ndarray, y_shape: Sequence[int], picks: Picks) -> np.ndarray:
        """Inputs [groups, rows, inputs] at the picked positions."""
        ...

    def targets(self, y: np.ndarray, picks: Picks) -> np.ndarray:
        """Outputs [groups, rows, outputs] at the picked positions."""
        ...


@dataclass(frozen=True)
class MatrixUnfolding:
    """A matrix product with a constant side.

    Attributes:
        batch: Batch axes of the weight (none for a matrix); those above 1 are groups.
        left: The weight is the left operand: rows are columns of the data.
        vector: The weight has one axis: outputs lack theirs.
        turned: The data are transposed before the product (transA, transB).
        scale: Factor of the product (alpha).
    """

    batch: tuple[int, ...] = ()
    left: bool = False
    vector: bool = False
    turned: bool = False
    scale: float = 1.0

    @property
    def stackable(self) -> bool:
        """Only matrices multiply all of their data's first axis alike, row by row."""
        return not self.batch and not self.left and not self.turned

    @property
    def groups(self) -> int:
        """Number of independent matrices."""
        return math.prod(self.batch)

    def positions(self, y: np.ndarray) -> tuple[int, int]:
        """Every row of every group is a position."""
        outputs = self._outputs(y)
        return outputs.shape[0] * outputs.shape[1] // self.groups, 1

    def rows(self, x: np.ndarray, y_shape: Sequence[int], picks: Picks) -> np.ndarray:
        """Inputs [groups, rows, inputs] at the picked positions."""
        if self.turned:
            x = x.swapaxes(-1, -2)
        if self.left:
            x = x[None, :] if x.ndim == 1 else x.swapaxes(-1, -2)
        x = x[None, :] if x.ndim == 1 else x
        picked = self._grouped(x)[:, picks]
        return picked if self.scale == 1.0 else picked * np.asarray(self.scale, x.dtype)

    def targets(self, y: np.ndarray, picks: Picks) -> np.ndarray:
        """Outputs [groups, rows, outputs] at the picked positions."""
        return self._grouped(self._outputs(y, flat=False))[:, picks]

    def _outputs(self, y: np.ndarray, *, flat: bool = True) -> np.ndarray:
        """Outputs with their rows before their last axis."""
        if self.vector:
            y = y[..., None]
        elif self.left and y.ndim > 1:
            y = y.swapaxes(-1, -2)
        y = y[None, :] if y.ndim == 1 else y
        return y.reshape(math.prod(y.shape[:-2]), *y.shape[-2:]) if flat else y

    def _grouped(self, array: np.ndarray) -> np.ndarray:
        """[..., rows, width] as [groups, all rows of a group, width]."""
        width = array.shape[-1]
        if self.groups == 1:
            return array.reshape(1, -1, width)
        depth = max(len(self.batch), array.ndim - 2)
        batch = (1,) * (depth - len(self.batch)) + self.batch
        own = (1,) * (depth + 2 - array.ndim) + array.shape
        full = tuple(max(a, b) for a, b in zip(own[:-2], batch, strict=True))
        array = np.broadcast_to(array.reshape(own), (*full, *own[-2:]))
        groups = [axis for axis in range(depth) if batch[axis] > 1]
        rest = [axis for axis in range(depth + 1) if axis not in groups]
        return array.transpose(*groups, *rest, depth + 1).reshape(self.groups, -1, width)


@dataclass(frozen=True)
class ConvUnfolding:
    """A convolution, or a transposed one seen as a convolution of spread data.

    Attributes:
        groups: Groups of channels.
        kernel: Size of the kernel.
        strides: Steps between positions.
        dilations: Steps between taps.
        pads: Padding before each axis, then after; None: so that outputs fit, see `auto_pad`.
        auto_pad: SAME_UPPER or SAME_LOWER where the padding follows from the sizes.
        transposed: The operator is ConvTranspose: strides spread its data with zeros.
    """

    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    auto_pad: str = "NOTSET"
    transposed: bool = False

    @property
    def stackable(self) -> bool:
        """The first axis counts samples."""
        return True

    def positions(self, y: np.ndarray) -> tuple[int, int]:
        """Every place in the picture is a position, and gives a row for each sample."""
        return math.prod(y.shape[2:]), y.shape[0]

    def rows(self, x: np.ndarray, y_shape: Sequence[int], picks: Picks) -> np.ndarray:
        """Patches [groups, rows, channels of a group x taps] at the picked positions."""
        sizes = tuple(y_shape[2:])
        if self.transposed:
            x, strides = self._spread(x, sizes), (1,) * len(sizes)
        else:
            x, strides = self._padded(x, sizes), self.strides
        taps = np.unravel_index(np.arange(math.prod(self.kernel)), self.kernel)
        places = np.unravel_index(picks, sizes)
        flat = np.zeros((len(picks), len(taps[0])), np.intp)
        for axis, size in enumerate(x.shape[2:]):
            step, reach = strides[axis], self.dilations[axis]
            flat = flat * size + places[axis][:, None] * step + taps[axis] * reach
        count, channels = x.shape[:2]
        width = channels // self.groups
        patches = x.reshape(count, self.groups, width, -1).take(flat, axis=3, mode="clip")
        # [samples, groups, channels, places, taps] -> [groups, samples x places, channels x taps]
        return patches.transpose(1, 0, 3, 2, 4).reshape(
            self.groups, count * len(picks), width * flat.shape[1]
        )

    def targets(self, y: np.ndarray, picks: Picks) -> np.ndarray:
        """Outputs [groups, rows, outputs of a group] at the picked positions."""
        count, channels = y.shape[:2]
        picked = y.reshape(count, self.groups, channels // self.groups, -1)[..., picks]
        return picked.transpose(1, 0, 3, 2).reshape(self.groups, count * len(picks), -1)

    def _padded(self, x: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
        before, after = self._margins(x.shape[2:], sizes)
        return _fitted(x, before, after)

    def _margins(
        self, given: tuple[int, ...], sizes: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.pads is not None:
            rank = len(sizes)
            return self.pads[:rank], self.pads[rank:]
        whole = [
            max((size - 1) * step + (taps - 1) * reach + 1 - own, 0)
            for own, size, step, taps, reach in zip(
                given, sizes, self.strides, self.kernel, self.dilations, strict=True
            )
        ]
        return _halves(whole, lower=self.auto_pad == "SAME_LOWER")

    def _spread(self, x: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
        """Data with zeros between them and margins around: an ordinary convolution's data.

        The sizes of the outputs say how much follows after: output padding and output shapes need
        no rule of their own.
        """
        spread = [(own - 1) * step + 1 for own, step in zip(x.shape[2:], self.strides, strict=True)]
        wide = np.zeros((*x.shape[:2], *spread), x.dtype)
        wide[(slice(None), slice(None), *(slice(None, None, step) for step in self.strides))] = x
        reach = [(taps - 1) * far for taps, far in zip(self.kernel, self.dilations, strict=True)]
        if self.pads is not None:
            cut = self.pads[: len(sizes)]
        else:
            whole = [
                max(own + far - size, 0)
                for own, far, size in zip(spread, reach, sizes, strict=True)
            ]
            cut, _ = _halves(whole, lower=self.auto_pad == "SAME_LOWER")
        before = tuple(far - less for far, less in zip(reach, cut, strict=True))
        after = tuple(
            size + far - own - ahead
            for size, far, own, ahead in zip(sizes, reach, spread, before, strict=True)
        )
        return _fitted(wide, before, after)


def _halves(whole: Sequence[int], *, lower: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding split in two, the odd one before (`lower`) or after."""
    small = tuple(size // 2 for size in whole)
    large = tuple(size - half for size, half in zip(whole, small, strict=True))
    return (large, small) if lower else (small, large)


def _fitted(x: np.ndarray, before: Sequence[int], after: Sequence[int]) -> np.ndarray:
    """Data padded with zeros, or cut where a margin is negative."""
    if any(before) or any(after):
        margins = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
        x = np.pad(x, [(0, 0), (0, 0), *margins])
        cuts = [slice(max(-b, 0), -max(-a, 0) or None) for b, a in zip(before, after, strict=True)]
        x = x[(slice(None), slice(None), *cuts)]
    return x
