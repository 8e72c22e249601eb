"""How to repair a pruned model: validated once, shared by the command line and Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .options import choice, documented, option, whole

__all__ = ["Calibration", "RepairName"]

RepairName = Literal["refit", "match", "bn", "none"]


@documented
@dataclass(frozen=True)
class Calibration:
    """How calibration samples are used; raises UsageError for a value that makes no sense."""

    repair: RepairName = option(
        "refit",
        "What makes up for the weights that went: refit (the default: least squares over those"
        " that are left, layer by layer), match (mean and deviation of every output channel), bn"
        " (statistics of BatchNormalization), or none.",
    )
    samples: int = option(
        512, "Take at most this many of the calibration samples. The default is 512."
    )

    def __post_init__(self) -> None:
        """Validate every field."""
        choice(self.repair, "repair", RepairName)
        # The dataclass is frozen for everybody else.
        object.__setattr__(self, "samples", whole(self.samples, "samples", 1))
