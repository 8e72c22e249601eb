"""What a sensitivity scan tries: validated once, shared by the command line and Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..options import documented, glob, items, number, option, whole

__all__ = ["SAMPLES", "SPARSITIES", "ScanConfig", "parse_numbers"]

#: Shares of zeros that are tried by default.
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
#: Samples that are measured on by default.
SAMPLES = 512


@documented
@dataclass(frozen=True)
class ScanConfig:
    """How layers are tried; raises UsageError for a value that makes no sense."""

    sparsities: tuple[float, ...] = option(
        (),
        "Prune each layer to these shares of zeros, as in 0.5,0.7,0.9. The default is"
        f" {','.join(f'{share:g}' for share in SPARSITIES)}.",
    )
    qualities: tuple[float, ...] = option(
        (),
        "Prune each layer by these qualities (multiples of its standard deviation) instead, as in"
        " 0.5,1,1.5.",
    )
    exclude: tuple[str, ...] = option(
        (), "Leave alone the layers whose weight or node name matches GLOB. Repeatable."
    )
    embeddings: bool = option(False, "Try embedding tables (2-D tables read by Gather) too.")
    allow_nonfinite: bool = option(
        False, "Leave alone layers that hold NaN or infinity, where they are an error otherwise."
    )
    samples: int = option(
        SAMPLES,
        "Measure on this many samples at most, of a shuffled order that is always the same. The"
        f" default is {SAMPLES}; more of them tell small differences apart.",
    )
    jobs: int | None = option(
        None,
        "Measure so many prunings at once, each on one thread. The default is one for each core,"
        " or what a joblib.parallel_config around the call says.",
    )

    def __post_init__(self) -> None:
        """Validate every field, and settle what is tried."""
        settle = object.__setattr__  # the dataclass is frozen for everybody else
        if self.sparsities and self.qualities:
            raise UsageError("sparsities and qualities exclude each other: give one of them")
        settle(self, "qualities", _rising(self.qualities, "qualities", _quality))
        wanted = self.sparsities or (() if self.qualities else SPARSITIES)
        settle(self, "sparsities", _rising(wanted, "sparsities", _sparsity))
        settle(self, "exclude", tuple(glob(item) for item in items(self.exclude, "exclude")))
        settle(self, "samples", whole(self.samples, "samples", 1))
        if self.jobs is not None:
            settle(self, "jobs", whole(self.jobs, "jobs", 1))


def parse_numbers(text: str | None, what: str) -> tuple[float, ...]:
    """Numbers from a text such as ``0.5,0.7,0.9``; none from None. Raises UsageError."""
    if text is None:
        return ()
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError:
            raise UsageError(
                f"{what} has {part!r}, which is no number: write for example '0.5,0.7,0.9'"
            ) from None
    return tuple(numbers)


def _rising(
    values: Sequence[Any], what: str, check: Callable[[Any, str], float]
) -> tuple[float, ...]:
    """The numbers in rising order, each once."""
    return tuple(sorted({check(value, f"a number of {what}") for value in items(values, what)}))


def _sparsity(value: Any, what: str) -> float:
    return number(value, what, "a share above 0 and below 1", lambda share: 0 < share < 1)


def _quality(value: Any, what: str) -> float:
    wanted = "a finite number above 0, such as 1.0"
    return number(value, what, wanted, lambda quality: 0 < quality < math.inf)
