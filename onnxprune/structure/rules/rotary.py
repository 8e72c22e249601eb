"""Rotary positions: pairs of numbers of a head are turned by an angle, and go together."""

from __future__ import annotations

import numpy as np

from ...model.domain import plain_domain
from ..atoms import Labels
from ..registry import Site, rule
from ..revision import Revision, revision
from .attention import head_axes

_POSITIONS = "has a position for each index of the axis"


@rule("RotaryEmbedding")
def rotary(site: Site) -> None:
    """Cosines and sines are operands 1 and 2; without positions they have rows for each sample."""
    _rotary(site, 1, 2)
    if site.has(3):
        site.freeze(site.axes(0)[0], _POSITIONS)
    else:
        for index in (1, 2):
            site.unify(site.axes(0)[0], site.axes(index)[0])


@rule("RotaryEmbedding", domain="com.microsoft")
def contrib(site: Site) -> None:
    """Positions come first."""
    _rotary(site, 2, 3)
    site.freeze(site.axes(0)[0], _POSITIONS)


def _rotary(site: Site, cosines: int, sines: int) -> None:
    x = site.axes(0)
    heads, size = head_axes(site, x, _heads(site, cosines))
    angle = site.axes(cosines)[-1]
    site.unify(angle, site.axes(sines)[-1])
    for index in (cosines, sines):
        site.fix(site.axes(index)[-2])
    turned = 2 * len(angle)
    site.unify(size[:turned], pairs(angle, bool(site.integer("interleaved", 0))))
    steps = x[2] if len(x) == 4 else x[1]
    site.freeze(steps, _POSITIONS)
    site.set((x[0], heads, steps, size) if len(x) == 4 else (x[0], steps, x[2]))


def _heads(site: Site, cosines: int) -> int:
    """How many, where heads are packed."""
    given = site.integer("num_heads", 0)
    return given or len(site.axes(0)[2]) // (2 * len(site.axes(cosines)[-1]))


def pairs(angle: Labels, interleaved: bool) -> Labels:
    """Labels of what is turned: neighbours, or numbers half the size apart."""
    return np.repeat(angle, 2) if interleaved else np.tile(angle, 2)


@revision("RotaryEmbedding")
@revision("RotaryEmbedding", domain="com.microsoft")
def revise(edit: Revision) -> None:
    """How many numbers of a head are turned, and how many heads there are."""
    site = edit.site
    cosines = 2 if plain_domain(site.node.domain) else 1
    if site.integer("rotary_embedding_dim", 0):
        edit.set_attribute("rotary_embedding_dim", 2 * int(edit.kept(cosines)[-1].sum()))
    if len(site.shape(0)) == 3 and site.integer("num_heads", 0):
        kept = edit.kept(0)[2].reshape(_heads(site, cosines), -1)
        edit.set_attribute("num_heads", int(kept.any(axis=1).sum()))
