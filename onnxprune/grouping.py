"""The coupled channels of a model, as facts for a report."""

from __future__ import annotations

from .errors import OutputError
from .model.model import Model
from .model.save import to_proto
from .report.groups import BarrierRow, Coupled, GroupRow, MemberRow
from .structure.analysis import analyse
from .structure.groups import Group, find_barriers, find_groups, why_no_groups

__all__ = ["coupled_channels"]


def coupled_channels(model: Model) -> Coupled:
    """Which channels of a model go together, and what keeps the others."""
    try:
        proto = to_proto(model)
    except OutputError:
        return Coupled(nothing="not looked for, as the model is over 2 GB")
    coupling = analyse(proto)
    barriers = tuple(
        BarrierRow(
            f"{barrier.tensor} {barrier.role}".rstrip(),
            barrier.count,
            barrier.cause.node,
            barrier.cause.operator,
            barrier.cause.reason,
        )
        for barrier in find_barriers(coupling)
    )
    groups = tuple(map(_group, find_groups(coupling)))
    return Coupled(groups, barriers, "" if groups or barriers else why_no_groups(coupling))


def _group(group: Group) -> GroupRow:
    members = tuple(MemberRow(m.tensor, m.axis, m.role, m.size, m.repeats) for m in group.members)
    return GroupRow(group.title, group.size, len({m.tensor for m in members}), members)
