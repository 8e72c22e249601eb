"""Who goes in a few neighbouring inputs: the lowest share, N:M, blocks, or what was settled."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..pattern import BlockPattern
from ..pruning.ranking import lowest
from .obs import BLOCK

__all__ = ["BlockChooser", "GroupChooser", "SettledChooser", "ShareChooser"]


@dataclass(eq=False)
class ShareChooser:
    """The least losses of every 128 inputs go.

    Attributes:
        shares: The share of the weights of each input that goes [inputs], 0 to 1; those of one
            step are added up.
    """

    shares: np.ndarray
    step: int = BLOCK
    _due: float = 0.0

    def __call__(self, start: int, losses: np.ndarray) -> np.ndarray:
        """See `Chooser`; what rounding leaves in one step, the next makes up for."""
        groups, outputs, inputs = losses.shape
        due = self._due + groups * outputs * float(self.shares[start : start + inputs].sum())
        count = round(due)
        self._due = due - count
        gone = np.zeros(losses.size, bool)
        gone[lowest(losses.reshape(-1), count)] = True
        return gone.reshape(losses.shape)


@dataclass(frozen=True, eq=False)
class GroupChooser:
    """All but `keep` of every `step` neighbouring inputs go."""

    keep: int
    step: int

    def __call__(self, start: int, losses: np.ndarray) -> np.ndarray:
        """See `Chooser`."""
        order = np.argsort(np.argsort(-losses, axis=2, kind="stable"), axis=2, kind="stable")
        gone: np.ndarray = order >= self.keep
        return gone


@dataclass(eq=False)
class BlockChooser:
    """The least blocks of outputs x inputs go, a share of those in about 128 inputs.

    Attributes:
        pattern: The blocks; outputs and inputs are multiples of theirs.
        shares: The share of the weights of each input that goes [inputs], 0 to 1.
    """

    pattern: BlockPattern
    shares: np.ndarray
    step: int = field(init=False)

    def __post_init__(self) -> None:
        columns = self.pattern.columns
        self.step = columns * max(1, BLOCK // columns)
        self._of_blocks = ShareChooser(self.shares.reshape(-1, columns).mean(axis=1))

    def __call__(self, start: int, losses: np.ndarray) -> np.ndarray:
        """See `Chooser`."""
        rows, columns = self.pattern.rows, self.pattern.columns
        groups, outputs, inputs = losses.shape
        # A weight that must go has no say in what becomes of its block.
        parts = np.maximum(losses, 0.0).reshape(
            groups, outputs // rows, rows, inputs // columns, columns
        )
        gone = self._of_blocks(start // columns, parts.sum(axis=(2, 4)))
        return gone.repeat(rows, axis=1).repeat(columns, axis=2)


@dataclass(frozen=True, eq=False)
class SettledChooser:
    """What goes was settled before.

    Attributes:
        gone: Which weights go [groups, outputs, inputs].
    """

    gone: np.ndarray
    step: int = BLOCK

    def __call__(self, start: int, losses: np.ndarray) -> np.ndarray:
        """See `Chooser`."""
        return self.gone[:, :, start : start + losses.shape[2]]
