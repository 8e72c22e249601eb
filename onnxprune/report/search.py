"""The facts of a search for the most pruning within a bound, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from .training import Better

__all__ = ["Search", "SearchTrial"]


@dataclass(frozen=True)
class SearchTrial:
    """One pruning that was measured on the way."""

    trial: int
    """1 for the first."""
    way: str
    """How pruning was spread over the layers."""
    setting: str
    """What was asked for, such as ``sparsity 0.9``."""
    zeros: float
    """Share of the searched layers' weights that are zero, 0 to 1."""
    kept: int
    """Weights of all prunable layers that are not zero."""
    metric: float
    drop: float
    """How much worse that is than the unpruned model; negative where it is better."""
    within: bool
    """Whether the drop is within the bound."""
    best: bool
    """Whether no earlier trial within the bound left fewer weights."""
    retrained: bool
    seconds: float


@dataclass(frozen=True)
class Search:
    """A search for the most pruning whose metric stays within a bound."""

    max_drop: float
    """What was asked for, in `unit`."""
    unit: str
    """``points``, or ``% of ...``."""
    bound: float
    """The drop that is allowed, in the metric's own numbers."""
    metric: str
    better: Better
    share: bool
    """True where the metric is a share from 0 to 1 and is shown as a percentage."""
    dense: float
    """The metric of the unpruned model."""
    trials: tuple[SearchTrial, ...]
    """All prunings that were measured, in order."""
    chosen: int | None
    """The trial that was chosen; None where none is within the bound and nothing was pruned."""
    drop: float
    """Drop of the chosen model; 0 where nothing was pruned."""
    drop_error: float | None
    """Standard error of the drop as an estimate for other samples; None where unknown."""
    samples: int
    """Samples of the validation data, on which every trial was measured."""
    scanned: int
    """Samples on which single layers were tried; 0 where they were not."""
    seconds: float
    notes: tuple[str, ...] = ()
