"""How many channels to remove, and which: validated once, shared by both doors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..config import Scope
from ..errors import UsageError
from ..options import choice, documented, number, option, whole

__all__ = ["ALIGN", "BLOCK", "ChannelConfig", "Importance", "StructureConfig"]

Importance = Literal["l2", "activation"]

#: The most channels that kernels of current processors work on at a time; fewer divide it.
BLOCK = 16
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


@documented
@dataclass(frozen=True)
class StructureConfig:
    """What is removed from the graph itself; raises UsageError for a value that makes no sense.

    By default, that is only what pruning has left dead.
    """

    channels: ChannelConfig | None = option(
        None, "Channels to remove before weights are pruned; None removes none."
    )
    shrink: bool | None = option(
        None,
        "Remove neurons and channels that nothing reads, or that have the same value for all"
        " inputs, as far as outputs stay what they are. By default that is done after weights were"
        " pruned, in models of up to 512 MB; --no-shrink leaves them where they are.",
    )
    align: int | None = option(
        None,
        "Keep a multiple of this many channels where that is possible, as kernels want it. The"
        f" default is {ALIGN}, and {BLOCK} for dead channels of convolutions; 1 keeps no more than"
        " has to stay.",
    )
    latency: bool | None = option(
        None,
        "Measure how long a run takes before and after, side by side in onnxruntime on one thread."
        " By default that is done where channels went; --no-latency measures none.",
    )

    def __post_init__(self) -> None:
        """Validate every field."""
        for name in ("shrink", "latency"):
            value = getattr(self, name)
            if not (value is None or isinstance(value, bool)):
                raise UsageError(f"{name} is {value!r}: give True, False, or None for the default")
        if self.align is not None:
            # The dataclass is frozen for everybody else.
            object.__setattr__(self, "align", whole(self.align, "align", 1))

    @classmethod
    def of(
        cls,
        *,
        channels: float | None = None,
        macs: float | None = None,
        speedup: float | None = None,
        align: int | None = None,
        importance: Importance | None = None,
        scope: Scope = "global",
        shrink: bool | None = None,
        latency: bool | None = None,
    ) -> StructureConfig:
        """The settings that both doors take one by one; None stands for the default.

        Raises:
            UsageError: A value makes no sense, or has no effect.
        """
        chosen = None
        if channels is not None or macs is not None or speedup is not None:
            step = ALIGN if align is None else align
            chosen = ChannelConfig(
                channels, macs, speedup, align=step, importance=importance, scope=scope
            )
        elif importance is not None:
            raise UsageError(
                "importance chooses channels: give channels, macs or speedup too, or leave it out"
            )
        elif align is not None and shrink is False:
            raise UsageError(
                "align says how many channels stay where some go: leave it out, or let some go"
            )
        return cls(chosen, shrink, align, latency)
