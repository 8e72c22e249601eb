"""The facts of a training: what was trained on what, and how it went, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Better", "EpochRow", "FrozenRow", "RoundRow", "Training"]

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class EpochRow:
    """One time through the training data."""

    round: int
    """Round of pruning and retraining, 1 for the first."""
    epoch: int
    """Epoch in its round, 1 for the first."""
    rate: float
    """Learning rate of the epoch's first step."""
    loss: float
    """Mean loss over the epoch's samples, each in its own step."""
    metric: float | None
    """Metric on the validation data after the epoch; None where there is none."""
    samples: int
    """Samples of the epoch."""
    seconds: float
    """Time of the epoch, validation included."""


@dataclass(frozen=True)
class RoundRow:
    """One round of pruning and retraining."""

    round: int
    """1 for the first."""
    quality: float | None
    """The q of the round; None in a run for a target sparsity."""
    sparsity: float | None
    """The target share of zeros of the round; None in a run by quality."""
    zeros: float
    """Share of the prunable layers' weights that are zero after pruning, 0 to 1."""
    metric_pruned: float | None
    """Metric on the validation data after pruning; None where there is none."""
    metric_trained: float | None
    """Metric after retraining, of the epoch that was kept; None where there is none."""
    best_epoch: int | None
    """The epoch whose weights were kept; None where that is the last for want of a metric."""


@dataclass(frozen=True)
class FrozenRow:
    """One weight that was not trained, and why."""

    name: str
    """Name of the weight."""
    node: str
    """Label of the node that uses it, empty where several do."""
    operator: str
    """Type of that node."""
    reason: str
    """Why it stayed as it was."""


@dataclass(frozen=True)
class Training:
    """How the weights that pruning left were retrained."""

    engine: str
    """What computed the steps, with its version."""
    data: str
    """The training data, as the user knows it, and what is in it."""
    loss: str
    """What was minimised, such as ``cross-entropy on the input of Softmax 'prob'``."""
    optimizer: str
    """What updated the weights, with its settings."""
    rate: float
    """Learning rate at the start."""
    schedule: str
    """How the learning rate fell: ``constant``, ``cosine`` or ``step``."""
    epochs: int
    """Epochs asked for in every round."""
    batch_size: int
    """Samples of one step."""
    metric: str | None
    """Name of the metric on the validation data; None where there is none."""
    better: Better
    """Whether higher or lower values of the metric are better."""
    trained_parameters: int
    """Elements of all tensors that were trained, pruned ones included."""
    trained_tensors: int
    """Number of tensors that were trained."""
    frozen: tuple[FrozenRow, ...]
    """Weights that stayed as they were."""
    rounds: tuple[RoundRow, ...]
    """All rounds, in order."""
    epoch_rows: tuple[EpochRow, ...]
    """All epochs of all rounds, in order; those before a resumed run's start included."""
    steps: int
    """Updates of the weights, in all epochs."""
    seconds: float
    """Time of the training, validation included."""
    samples_per_second: float
    """Training samples a second of the steps alone."""
    resumed: bool = False
    """True where the run went on from a checkpoint."""
    stopped_early: bool = False
    """True where a round ended before its last epoch because the metric got no better."""
    recipe: str = ""
    """The recipe that the settings came from, and what was changed; empty where there is none."""
    method: str = ""
    """How weights went while the model was trained; empty where they went before."""
    notes: tuple[str, ...] = ()
    """What else a reader should know, such as weights that were trained in another type."""
    share: bool = True
    """True where the metric is a share from 0 to 1 and is shown as a percentage."""
