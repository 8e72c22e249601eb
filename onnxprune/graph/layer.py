"""What layer discovery finds: layers, where each is used, how it is quantised, what cannot go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..model.tensors import TensorAddress, TensorKind

__all__ = ["Layer", "LayerScan", "Quantization", "Role", "Unprunable", "WeightUse"]

#: What an axis of a weight runs over. "tap": positions of a kernel (or an axis of size one that a
#: view drops); "group": independent copies (batched MatMul, experts); "unknown": hidden by a view.
Role = Literal["output", "input", "tap", "group", "direction", "unknown"]


@dataclass(frozen=True)
class WeightUse:
    """One node input that reads a tensor as its weight.

    `node` is the node's label, qualified with its scope outside the main graph. `roles` has one
    entry for every axis of the *stored* tensor: views on the way to the node are composed.
    """

    node: str
    op_type: str
    domain: str
    input_index: int
    roles: tuple[Role, ...]


@dataclass(frozen=True, eq=False)
class Quantization:
    """How stored codes become values: ``(code - zero_point) * scale``.

    `scale` is None where the graph does not tell it (MatMulInteger): magnitudes are then those of
    ``code - zero_point``. Both are 0-d, or 1-d along `axis` of the stored tensor, or, with
    `block_size` > 0, of the stored tensor's rank with one entry per block along `axis`.
    """

    scale: np.ndarray | None
    zero_point: np.ndarray
    axis: int | None = None
    block_size: int = 0


@dataclass(frozen=True)
class Layer:
    """One weight tensor and everything that uses it as a weight."""

    name: str
    address: TensorAddress
    kind: TensorKind
    shape: tuple[int, ...]
    data_type: int
    uses: tuple[WeightUse, ...]
    quantization: Quantization | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unprunable:
    """A weight that stays as it is, and why; `shape` is None where only running would tell it."""

    name: str
    node: str
    op_type: str
    shape: tuple[int, ...] | None
    reason: str


@dataclass(frozen=True)
class LayerScan:
    """All weights of a model, each list in the order in which nodes first use them."""

    layers: tuple[Layer, ...]
    unprunable: tuple[Unprunable, ...]
