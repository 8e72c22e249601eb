"""Fine-tuning: training graphs made of standard ONNX operators, and what runs them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifacts import generate_artifacts as generate_artifacts
    from .loss.append import Labels as Labels
    from .loss.append import LossConfig as LossConfig
    from .trainer import Trainer as Trainer
    from .update.optimizers import Optimizer as Optimizer

_HOMES = {
    "Labels": "loss.append",
    "LossConfig": "loss.append",
    "Optimizer": "update.optimizers",
    "Trainer": "trainer",
    "generate_artifacts": "artifacts",
}

__all__ = ["Labels", "LossConfig", "Optimizer", "Trainer", "generate_artifacts"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
