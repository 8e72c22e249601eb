"""How latency is measured: validated once, shared by the command line and Python."""

from __future__ import annotations

from dataclasses import dataclass

from .options import documented, option, whole

__all__ = ["TimingConfig"]


@documented
@dataclass(frozen=True)
class TimingConfig:
    """How runs are timed; raises UsageError for a value that makes no sense."""

    runs: int | None = option(
        None,
        "Time this many runs of each model; 0 times none. The default is as many as take two"
        " seconds, from 5 to 200.",
    )
    threads: int = option(
        1, "Threads of a timed run; 0 stands for all cores. The default is 1, which varies least."
    )
    batch_size: int | None = option(
        None,
        "Samples of a timed run. The default is 1, or what the models insist on.",
    )

    def __post_init__(self) -> None:
        """Validate every field, and give it its plain type."""
        settle = object.__setattr__  # the dataclass is frozen for everybody else
        if self.runs is not None:
            settle(self, "runs", whole(self.runs, "runs", 0))
        settle(self, "threads", whole(self.threads, "threads", 0))
        if self.batch_size is not None:
            settle(self, "batch_size", whole(self.batch_size, "batch-size", 1))
