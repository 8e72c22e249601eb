"""Optimizers as graph operators: SGD with momentum, and AdamW.

An update costs one pass over memory per operator, so the states are stored scaled, which saves the
passes that would scale the gradient: AdamW keeps ``m / (1 - beta1)`` and ``v / (1 - beta2)``, SGD
keeps ``momentum * buffer``. `state_factors` leads back to the conventional values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from onnx import TensorProto

from ...errors import UsageError
from ..builder import GraphBuilder

__all__ = [
    "SECOND_MOMENT",
    "Optimizer",
    "OptimizerName",
    "Slot",
    "Updated",
    "append_updates",
    "mask_gradients",
    "state_factors",
    "state_names",
]

OptimizerName = Literal["adamw", "sgd"]

#: The state of adamw that is the running mean of squared gradients.
SECOND_MOMENT = "second_moment"


@dataclass(frozen=True)
class Optimizer:
    """How gradients change weights; raises UsageError for a value that makes no sense.

    Attributes:
        name: "adamw" (Loshchilov and Hutter, 2019) or "sgd".
        momentum: sgd only; 0 for none.
        nesterov: sgd only: step along the momentum looked ahead.
        betas: adamw only: decay rates of the two moments.
        epsilon: adamw only: added to the root of the second moment.
        l2: weight decay: sgd adds ``l2 * weight`` to the gradient, adamw multiplies the weight by
            ``1 - rate * l2``.
    """

    name: OptimizerName = "adamw"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    l2: float = 0.0

    def __post_init__(self) -> None:
        """Validate every field."""
        if self.name not in get_args(OptimizerName):
            raise UsageError(
                f"optimizer {self.name!r} is unknown: choose one of "
                f"{', '.join(get_args(OptimizerName))}"
            )
        _require_share("momentum", self.momentum)
        if len(self.betas) != 2:
            raise UsageError(f"betas are {self.betas!r}: give two, one for each moment")
        for beta in self.betas:
            _require_share("betas", beta)
        if self.nesterov and not (self.name == "sgd" and self.momentum):
            raise UsageError("nesterov needs sgd with momentum: choose these, or leave it out")
        # As a float32 number too, or weights whose gradient is always 0 would become 0/0.
        if not (math.isfinite(self.epsilon) and self.epsilon >= np.finfo(np.float32).tiny):
            raise UsageError(f"epsilon is {self.epsilon}: give a positive number, such as 1e-8")
        if not (math.isfinite(self.l2) and self.l2 >= 0):
            raise UsageError(f"l2 is {self.l2}: give a number of at least 0")


def _require_share(what: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"{what} has the value {value}: give a number from 0 up to but not 1")


@dataclass(frozen=True)
class Slot:
    """One trained weight: names of values in the graph.

    Attributes:
        weight: the weight (float32).
        gradient: its gradient.
        states: the optimizer's states of the weight's shape, in the order of `state_names`; they
            start at zero.
        mask: 1 where the weight is trained and 0 where it is held (float32, the weight's shape);
            None where all of it is trained.
        decays: whether weight decay applies to it.
    """

    weight: str
    gradient: str
    states: tuple[str, ...]
    mask: str | None = None
    decays: bool = True


@dataclass(frozen=True)
class Updated:
    """Names of the new values of a weight and its states."""

    weight: str
    states: tuple[str, ...]


def state_factors(optimizer: Optimizer) -> Mapping[str, float]:
    """What each state is multiplied by to be the conventional one, by the state's name.

    Conventional are PyTorch's ``exp_avg``, ``exp_avg_sq`` (adamw) and ``momentum_buffer`` (sgd).
    """
    if optimizer.name == "adamw":
        first, second = optimizer.betas
        return {"first_moment": 1 - first, SECOND_MOMENT: 1 - second}
    return {"momentum": 1 / optimizer.momentum} if optimizer.momentum else {}


def state_names(optimizer: Optimizer) -> tuple[str, ...]:
    """Names of the states that an optimizer keeps for every weight."""
    return tuple(state_factors(optimizer))


def mask_gradients(b: GraphBuilder, slots: Sequence[Slot]) -> list[Slot]:
    """Apply every mask to its gradient; the slots returned have no mask any more.

    `append_updates` does this by itself; apart from it, it is for what must see masked gradients
    before the update, such as clipping by their norm.
    """
    return [
        replace(slot, gradient=b.op("Mul", slot.gradient, slot.mask), mask=None)
        if slot.mask
        else slot
        for slot in slots
    ]


def append_updates(
    b: GraphBuilder, optimizer: Optimizer, slots: Sequence[Slot], rate: str, step: str
) -> list[Updated]:
    """Append one step of an optimizer.

    The mask multiplies the gradient, before weight decay. A held weight of value 0 whose states
    are 0 thus stays 0, and so do its states: +0 stays +0 bit for bit. A mask that shrinks in the
    middle of training needs weights and states multiplied by it once.

    Args:
        b: The graph, which holds the gradients.
        optimizer: Which one, and its numbers.
        slots: The weights.
        rate: Name of the learning rate, a float32 scalar (0-d).
        step: Name of the step's number, an int64 scalar (0-d), 1 for the first.

    Returns:
        The new values, in the order of `slots`.
    """
    update = _RULES[optimizer.name](b, optimizer, rate, step)
    updated = []
    for slot in mask_gradients(b, slots):
        with b.within(f"{optimizer.name}/{slot.weight}"):
            updated.append(update(slot))
    return updated


_Update = Callable[[Slot], Updated]


def _sgd(b: GraphBuilder, optimizer: Optimizer, rate: str, step: str) -> _Update:
    """``buffer = momentum * buffer + g + l2 * w; w -= rate * buffer`` (nesterov: looked ahead)."""

    def update(slot: Slot) -> Updated:
        direction = slot.gradient
        if optimizer.l2 and slot.decays:
            direction = b.op("Add", direction, b.op("Mul", slot.weight, _float32(b, optimizer.l2)))
        states: tuple[str, ...] = ()
        if optimizer.momentum:
            buffer = b.op("Add", slot.states[0], direction)
            states = (b.op("Mul", buffer, _float32(b, optimizer.momentum)),)
            direction = b.op("Add", direction, states[0]) if optimizer.nesterov else buffer
        return Updated(b.op("Sub", slot.weight, b.op("Mul", direction, rate)), states)

    return update


def _adamw(b: GraphBuilder, optimizer: Optimizer, rate: str, step: str) -> _Update:
    """``w = w * (1 - rate * l2) - rate * m^ / (sqrt(v^) + epsilon)``, ``^`` is bias-corrected.

    With the scaled states the last term is ``size * m / (sqrt(v) + offset)``.
    """
    first, second = (_float32(b, beta) for beta in optimizer.betas)
    offset, size = _adamw_scalars(b, optimizer, rate, step)
    kept = None
    if optimizer.l2:
        kept = b.op("Sub", _float32(b, 1), b.op("Mul", rate, _float32(b, optimizer.l2)))

    def update(slot: Slot) -> Updated:
        weight, gradient = slot.weight, slot.gradient
        m = b.op("Add", b.op("Mul", slot.states[0], first), gradient)
        v = b.op("Add", b.op("Mul", slot.states[1], second), b.op("Mul", gradient, gradient))
        root = b.op("Add", b.op("Sqrt", v), offset)
        if kept and slot.decays:
            weight = b.op("Mul", weight, kept)
        change = b.op("Mul", b.op("Div", m, root), size)
        return Updated(b.op("Sub", weight, change), (m, v))

    return update


def _adamw_scalars(b: GraphBuilder, optimizer: Optimizer, rate: str, step: str) -> tuple[str, str]:
    """Offset and size of the step, which hold epsilon, rate and both bias corrections.

    With ``c_i = 1 - beta_i ** step``: ``offset = epsilon * sqrt(c2 / (1 - beta2))`` and
    ``size = rate * (1 - beta1) / c1 * sqrt(c2 / (1 - beta2))``. In float64, because ``c2`` of the
    first steps is a small difference of numbers near 1.
    """
    beta1, beta2 = optimizer.betas
    unscaled = np.array([optimizer.epsilon, 1 - beta1]) / math.sqrt(1 - beta2)
    powers = b.op(
        "Pow", b.constant(np.array(optimizer.betas)), b.op("Cast", step, to=TensorProto.DOUBLE)
    )
    corrections = b.op("Sub", b.constant(np.array(1.0)), powers)
    exponents = b.constant(np.array([[0, 0.5], [-1, 0.5]]))
    factors = b.op("Cast", b.op("Pow", corrections, exponents), to=TensorProto.FLOAT)
    products = b.op("ReduceProd", factors, b.constant([1]), keepdims=0)
    scalars = b.op("Mul", products, b.constant(unscaled.astype(np.float32)))
    # 0-d, so that a 0-d weight stays 0-d.
    offset, size = (
        b.op("Gather", scalars, b.constant(np.array(index, np.int64))) for index in (0, 1)
    )
    return offset, b.op("Mul", size, rate)


def _float32(b: GraphBuilder, value: float) -> str:
    return b.constant(np.array(value, np.float32))


_RULES: dict[str, Callable[[GraphBuilder, Optimizer, str, str], _Update]] = {
    "adamw": _adamw,
    "sgd": _sgd,
}
