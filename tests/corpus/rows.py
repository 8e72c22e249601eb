"""Results of the wide corpus: one row for each thing that was looked at."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from tests.corpus.isolated import Lost
from tests.corpus.sources import Source

__all__ = ["Row", "Sheet", "kind_of", "words"]


@dataclass(frozen=True)
class Row:
    """One thing that was looked at.

    Attributes:
        operation: What was done to the model; "source" for the making of the model itself.
        check: "made", "checker", "onnxruntime", or another tool.
        outcome: "passed"; "rounded" where a tool's outputs are near, not equal up to the tolerance;
            "refused" by onnxprune in one sentence; "source" where the tool cannot take the source
            either; "unseen" where there is nothing to compare with; "problem".
        seconds: Since the row before.
    """

    key: str
    group: str
    operation: str
    check: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Sheet:
    """The rows of one model."""

    source: Source
    rows: list[Row] = field(default_factory=list)
    _last: float = field(default_factory=time.monotonic)

    def say(self, operation: str, check: str, outcome: str, detail: str = "") -> None:
        now = time.monotonic()
        seconds, self._last = round(now - self._last, 3), now
        key, group = self.source.key, self.source.group
        self.rows.append(Row(key, group, operation, check, outcome, detail, seconds))


def words(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, Lost) else f"{type(error).__name__}: {text}"


def kind_of(text: str) -> str:
    """A refusal without the names and numbers in it."""
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'*'", text))[:90]
