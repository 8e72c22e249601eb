"""Normalization: per channel, over groups of channels, over the last axes."""

from __future__ import annotations

from ..atoms import Labels
from ..registry import Axes, Site, rule
from ..revision import Revision, revision


@rule("BatchNormalization")
def batch_normalization(site: Site) -> None:
    """All statistics and parameters run along the channels."""
    x = site.axes(0)
    if not site.integer("spatial", 1):
        site.barrier("normalizes every position by itself")
    for index in range(1, 5):
        site.unify(x[1], site.axes(index)[0])
    site.set(x)
    for index in range(1, len(site.node.output)):
        site.set((x[1],), index)


@rule("InstanceNormalization")
def instance_normalization(site: Site) -> None:
    """Scale and bias run along the channels; each channel's mean is over space."""
    x = site.axes(0)
    for index in (1, 2):
        site.unify(x[1], site.axes(index)[0])
    for labels in x[2:]:
        site.freeze(labels, "normalizes over the axis")
    site.set(x)


@rule("GroupNormalization")
def group_normalization(site: Site) -> None:
    """Whole groups go: with a part of a group its mean would change."""
    x, groups = site.axes(0), site.integer("num_groups", 1)
    group, inner = site.factors(x[1], (groups, len(x[1]) // groups))
    for labels in (inner, *x[2:]):
        site.freeze(labels, "normalizes over the axis")
    for index in (1, 2):
        per_group = site.opset < 21 and len(site.axes(index)[0]) == groups
        site.unify(group if per_group else x[1], site.axes(index)[0])
    site.set(x)


@revision("GroupNormalization")
def revise(edit: Revision) -> None:
    """The number of groups that are left."""
    groups = edit.site.integer("num_groups", 1)
    kept = edit.kept(0)[1].reshape(groups, -1)
    edit.set_attribute("num_groups", int(kept.any(axis=1).sum()))


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(site: Site) -> None:
    """The normalized axes stay, and with them scale and bias."""
    x = site.axes(0)
    start = site.integer("axis", -1) % len(x)
    _freeze_from(site, x, start)
    for index in range(1, len(site.node.input)):
        if site.has(index):
            site.broadcast([x, site.axes(index)])
    site.set(x)
    for index in range(1, len(site.node.output)):
        site.set((*x[:start], *(site.fixed(1) for _ in x[start:])), index)


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_normalization(site: Site) -> None:
    """Two tensors and a bias are added, then normalized; the sum is a result too."""
    operands = [site.axes(index) for index in range(len(site.node.input)) if site.has(index)]
    x = site.broadcast(operands)
    site.freeze(x[-1], "normalizes over the axis")
    site.set(x)
    for index in (1, 2):
        site.set((*x[:-1], site.fixed(1)), index)
    site.set(x, 3)


@rule("EmbedLayerNormalization", domain="com.microsoft")
def embedding(site: Site) -> None:
    """Three tables are looked up, added and normalized."""
    ids, tables = site.axes(0), [site.axes(index) for index in (2, 3, 4) if site.has(index)]
    for rows, hidden in tables:
        site.freeze(rows, "is looked up by computed indices")
        site.freeze(hidden, "normalizes over the axis")
    site.freeze(ids[0], "has segments and a length for each index of the axis")
    site.freeze(ids[1], "has a position for each index of the axis")
    hidden = tables[0][1]
    site.set((*ids, hidden))
    site.set((ids[0],), 1)
    site.set((*ids, hidden), 2)


@rule("LpNormalization", "MeanVarianceNormalization", "LRN")
def other(site: Site) -> None:
    """One axis, or the axes of a list, stay."""
    x, name = site.axes(0), site.node.op_type
    axes = [site.integer("axis", -1)]
    if name == "LRN":
        axes = [1]
    elif name == "MeanVarianceNormalization":
        whole = site.opset < 9 and site.integer("across_channels", 0)
        axes = list(range(len(x))) if whole else site.numbers(1, "axes") or [0, 2, 3]
    for axis in axes:
        site.freeze(x[axis], "normalizes over the axis")
    site.set(x)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(site: Site) -> None:
    """The axis stays; before opset 13 it and all behind it."""
    x = site.axes(0)
    if site.opset < 13:
        _freeze_from(site, x, site.integer("axis", 1) % len(x))
    else:
        site.freeze(x[site.integer("axis", -1)], "normalizes over the axis")
    site.set(x)


def _freeze_from(site: Site, x: Axes, start: int) -> None:
    labels: Labels
    for labels in x[start:]:
        site.freeze(labels, "normalizes over the axis")
