"""Which optimizers onnxruntime-training 1.19.2 has."""

from __future__ import annotations

from typing import Any, Protocol

from ....errors import UsageError

__all__ = ["OptimizerSettings", "worker_settings"]


class OptimizerSettings(Protocol):
    """What an optimizer is made of: `onnxprune.training.update.optimizers.Optimizer` has it."""

    @property
    def name(self) -> str:
        """Adamw or sgd."""

    @property
    def momentum(self) -> float:
        """Share of the last update that sgd adds to the next."""

    @property
    def nesterov(self) -> bool:
        """Whether sgd looks ahead."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay rates of Adam's two moments."""

    @property
    def epsilon(self) -> float:
        """What Adam adds to the root of the second moment."""

    @property
    def l2(self) -> float:
        """Weight decay per step, times the learning rate."""


def worker_settings(optimizer: OptimizerSettings, clip_norm: float | None) -> dict[str, Any]:
    """What the worker is told of the optimizer: its `Settings.optimizer`.

    Weight decay is the same for both: without momentum, an L2 term in sgd's gradient and weights
    that shrink by rate * l2 are one.

    Raises:
        UsageError: onnxruntime-training has no such optimizer.
    """
    lacks = {
        "sgd": {"momentum": optimizer.momentum != 0, "nesterov": optimizer.nesterov},
        "adamw": {},
    }
    if optimizer.name not in lacks:
        raise UsageError(
            f"the engine onnxruntime-training has no optimizer '{optimizer.name}'; "
            f"it has {' and '.join(sorted(lacks))}"
        )
    for option, asked in lacks[optimizer.name].items():
        if asked:
            raise UsageError(
                f"the engine onnxruntime-training has no {option} for {optimizer.name}; "
                f"switch {option} off, use adamw, or leave the engine out"
            )
    return {
        "name": optimizer.name,
        "betas": list(optimizer.betas),
        "epsilon": optimizer.epsilon,
        "l2": optimizer.l2,
        "clip_norm": clip_norm,
    }
