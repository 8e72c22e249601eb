"""What `inspect --groups` tells: which channels go together, and what keeps the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .facts import Fact
from .format import count, plural, safe
from .grid import Column, Grid, Heading, make_grid

__all__ = [
    "BarrierRow",
    "Coupled",
    "GroupRow",
    "MemberRow",
    "barriers_grid",
    "coupled_facts",
    "groups_grid",
]


@dataclass(frozen=True)
class MemberRow:
    """One axis of a stored tensor that channels of a group lie on."""

    tensor: str
    axis: int
    role: str
    """``out``, ``in``, ``axis 0``, or nothing for a vector."""
    size: int
    """Length of the axis."""
    repeats: int
    """Indices of the axis that go with each channel."""


@dataclass(frozen=True)
class GroupRow:
    """Channels, neurons, heads or dimensions of heads that can go one by one."""

    name: str
    """The axes of weights that it couples, in words: ``conv1 out = conv2 in``."""
    channels: int
    tensors: int
    """Tensors that lose something with each channel."""
    members: tuple[MemberRow, ...]


@dataclass(frozen=True)
class BarrierRow:
    """What keeps an axis of a weight, or a part of it."""

    axis: str
    """Tensor and role, such as ``conv1.weight out``."""
    kept: int
    """Indices that stay for this reason."""
    node: str
    operator: str
    """Operator of the node; ``input`` or ``output`` for those of the model."""
    reason: str


@dataclass(frozen=True)
class Coupled:
    """The coupled channels of a model."""

    groups: tuple[GroupRow, ...] = ()
    barriers: tuple[BarrierRow, ...] = ()
    nothing: str = ""
    """Why there is neither a group nor a barrier; empty where there is one."""


def coupled_facts(coupled: Coupled) -> Iterator[Fact]:
    """Return the lines about groups, in reading order."""
    if coupled.nothing:
        yield Fact("groups", f"none: {safe(coupled.nothing)}", "warning")
        return
    channels = sum(row.channels for row in coupled.groups)
    yield Fact(
        "groups",
        f"{count(channels)} channels in {plural(len(coupled.groups), 'group')} can be removed"
        " (--channels); what stays is listed with the reason",
    )


def groups_grid(coupled: Coupled) -> Grid:
    """Return the table of groups."""
    columns: list[Column[GroupRow]] = [
        Column(
            Heading("group", prose=True),
            lambda row: safe(row.name),
            plural(len(coupled.groups), "group"),
        ),
        Column(
            Heading("channels", right=True),
            lambda row: count(row.channels),
            count(sum(row.channels for row in coupled.groups)),
        ),
        Column(Heading("tensors", right=True), lambda row: count(row.tensors)),
    ]
    return make_grid(columns, coupled.groups)


def barriers_grid(coupled: Coupled) -> Grid:
    """Return the table of what stays, and why."""
    columns: list[Column[BarrierRow]] = [
        Column(Heading("stays"), lambda row: safe(row.axis)),
        Column(Heading("indices", right=True, rank=1), lambda row: count(row.kept)),
        Column(
            Heading("as", prose=True),
            lambda row: f"{safe(row.node)} ({safe(row.operator)}) {safe(row.reason)}",
        ),
    ]
    return make_grid(columns, coupled.barriers)
