"""How many channels to remove, and which: validated once, shared by both doors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..config import Scope
from ..errors import UsageError
from ..options import choice, documented, number, option, whole

__all__ = ["ALIGN", "ChannelConfig", "Importance"]

Importance = Literal["l2", "activation"]

#: Kept channels are a multiple of this by default: kernels work on 8 or 16 numbers at a time.
ALIGN = 8


@documented
@dataclass(frozen=True)
class ChannelConfig:
    """Which channels to remove; raises UsageError for a value that makes no sense.

    Exactly one of `channels`, `macs` and `speedup` says how many.
    """

    channels: float | None = option(
        None,
        "Remove this share, from 0 up to but not including 1, of the channels, neurons and"
        " attention heads from the graph itself: the model gets smaller and faster everywhere.",
    )
    macs: float | None = option(
        None,
        "Instead of a share: remove channels until this share, above 0 and up to 1, of the"
        " multiplications and additions is left.",
    )
    speedup: float | None = option(
        None,
        "Instead of a share: remove channels until onnxruntime runs the model this many times"
        " faster here, at least 1.",
    )
    align: int = option(
        ALIGN,
        "Keep a multiple of this many channels where an axis is long enough, as kernels want it."
        f" The default is {ALIGN}; 1 keeps as many as asked for.",
    )
    importance: Importance | None = option(
        None,
        "What makes a channel important: l2, the norm of its weights, or activation, how much it"
        " varies on calibration data times the norm of the weights that read it. The default is"
        " activation with calibration data and l2 without.",
    )
    scope: Scope = option(
        "global",
        "Which channels compete: all of the model (global, the default), or those of each layer,"
        " every one of which then loses the share (layer).",
    )
    threads: int = option(
        1,
        "Threads of onnxruntime while a speedup is measured; 0 stands for all cores. The default is"
        " 1, which varies least.",
    )

    def __post_init__(self) -> None:
        """Validate every field."""
        given = {name: getattr(self, name) for name in ("channels", "macs", "speedup")}
        wanted = [name for name, value in given.items() if value is not None]
        if len(wanted) != 1:
            found = f"{' and '.join(wanted)} exclude each other" if wanted else "nothing is asked"
            raise UsageError(
                f"{found}: give one of channels (a share to remove), macs (a share of the"
                " operations to keep) and speedup (a factor)"
            )
        settle = object.__setattr__  # the dataclass is frozen for everybody else
        for name, (text, fits) in _TARGETS.items():
            if given[name] is not None:
                settle(self, name, number(given[name], name, text, fits))
        settle(self, "align", whole(self.align, "align", 1))
        settle(self, "threads", whole(self.threads, "threads", 0))
        choice(self.scope, "scope", Scope)
        if self.importance is not None:
            choice(self.importance, "importance", Importance)


_TARGETS = {
    "channels": (
        "a share from 0 up to but not including 1, such as 0.5",
        lambda share: 0 <= share < 1,
    ),
    "macs": ("a share above 0 and up to 1, such as 0.5", lambda share: 0 < share <= 1),
    "speedup": ("a factor of at least 1, such as 2.0", lambda factor: 1 <= factor < math.inf),
}
