"""How a search for the most pruning is shown: its trials, and what became of the bound."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Fact
from .format import count, metric_text, number, percent, plural, safe, seconds_text
from .grid import Column, Grid, Heading, make_grid
from .search import Search, SearchTrial

__all__ = ["bound_text", "search_facts", "search_grid"]

#: What a reader must know of a number that a choice was made by.
CHOSEN_BY = "chosen by these samples, so others may lose more: measure the result on others too"


def search_grid(search: Search) -> Grid:
    """Return the table of the trials, in order."""
    columns: list[Column[SearchTrial]] = [
        Column(Heading("trial", right=True), lambda row: count(row.trial)),
        Column(
            Heading("pruned"),
            lambda row: safe(row.way) + (", retrained" if row.retrained else ""),
        ),
        Column(Heading("setting", rank=2), lambda row: safe(row.setting)),
        Column(Heading("zeros", right=True), lambda row: percent(row.zeros)),
        Column(Heading("kept", right=True, rank=3), lambda row: count(row.kept)),
        Column(
            Heading("metric", right=True, rank=1),
            lambda row: metric_text(row.metric, search.share),
        ),
        Column(Heading("lost", right=True), lambda row: _lost(row.drop, search)),
        Column(Heading("within"), lambda row: _verdict(row, search)),
    ]
    return make_grid(columns, search.trials)


def search_facts(search: Search) -> Iterator[Fact]:
    """Return the lines about a search, in reading order."""
    samples = plural(search.samples, "sample")
    if search.chosen is None:
        yield Fact(
            "max-drop",
            f"{bound_text(search)}: nothing pruned, for {_least(search)} on {samples}",
            "warning",
        )
    else:
        done = "lost" if search.drop >= 0 else "gained"
        change, error = f"{done} {_size(abs(search.drop), search)}", ""
        if search.drop_error is not None:
            error = f", standard error {_size(search.drop_error, search)}"
        yield Fact(
            "max-drop",
            f"{bound_text(search)}: {change} on {samples}{error}",
            "good",
        )
    tried = f"; layers tried alone on {plural(search.scanned, 'sample')}" if search.scanned else ""
    chosen = "" if search.chosen is None else f", number {search.chosen:,} chosen"
    yield Fact(
        "search",
        f"{plural(len(search.trials), 'pruning')} measured in {seconds_text(search.seconds)}"
        f"{chosen}{tried}",
    )
    for note in search.notes:
        yield Fact("search", safe(note))
    if search.chosen is not None:
        yield Fact("search", CHOSEN_BY)


def bound_text(search: Search) -> str:
    """Return what was asked for: ``at most 0.5 points lost``."""
    asked, unit = f"{search.max_drop:g}", safe(search.unit)
    if unit == "points":
        return f"at most {asked} {'point' if asked == '1' else unit} lost"
    return f"at most {asked}{unit} lost"


def _least(search: Search) -> str:
    """What the mildest pruning loses."""
    if not search.trials:
        return "none was tried"
    mildest = min(search.trials, key=lambda row: row.zeros)
    return f"even {percent(mildest.zeros)} zeros lose {_size(mildest.drop, search)}"


def _verdict(row: SearchTrial, search: Search) -> str:
    if row.trial == search.chosen:
        return "chosen"
    return "yes" if row.within else "no"


def _lost(drop: float, search: Search) -> str:
    """A drop in a column; the unit is said below."""
    return f"{100 * drop:.2f}" if search.share else number(drop)


def _size(drop: float, search: Search) -> str:
    return f"{100 * drop:.2f} points" if search.share else number(drop)
