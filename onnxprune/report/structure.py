"""What went of the graph itself: channels that were chosen, and neurons that pruning left dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["ChannelRow", "DeadRow", "Structure"]


@dataclass(frozen=True)
class ChannelRow:
    """One coupled group out of which channels were chosen."""

    group: str
    """The axes of weights that it couples, in words."""
    before: int
    """Channels (neurons, heads, dimensions of heads) that could go one by one."""
    after: int
    """Those that were kept."""
    tensors: int
    """Tensors that lose something with each."""


@dataclass(frozen=True)
class DeadRow:
    """One coupled group that lost dead channels, after pruning."""

    group: str
    before: int
    after: int
    unread: int
    """Channels that went because no weight reads them."""
    constant: int
    """Channels that went because they held the same value for all inputs."""
    merged: int
    """Constant channels that became one with another, as padding keeps them from being a bias."""
    left: int
    """Dead channels that stay, so that a convolution keeps a round number of them."""


@dataclass(frozen=True)
class Structure:
    """What happened to the graph."""

    DERIVED: ClassVar[tuple[str, ...]] = ("changed", "channels_removed", "dead_removed")

    request: str
    """What was asked for, such as ``channels 0.5``; empty where only what is dead goes."""
    channels: tuple[ChannelRow, ...]
    """Groups that lost channels by choice."""
    dead: tuple[DeadRow, ...]
    """Groups that lost dead channels."""
    biases: tuple[str, ...]
    """Nodes whose bias took up the constants of dead channels."""
    new_biases: tuple[str, ...]
    """Nodes that were given a bias for that."""
    reason: str
    """Why no dead channel went; empty where one did, or none was looked for."""
    channels_found: int = 0
    """Channels of all groups that could lose some by choice, also of those that lost none."""
    refitted: int = 0
    """Calibration samples on which what stays was refitted when channels went; 0 where none were.
    """
    macs_before: int | None = None
    """Multiplications of one sample, each with its addition; None where nothing changed."""
    macs_after: int | None = None
    macs_unknown: int = 0
    """Nodes whose operations are not counted."""

    @property
    def channels_removed(self) -> int:
        """Channels that went by choice."""
        return sum(row.before - row.after for row in self.channels)

    @property
    def dead_removed(self) -> int:
        """Dead channels that went."""
        return sum(row.before - row.after for row in self.dead)

    @property
    def changed(self) -> bool:
        """Whether anything went."""
        return bool(self.channels_removed or self.dead_removed)
