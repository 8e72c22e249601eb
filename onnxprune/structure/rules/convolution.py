"""Convolutions: plain, grouped, depthwise, transposed."""

from __future__ import annotations

import numpy as np

from ..atoms import Labels
from ..registry import Axes, Site, rule
from ..revision import Revision, revision


@rule("Conv")
def conv(site: Site) -> None:
    """X.1 is (group, input of a group), W.0 is (group, output of a group), W.1 the input."""
    x, w = site.axes(0), site.axes(1)
    finish(site, x, w, grouped(site, x[1], w[1], w[0], site.integer("group", 1)))


@rule("FusedConv", domain="com.microsoft")
def fused(site: Site) -> None:
    """As Conv; a further operand may be added before the activation."""
    conv(site)
    if site.has(3):
        site.set(site.broadcast([site.results[site.node.output[0]], site.axes(3)]))


@rule("DeformConv")
def deformable(site: Site) -> None:
    """As Conv; where each tap looks is an operand, alike for all channels of a group of them."""
    x, w, groups = site.axes(0), site.axes(1), site.integer("offset_group", 1)
    if groups > 1:
        group, _ = site.factors(x[1], (groups, len(x[1]) // groups))
        site.freeze(group, "moves its taps by groups of channels")
    for index in (2, 4):
        if site.has(index):
            site.unify(site.axes(0)[0], site.axes(index)[0])
            site.fix(*site.axes(index)[1:])
    out = grouped(site, x[1], w[1], w[0], site.integer("group", 1))
    finish(site, x, w, out, bias=3)


@rule("CausalConvWithState")
def causal(site: Site) -> None:
    """Every channel by itself, with what it saw last as a state."""
    x, w = site.axes(0), site.axes(1)
    site.freeze(x[2], "slides over the axis")
    site.fix(*w[1:])
    site.unify(x[1], w[0])
    if site.has(2):
        site.unify(x[1], site.axes(2)[0])
    if site.has(3):
        _, channels, steps = site.axes(3)
        site.unify(site.axes(0)[0], site.axes(3)[0])
        site.fix(steps)
        site.unify(x[1], channels)
    site.set(x)
    if site.has_output(1):
        site.set((x[0], x[1], site.fixed(site.output_shape(1)[2])), 1)


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
    finish(site, x, w, out)


def grouped(site: Site, x: Labels, w_in: Labels, w_out: Labels, groups: int) -> Labels:
    """Couple channels that are read with a weight's; labels of those that are made."""
    if groups == 1:
        site.unify(x, w_in)
        return w_out
    group, inner = site.factors(x, (groups, len(x) // groups))
    site.unify(inner, w_in)
    outer = site.fresh(len(w_out) // groups)
    site.unify(w_out, site.product(group, outer))
    return w_out


def finish(site: Site, x: Axes, w: Axes, out: Labels, *, bias: int = 2) -> None:
    """Bias (an operand), taps and result."""
    site.fix(*w[2:])
    for taps in x[2:]:
        site.freeze(taps, "slides over the axis")
    if site.has(bias):
        site.unify(out, site.axes(bias)[0])
    spatial = [site.fixed(size, "slides over the axis") for size in site.output_shape()[2:]]
    site.set((x[0], out, *spatial))


@revision("Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv")
@revision("FusedConv", domain="com.microsoft")
def revise(edit: Revision) -> None:
    """The number of groups: those of which anything is left."""
    groups = edit.site.integer("group", 1)
    if groups > 1:
        kept = edit.kept(0)[1].reshape(groups, -1)
        edit.set_attribute("group", int(np.any(kept, axis=1).sum()))
