"""The facts of a repair: what made up for the weights that went, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Repair", "RepairRow"]


@dataclass(frozen=True)
class RepairRow:
    """One layer after pruning, repaired or not."""

    layer: str
    """Name of the layer."""
    method: str | None
    """What was done: ``refit``, ``match`` or ``bn``; None where nothing was."""
    reason: str | None
    """Why nothing was done; None where something was."""
    error_before: float | None
    """Squared difference of the layer's outputs from those of the unpruned model, over their
    squared deviation from their means, when its turn came; None where it was not measured. Where
    weights went in steps, it is that of the last step."""
    error_after: float | None
    """The same after its repair."""


@dataclass(frozen=True)
class Repair:
    """How calibration samples were used."""

    method: str
    """The repair that was asked for: ``refit``, ``match``, ``bn`` or ``none``."""
    data: str
    """The calibration data, as the user knows it, and what is in it."""
    samples: int
    """Samples that were used."""
    choice: str
    """How the weights that went were chosen."""
    rows: tuple[RepairRow, ...]
    """All layers, in the order of the report's."""
    seconds: float
    """Time that choosing and repairing took."""
