"""What came of pruning a model, retrained or not."""

from __future__ import annotations

from dataclasses import dataclass

from .graph.dropout import DropoutSite
from .model.model import Model
from .pruning.plan import LayerPlan
from .report.repair import Repair
from .report.training import Training

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """A pruned model, retrained or not; metrics are None without validation data.

    Attributes:
        model: The model.
        plans: What happened to each layer.
        dropouts: Every Dropout with its new ratio.
        pruned: Metric before it was retrained; None where it was not.
        metric: Metric of the model.
        training: How it was retrained.
        repair: What calibration samples did.
        warnings: What a user should know of it.
    """

    model: Model
    plans: tuple[LayerPlan, ...]
    dropouts: tuple[tuple[DropoutSite, float], ...]
    pruned: float | None
    metric: float | None
    training: Training | None = None
    repair: Repair | None = None
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether any weight went."""
        return any(plan.changes for plan in self.plans)

    @property
    def kept(self) -> int:
        """Weights of all layers that are not zero."""
        return sum(plan.kept for plan in self.plans)
