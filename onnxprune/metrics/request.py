"""Which metric is asked for: a name, a function of the user's, or whichever suits the data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args

from ..errors import UsageError
from ..options import documented, option

__all__ = ["AUTOMATIC", "Better", "GivenMetric", "MetricRequest", "check_use"]

Better: TypeAlias = Literal["higher", "lower"]
Kind = Literal["auto", "top", "mse", "cosine", "agreement", "function"]
#: A metric by name, or a function of outputs and labels: see `onnxprune.metrics.function`.
GivenMetric: TypeAlias = str | Callable[[Any, Any], float]

PLAIN: tuple[Kind, ...] = ("auto", "mse", "cosine", "agreement")
TOP_K = re.compile(r"top-?([1-9][0-9]*)")


@documented
@dataclass(frozen=True)
class MetricRequest:
    """A metric before the data is known; raises UsageError for a name that is none."""

    given: GivenMetric | None = option(
        None,
        "Measure outputs by top1, top5 and so on (share of samples with the right class among the"
        " first), mse, cosine (similarity with the outputs of the unpruned model), agreement (with"
        " its classes), or module:function, which runs that code. The default suits labels and"
        " outputs.",
    )
    better: Better | None = option(
        None,
        "Which values of a module:function are better, higher or lower, where the function has no"
        " attribute 'better' that says so.",
    )

    def __post_init__(self) -> None:
        """Refuse what is no metric, and a direction for those that have one."""
        if self.better is not None and self.better not in get_args(Better):
            raise UsageError(f"metric-better is {self.better!r}: give higher or lower")
        if self.kind != "function" and self.better is not None:
            raise UsageError(
                "metric-better says which way is up for a function of your own: give metric as"
                " module:function too, or leave it out"
            )

    @property
    def kind(self) -> Kind:
        """What sort of metric it is."""
        if self.given is None:
            return "auto"
        if callable(self.given):
            return "function"
        if not isinstance(self.given, str):
            raise UsageError(f"metric is {self.given!r}: give a name or a function")
        if ":" in self.given:
            return "function"
        if self.given in PLAIN:
            return next(name for name in PLAIN if name == self.given)
        if TOP_K.fullmatch(self.given):
            return "top"
        near = get_close_matches(self.given, (*PLAIN, "top1", "top5"), n=1)
        hint = f"did you mean {near[0]}? Or give" if near else "give"
        raise UsageError(
            f"metric {self.given!r} is unknown: {hint} top1, top5, mse, cosine, agreement, or"
            " module:function"
        )

    @property
    def k(self) -> int:
        """How many classes count for a top-k metric."""
        found = TOP_K.fullmatch(self.given) if isinstance(self.given, str) else None
        assert found is not None  # its kind is "top"
        return int(found[1])

    def against_reference(self, *, labelled: bool) -> bool:
        """Whether the unpruned model's outputs take the place of labels."""
        return self.kind in ("cosine", "agreement") or (self.kind != "top" and not labelled)


#: The metric that suits labels and output.
AUTOMATIC = MetricRequest()


def check_use(request: MetricRequest, val: object) -> None:
    """Refuse a metric without data (None) to measure it on; raises UsageError."""
    if val is None and request != AUTOMATIC:
        raise UsageError(
            "metric says what is measured on validation data: give val too, or leave it out"
        )
