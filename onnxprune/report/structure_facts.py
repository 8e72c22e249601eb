"""The lines of a summary that say what went of the graph itself."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Fact, some_names
from .format import Glyphs, count, number, plural, ratio, safe
from .grid import Column, Grid, Heading, make_grid
from .structure import ChannelRow, DeadRow, Structure

__all__ = ["channels_grid", "dead_grid", "structure_facts"]


def structure_facts(structure: Structure, glyphs: Glyphs) -> Iterator[Fact]:
    """Return the lines about channels and dead neurons, in reading order."""
    if structure.request:
        yield Fact("channels", _chosen(structure), "good" if structure.channels_removed else "")
    if structure.dead:
        yield Fact("dead", _dead(structure), "good")
        yield from _absorbed(structure)
    elif structure.reason:
        yield Fact("dead", safe(structure.reason), "dim")
    if structure.macs_before is not None and structure.macs_after is not None:
        yield Fact("operations", _operations(structure, glyphs))
    elif structure.macs_unknown:
        nodes = plural(structure.macs_unknown, "node")
        yield Fact("operations", f"not known: shapes of {nodes} are not", "dim")


def _chosen(structure: Structure) -> str:
    if not structure.channels_removed:
        return f"none removed ({safe(structure.request)})"
    removed, total = structure.channels_removed, structure.channels_found
    groups = plural(len(structure.channels), "group")
    text = f"{count(removed)} of {count(total)} removed, in {groups} ({safe(structure.request)})"
    if structure.refitted:
        samples = plural(structure.refitted, "sample")
        text += f"; what stays refitted by least squares on {samples}"
    return text


def _dead(structure: Structure) -> str:
    rows = structure.dead
    parts = [
        f"{count(number)} {what}"
        for number, what in (
            (sum(row.unread for row in rows), "unread"),
            (sum(row.constant for row in rows), "constant"),
            (sum(row.merged for row in rows), "merged"),
        )
        if number
    ]
    left = sum(row.left for row in rows)
    stay = f"; {count(left)} more stay, as convolutions want round numbers" if left else ""
    channels = plural(structure.dead_removed, "channel")
    return f"{channels} removed after pruning ({', '.join(parts)}), outputs are the same{stay}"


def _absorbed(structure: Structure) -> Iterator[Fact]:
    if structure.biases:
        yield Fact("dead", f"constants went into the biases of {some_names(structure.biases)}")
    if structure.new_biases:
        yield Fact("dead", f"constants became biases of {some_names(structure.new_biases)}")


def _operations(structure: Structure, glyphs: Glyphs) -> str:
    before, after = structure.macs_before, structure.macs_after
    assert before is not None and after is not None  # the caller has looked
    text = f"{_large(before)} {glyphs.arrow} {_large(after)} multiplications a sample"
    if before and after:
        text += ": as many" if before == after else f": {ratio(before / after)} fewer"
    if structure.macs_unknown:
        text += f", those of {plural(structure.macs_unknown, 'node')} not counted"
    return text


def _large(value: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{number(value / size)} {letter}"
    return count(value)


def channels_grid(rows: tuple[ChannelRow, ...]) -> Grid:
    """Return the table of groups that lost channels by choice."""
    columns: list[Column[ChannelRow]] = [
        Column(Heading("group"), lambda row: safe(row.group), plural(len(rows), "group")),
        Column(
            Heading("channels", right=True),
            lambda row: count(row.before),
            count(sum(row.before for row in rows)),
        ),
        Column(
            Heading("kept", right=True),
            lambda row: count(row.after),
            count(sum(row.after for row in rows)),
        ),
        Column(Heading("tensors", right=True, rank=1), lambda row: count(row.tensors)),
    ]
    return make_grid(columns, rows)


def dead_grid(rows: tuple[DeadRow, ...]) -> Grid:
    """Return the table of groups that lost dead channels."""
    names = ("before", "after", "unread", "constant", "merged")
    columns: list[Column[DeadRow]] = [
        Column(Heading("dead in"), lambda row: safe(row.group), plural(len(rows), "group"))
    ]
    for name, title, rank in zip(
        names, ("channels", "kept", *names[2:]), (0, 0, 1, 1, 2), strict=True
    ):
        columns.append(
            Column(
                Heading(title, right=True, rank=rank),
                lambda row, name=name: count(getattr(row, name)),  # type: ignore[misc]
                count(sum(getattr(row, name) for row in rows)),
            )
        )
    return make_grid(columns, rows)
