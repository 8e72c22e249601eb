"""Attention of onnxruntime: projections in one, caches, groups of heads."""

from __future__ import annotations

import numpy as np

from ...graph.attributes import integers
from ..atoms import Labels
from ..registry import Site, rule
from ..revision import Revision, revision
from .attention import (
    LENGTHS,
    all_steps,
    follow_cache,
    follow_mask,
    head_axes,
    keep_scale,
    set_cache,
    share,
)

_DOMAIN = "com.microsoft"


@rule("Attention", domain=_DOMAIN)
def attention(site: Site) -> None:
    """The weight's columns are those of query, key and value, each of heads of one size."""
    _project(site)


@rule("QAttention", domain=_DOMAIN)
def quantized(site: Site) -> None:
    """As Attention; scales and zero points of the weight may be by column."""
    for index in (4, 7):
        if site.has(index) and site.shape(index) not in ((), (1,)):
            site.unify(site.axes(1)[1], site.axes(index)[0])
    _project(site)


def _project(site: Site) -> None:
    x, weight = site.axes(0), site.axes(1)
    if site.integer("do_rotary", 0):
        site.barrier("turns its heads by positions that are not followed")
    site.unify(x[2], weight[0])
    parts, heads = _columns(site, weight[1]), site.integer("num_heads", 1)
    (q, q_size), (k, k_size), (v, v_size) = (
        site.factors(part, (heads, len(part) // heads)) for part in parts
    )
    site.unify(q, k)
    site.unify(q, v)
    site.unify(q_size, k_size)
    quantized = site.node.op_type == "QAttention"
    past = 8 if quantized else 4
    if quantized or site.has(past) or site.has_output(1):
        site.unify(q_size, v_size)  # nothing says where the value begins
    if site.has(2):
        site.unify(weight[1], site.axes(2)[0])
    if site.has(past):
        two, samples, its_heads, steps, size = site.axes(past)
        site.fix(two, steps)
        site.unify(samples, x[0])
        site.unify(its_heads, q)
        site.unify(size, q_size)
    if not quantized and site.has(5):
        follow_mask(site, 5, q)
    if site.has(5 if quantized else 3):
        site.freeze(x[0], LENGTHS)
    site.freeze(x[1], "attends over the axis")
    site.set((x[0], x[1], site.product(v, v_size)))
    if site.has_output(1):
        site.set((site.fixed(2), x[0], q, all_steps(site, 1), q_size), 1)


def _columns(site: Site, labels: Labels) -> list[Labels]:
    sizes = integers(site.node, "qkv_hidden_sizes") or (len(labels) // 3,) * 3
    return np.split(labels, np.cumsum(sizes)[:2])


@revision("Attention", domain=_DOMAIN)
@revision("QAttention", domain=_DOMAIN)
def revise_attention(edit: Revision) -> None:
    """Number of heads, scale, and the columns of query, key and value."""
    heads = edit.site.integer("num_heads", 1)
    columns = edit.kept(1)[1]
    sizes = integers(edit.site.node, "qkv_hidden_sizes") or (len(columns) // 3,) * 3
    parts = np.split(columns, np.cumsum(sizes)[:2])
    keep_scale(edit, sizes[0] // heads)
    edit.set_attribute("num_heads", int(parts[0].reshape(heads, -1).any(axis=1).sum()))
    counts = [int(part.sum()) for part in parts]
    if len(set(counts)) > 1 or integers(edit.site.node, "qkv_hidden_sizes"):
        edit.set_attribute("qkv_hidden_sizes", counts)


@rule("MultiHeadAttention", domain=_DOMAIN)
def multi_head(site: Site) -> None:
    """Query, key and value apart; key and value may have their heads apart as well."""
    if not (site.has(1) and site.has(2)) or len(site.axes(1)) == 5:
        site.barrier("has its key and value packed in one operand")
    heads = site.integer("num_heads", 1)
    for index in (1, 2):
        site.unify(site.axes(0)[0], site.axes(index)[0])
    if site.has(4):
        site.freeze(site.axes(0)[0], LENGTHS)
    (q, q_size), (k, k_size), (v, v_size) = (
        head_axes(site, site.axes(index), heads) for index in range(3)
    )
    site.unify(q, k)
    site.unify(q, v)
    site.unify(q_size, k_size)
    if site.has(3):
        parts = [site.product(q, size) for size in (q_size, k_size, v_size)]
        site.unify(site.axes(3)[0], np.concatenate(parts))
    if site.has(5):
        follow_mask(site, 5, q)
    if site.has(6) or len(site.axes(1)) == 4:
        site.unify(q_size, v_size)  # the kernels want keys and values of one shape
    for index, size in ((6, k_size), (7, v_size)):
        if site.has(index):
            follow_cache(site, index, q, size)
    for index in range(3):
        axes = site.axes(index)
        site.freeze(axes[2 if len(axes) == 4 else 1], "attends over the axis")
    x = site.axes(0)
    site.set((x[0], x[1], site.product(q, v_size)))
    for index, size in ((1, k_size), (2, v_size)):
        set_cache(site, index, x[0], q, size)


@revision("MultiHeadAttention", domain=_DOMAIN)
def revise_multi_head(edit: Revision) -> None:
    """Number of heads and scale."""
    heads = edit.site.integer("num_heads", 1)
    kept = edit.kept(0)[2].reshape(heads, -1)
    keep_scale(edit, kept.shape[1])
    edit.set_attribute("num_heads", int(kept.any(axis=1).sum()))


@rule("GroupQueryAttention", domain=_DOMAIN)
def grouped_query(site: Site) -> None:
    """Several heads of the query share one of key and value, whose sizes are all the same.

    The kernels want these in multiples of 8, or 16: only whole heads go.
    """
    if not (site.has(1) and site.has(2)):
        site.barrier("has query, key and value packed in one operand")
    counts = site.integer("num_heads", 1), site.integer("kv_num_heads", 1)
    (q, q_size), (k, k_size), (v, v_size) = (
        head_axes(site, site.axes(index), counts[index > 0]) for index in range(3)
    )
    for index in (1, 2):
        site.unify(site.axes(0)[0], site.axes(index)[0])
    site.freeze(site.axes(0)[0], LENGTHS)
    site.unify(k, v)
    share(site, q, k)
    for size in (q_size, k_size, v_size):
        site.freeze(size, "wants heads of a size that its kernels know")
    for index in (3, 4):
        if site.has(index):
            follow_cache(site, index, k, k_size)
    if site.has(10):
        follow_mask(site, 10, q)
    if site.has(11):
        site.unify(site.axes(11)[0], q)
    for index in range(3):
        site.freeze(site.axes(index)[1], "attends over the axis")
    x = site.axes(0)
    site.set((x[0], x[1], x[2]))
    for index in (1, 2):
        set_cache(site, index, x[0], k, k_size)


@revision("GroupQueryAttention", domain=_DOMAIN)
def revise_grouped_query(edit: Revision) -> None:
    """Numbers of heads."""
    for name, index in (("num_heads", 0), ("kv_num_heads", 1)):
        kept = edit.kept(index)[2].reshape(edit.site.integer(name, 1), -1)
        edit.set_attribute(name, int(kept.any(axis=1).sum()))


@rule(
    "DecoderMaskedMultiHeadAttention",
    "DecoderMaskedSelfAttention",
    "LongformerAttention",
    "PackedAttention",
    "PackedMultiHeadAttention",
    "SparseAttention",
    domain=_DOMAIN,
)
def not_separated(site: Site) -> None:
    """Not separated into heads."""
    site.barrier("is a fused attention whose heads are not separated")
