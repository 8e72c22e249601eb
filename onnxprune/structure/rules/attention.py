"""Fused attention: heads, and the sizes of heads, are factors of the hidden axes."""

from __future__ import annotations

from math import sqrt

from ...graph.attributes import find_attribute
from ..atoms import Labels
from ..registry import Axes, Site, rule
from ..revision import Revision, revision

_PLAIN = "keeps a cache or returns its scores"


@rule("Attention")
def attention(site: Site) -> None:
    """Query and key have one head size, value and result another; groups of heads share a key."""
    if any(site.has(index) for index in (4, 5)) or any(map(site.has_output, (1, 2, 3))):
        site.barrier(_PLAIN)
    packed = len(site.axes(0)) == 3
    heads = _heads(site)
    (q, q_size), (k, k_size), (v, v_size) = (
        _head_axes(site, index, heads[index > 0]) for index in range(3)
    )
    site.unify(q_size, k_size)
    site.unify(k, v)
    if len(q) == len(k):
        site.unify(q, k)
    else:
        site.unify(site.factors(q, (len(k), len(q) // len(k)))[0], k)
    for index in range(3):
        site.freeze(site.axes(index)[-2], "attends over the axis")
    if site.has(3):
        _follow_mask(site, q)
    x = site.axes(0)
    site.set((x[0], x[1], site.product(q, v_size)) if packed else (x[0], q, x[2], v_size))


def _heads(site: Site) -> tuple[int, int]:
    """Numbers of heads of the query, and of key and value."""
    if len(site.axes(0)) == 4:
        return len(site.axes(0)[1]), len(site.axes(1)[1])
    return site.integer("q_num_heads", 0), site.integer("kv_num_heads", 0)


def _head_axes(site: Site, index: int, heads: int) -> tuple[Labels, Labels]:
    axes: Axes = site.axes(index)
    if len(axes) == 4:
        return axes[1], axes[3]
    if len(axes) != 3 or not heads:
        site.barrier("has operands that are not followed")
    head, size = site.factors(axes[2], (heads, len(axes[2]) // heads))
    return head, size


def _follow_mask(site: Site, heads: Labels) -> None:
    mask = site.axes(3)
    for axis, labels in enumerate(mask):
        if len(mask) - axis == 3 and len(labels) > 1:
            site.unify(labels, heads)
        else:
            site.fix(labels)


@revision("Attention")
def revise(edit: Revision) -> None:
    """Numbers of heads; the scale, which by default depends on the size of a head."""
    site = edit.site
    packed = len(site.axes(0)) == 3
    heads = _heads(site)
    if find_attribute(site.node, "scale") is None:
        size = site.shape(0)[-1] // (heads[0] if packed else 1)
        edit.set_attribute("scale", 1 / sqrt(size))
    if packed:
        for name, index, count in (("q_num_heads", 0, heads[0]), ("kv_num_heads", 1, heads[1])):
            kept = edit.kept(index)[2].reshape(count, -1)
            edit.set_attribute(name, int(kept.any(axis=1).sum()))


@rule(
    "Attention",
    "DecoderMaskedMultiHeadAttention",
    "GroupQueryAttention",
    "MultiHeadAttention",
    "PackedAttention",
    domain="com.microsoft",
)
def contrib(site: Site) -> None:
    """Not separated into heads."""
    site.barrier("is a fused attention whose heads are not separated")
