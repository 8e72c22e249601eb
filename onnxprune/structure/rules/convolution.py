"""Convolutions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

import numpy as np

from ..atoms import Labels
from ..registry import Axes, Site, rule
from ..revision import Revision, revision


@rule("Conv")
@rule("FusedConv", domain="com.microsoft")
def conv(site: Site) -> None:
    """X.1 is (group, input of a group), W.0 is (group, output of a group), W.1 the input."""
    x, w, groups = site.axes(0), site.axes(1), site.integer("group", 1)
    out = _grouped(site, x[1], w[1], w[0], groups)
    _finish(site, x, w, out)


@rule("ConvTranspose")
def conv_transpose(site: Site) -> None:
    """X.1 = W.0 is (group, input of a group), Y.1 is (group, W.1)."""
    x, w, groups = site.axes(0), site.axes(1), site.integer("group", 1)
    site.unify(x[1], w[0])
    if groups == 1:
        out = w[1]
    else:
        group, _ = site.factors(x[1], (groups, len(x[1]) // groups))
        out = site.product(group, w[1])
    _finish(site, x, w, out)


def _grouped(site: Site, x: Labels, w_in: Labels, w_out: Labels, groups: int) -> Labels:
    if groups == 1:
        site.unify(x, w_in)
        return w_out
    group, inner = site.factors(x, (groups, len(x) // groups))
    site.unify(inner, w_in)
    outer = site.fresh(len(w_out) // groups)
    site.unify(w_out, site.product(group, outer))
    return w_out


def _finish(site: Site, x: Axes, w: Axes, out: Labels) -> None:
    """Bias, taps and result."""
    site.fix(*w[2:])
    for taps in x[2:]:
        site.freeze(taps, "slides over the axis")
    if site.has(2):
        site.unify(out, site.axes(2)[0])
    shape = site.output_shape()
    result = (x[0], out, *(site.fixed(size) for size in shape[2:]))
    if site.has(3):  # FusedConv adds a further operand before its activation
        result = tuple(site.broadcast([result, site.axes(3)]))
    site.set(result)


@revision("Conv", "ConvTranspose")
@revision("FusedConv", domain="com.microsoft")
def revise(edit: Revision) -> None:
    """The number of groups: those of which anything is left."""
    groups = edit.site.integer("group", 1)
    if groups > 1:
        kept = edit.kept(0)[1].reshape(groups, -1)
        edit.set_attribute("group", int(np.any(kept, axis=1).sum()))
