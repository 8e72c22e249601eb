"""Matrix products and convolutions: a sum of constants is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...graph.attributes import find_attribute
from ..registry import Site
from .known import Known, Mask, known, wide
from .registry import Fact, constant

__all__ = ["Kernel", "even", "factor", "kernel", "matrices", "unknown"]


@constant("MatMul")
def matmul(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Results to which only constants, and zeros, contribute."""
    found = matrices(site, operands)
    return [None if found is None else _product(*found)]


@constant("Gemm")
def gemm(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """As MatMul, alpha times, and beta times the third operand."""
    found = matrices(site, operands)
    product = None if found is None else _product(*found)
    if product is None:
        return [None]
    values, mask = product.values * factor(site, "alpha"), product.mask
    if site.has(2):
        bias = operands[2]
        if bias is None:
            return [None]
        values, mask = values + factor(site, "beta") * wide(bias.values), mask & bias.mask
    return [known(values, mask)]


def factor(site: Site, name: str) -> float:
    """Gemm's alpha or beta."""
    attribute = find_attribute(site.node, name)
    return 1.0 if attribute is None else float(attribute.f)


def matrices(site: Site, operands: Sequence[Fact]) -> tuple[Known, Known] | None:
    """The two factors with the summed axis last and second to last; None for vectors."""
    found = []
    for index, name in ((0, "transA"), (1, "transB")):
        shape, fact = site.shape(index), operands[index]
        if len(shape) < 2:
            return None
        fact = unknown(len(shape)) if fact is None else fact
        if site.node.op_type == "Gemm" and site.integer(name, 0):
            fact, shape = Known(fact.values.T, fact.mask.T), shape[::-1]
        axis = len(shape) - (1 if index == 0 else 2)
        found.append(fact.along(axis, shape[axis]))
    return found[0], found[1]


def unknown(rank: int) -> Known:
    """A value of which nothing is known."""
    return Known(np.zeros((1,) * rank), np.zeros((1,) * rank, bool))


def _product(a: Known, b: Known) -> Fact:
    """The product, known where every summand has a factor zero or two known ones."""
    one, two = ~a.zero, ~b.zero
    mask = ~_meet(one & ~a.mask, two)
    if mask.any() and not b.mask.all():
        mask = mask & ~_meet(one, two & ~b.mask)
    if not mask.any():
        return None
    values = np.zeros(mask.shape)
    rows = (one & a.mask).any(tuple(range(one.ndim - 1)))
    if rows.any():
        left = np.where(a.mask[..., rows], wide(a.values[..., rows]), 0.0)
        right = np.where(b.mask[..., rows, :], wide(b.values[..., rows, :]), 0.0)
        with np.errstate(all="ignore"):
            values = left @ right
    return known(np.broadcast_to(values, mask.shape), mask)


def _meet(one: Mask, two: Mask) -> Mask:
    """Whether a row of the first and a column of the second are true at the same place."""
    if one.ndim == 2 and len(one) == 1:
        part = two if one.all() else two[..., one[0], :]
        return np.asarray(part.any(-2, keepdims=True))
    rows = one.any(tuple(range(one.ndim - 1)))
    return np.asarray(one[..., rows].astype(np.float32) @ two[..., rows, :].astype(np.float32) > 0)


@dataclass(frozen=True, eq=False)
class Kernel:
    """The weights of a convolution, taps summed.

    Attributes:
        read: Which inputs [group, input] each output reads: [group, output, input].
        total: The sum of the taps, in the same shape.
    """

    read: Mask
    total: npt.NDArray[np.float64]


def kernel(site: Site, weight: Fact) -> Kernel | None:
    """The weights of Conv or ConvTranspose in one layout; None where they are not known."""
    if weight is None or not weight.mask.all():
        return None
    shape, groups = site.shape(1), site.integer("group", 1)
    values = np.broadcast_to(weight.values, shape)
    taps = tuple(range(2, len(shape)))
    read = (values != 0).any(taps)
    total = np.zeros(read.shape) if not read.any() else _sums(values, taps)
    read, total = read.reshape(groups, -1, shape[1]), total.reshape(groups, -1, shape[1])
    if site.node.op_type == "ConvTranspose":
        read, total = read.transpose(0, 2, 1), total.transpose(0, 2, 1)
    return Kernel(read, total)


def _sums(values: np.ndarray, taps: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return np.asarray(wide(values).sum(taps), np.float64)


def even(site: Site) -> bool:
    """Whether a constant channel gives the same at every position: no zeros around it count."""
    if site.node.op_type == "ConvTranspose":
        return False
    attribute = find_attribute(site.node, "pads")
    if attribute is not None and any(attribute.ints):
        return False
    taps = site.shape(1)[2:]
    return site.text("auto_pad", "NOTSET") in ("NOTSET", "VALID") or all(n == 1 for n in taps)


@constant("Conv", "ConvTranspose")
def convolution(site: Site, operands: Sequence[Fact]) -> list[Fact]:
    """Output channels to which only constants, and zeros, contribute; uneven edges are none."""
    weights, bias = kernel(site, operands[1]), operands[2] if site.has(2) else None
    if weights is None or (site.has(2) and (bias is None or not bias.mask.all())):
        return [None]
    groups, _, inputs = weights.read.shape
    x = operands[0]
    values, fixed = np.zeros((groups, inputs)), np.zeros((groups, inputs), bool)
    if x is not None and x.uniform_but(1):
        x = x.along(1, groups * inputs)
        usable = x.mask if even(site) else x.zero
        fixed = usable.reshape(groups, inputs)
        values = np.where(fixed, wide(x.values).reshape(groups, inputs), 0.0)
    mask = ~(weights.read & ~fixed[:, None]).any(2)
    if not mask.any():
        return [None]
    with np.errstate(all="ignore"):
        result = np.einsum("goi,gi->go", weights.total, values).reshape(-1)
    if bias is not None:
        result = result + wide(bias.values).reshape(-1)
    shape = (1, -1, *(1 for _ in site.shape(1)[2:]))
    return [known(result.reshape(shape), mask.reshape(shape))]
