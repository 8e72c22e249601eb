"""The lines of a summary that say how calibration samples were used."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from .facts import Fact, some_names
from .format import Glyphs, number, plural, safe, seconds_text
from .repair import Repair, RepairRow

__all__ = ["METHODS", "repair_facts"]

#: What repairs do, by their names.
METHODS = {
    "refit": "least-squares refit",
    "match": "mean and deviation of outputs matched",
    "bn": "statistics of BatchNormalization renewed",
}
REASONS_SHOWN = 5


def repair_facts(repair: Repair, glyphs: Glyphs) -> Iterator[Fact]:
    """Return the lines about a repair, in reading order."""
    yield Fact("chosen by", safe(repair.choice))
    done = [row for row in repair.rows if row.method is not None]
    method = METHODS.get(repair.method)
    if method is not None:
        layers = plural(len(done), "layer")
        samples = plural(repair.samples, "sample")
        yield Fact(
            "repair",
            f"{method}: {layers} on {samples} ({safe(repair.data)}), in"
            f" {seconds_text(repair.seconds)}{_errors(done, glyphs)}",
        )
    yield from _left_alone(repair)


def _errors(rows: list[RepairRow], glyphs: Glyphs) -> str:
    """How far the layers' outputs are from what they were, where that was measured."""
    pairs = [
        (row.error_before, row.error_after)
        for row in rows
        if row.error_before is not None and row.error_after is not None
    ]
    if not pairs:
        return ""
    before, after = (median(side) for side in zip(*pairs, strict=True))
    return f"; relative error of outputs {number(before)} {glyphs.arrow} {number(after)} (median)"


def _left_alone(repair: Repair) -> Iterator[Fact]:
    by_reason: dict[str, list[str]] = {}
    for row in repair.rows:
        if row.method is None and row.reason is not None:
            by_reason.setdefault(row.reason, []).append(row.layer)
    groups = list(by_reason.items())
    for reason, names in groups[:REASONS_SHOWN]:
        yield Fact("not repaired", f"{some_names(names)}: {safe(reason)}")
    rest = sum(len(names) for _, names in groups[REASONS_SHOWN:])
    if rest:
        more = plural(rest, "more layer")
        yield Fact("not repaired", f"{more} for other reasons (see --json)", "dim")
