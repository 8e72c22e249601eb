"""Recurrent layers: a hidden unit has a row in every gate and a column that feeds back."""

from __future__ import annotations

from ..atoms import Labels
from ..registry import Site, rule
from ..revision import Revision, revision

_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
_PEEPHOLES = 3


@rule(*_GATES)
def recurrent(site: Site) -> None:
    """W is (direction, gate and unit, input), R (direction, gate and unit, unit).

    A unit that goes takes its rows of all gates, its column of R, its part of the initial states
    and of all results along, in both directions: what it fed back is gone as if it were zero.
    """
    x, w, r = (site.axes(index) for index in range(3))
    gates, units = _GATES[site.node.op_type], r[2]
    site.fix(w[0], r[0])
    site.unify(x[2], w[2])
    _stack(site, w[1], gates, units)
    _stack(site, r[1], gates, units)
    for index, parts in ((3, 2 * gates), (7, _PEEPHOLES)):
        if site.has(index):
            site.fix(site.axes(index)[0])
            _stack(site, site.axes(index)[1], parts, units)
    sequence, batch = (x[1], x[0]) if site.integer("layout", 0) else (x[0], x[1])
    site.freeze(sequence, "runs along the axis")
    if site.has(4):
        site.unify(batch, site.axes(4)[0])
    directions = site.fixed(len(w[0]))
    state = (directions, batch, units)
    whole = (sequence, *state)
    if site.integer("layout", 0):
        state, whole = (batch, directions, units), (batch, sequence, directions, units)
    for index in (5, 6):
        if site.has(index):
            for mine, its in zip(site.axes(index), state, strict=True):
                site.unify(its, mine)
    site.set(whole)
    for index in (1, 2):
        site.set(state, index)


def _stack(site: Site, labels: Labels, parts: int, units: Labels) -> None:
    """An axis in which all units stand one part after the other."""
    site.unify(labels, site.product(site.fixed(parts), units))


@revision(*_GATES)
def revise(edit: Revision) -> None:
    """The number of units."""
    edit.set_attribute("hidden_size", int(edit.kept(2)[2].sum()))
