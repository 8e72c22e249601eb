"""Attention of the standard: heads, and the sizes of heads, are factors of the hidden axes."""

from __future__ import annotations

from math import sqrt

from ...graph.attributes import find_attribute
from ..atoms import Labels
from ..registry import Axes, Site, rule
from ..revision import Revision, revision

LENGTHS = "has a length for each index of the axis"


@rule("Attention")
def attention(site: Site) -> None:
    """Query and key have one head size, value and result another; groups of heads share a key."""
    packed = len(site.axes(0)) == 3
    heads = _heads(site)
    for index in (1, 2):
        site.unify(site.axes(0)[0], site.axes(index)[0])
    if site.has(6):
        site.freeze(site.axes(0)[0], LENGTHS)
    (q, q_size), (k, k_size), (v, v_size) = (
        head_axes(site, site.axes(index), heads[index > 0]) for index in range(3)
    )
    site.unify(q_size, k_size)
    site.unify(k, v)
    share(site, q, k)
    for index in range(3):
        site.freeze(site.axes(index)[-2], "attends over the axis")
    if site.has(3):
        follow_mask(site, 3, q)
    for index, size in ((4, k_size), (5, v_size)):
        if site.has(index):
            follow_cache(site, index, k, size)
    x = site.axes(0)
    site.set((x[0], x[1], site.product(q, v_size)) if packed else (x[0], q, x[2], v_size))
    for index, size in ((1, k_size), (2, v_size)):
        set_cache(site, index, x[0], k, size)
    if site.has_output(3):
        rows, columns = site.output_shape(3)[2:]
        site.set((x[0], q, site.fixed(rows), site.fixed(columns)), 3)


def _heads(site: Site) -> tuple[int, int]:
    """Numbers of heads of the query, and of key and value, where these are packed."""
    return site.integer("q_num_heads", 0), site.integer("kv_num_heads", 0)


def head_axes(site: Site, axes: Axes, heads: int) -> tuple[Labels, Labels]:
    """Labels of heads, and of what is in a head, of [N, heads, S, size] or [N, S, heads x size]."""
    if len(axes) == 4:
        return axes[1], axes[3]
    if len(axes) != 3 or not heads:
        site.barrier("has operands that are not followed")
    head, size = site.factors(axes[2], (heads, len(axes[2]) // heads))
    return head, size


def share(site: Site, query: Labels, key: Labels) -> None:
    """Each head of the key serves as many heads of the query, which follow each other."""
    if len(query) == len(key):
        site.unify(query, key)
    else:
        site.unify(site.factors(query, (len(key), len(query) // len(key)))[0], key)


def follow_mask(site: Site, index: int, heads: Labels) -> None:
    """A mask [N, heads, S, S], or one that broadcasts to that."""
    target = (site.axes(0)[0], heads)
    mask = site.axes(index)
    site.fix(*mask[-2:])
    for mine, its in zip(reversed(target), reversed(mask[:-2]), strict=False):
        if len(its) > 1:
            site.unify(its, mine)


def follow_cache(site: Site, index: int, heads: Labels, size: Labels) -> None:
    """Earlier keys or values [N, heads, S, size]."""
    samples, its_heads, steps, its_size = site.axes(index)
    site.fix(steps)
    site.unify(samples, site.axes(0)[0])
    site.unify(its_heads, heads)
    site.unify(its_size, size)


def set_cache(site: Site, index: int, samples: Labels, heads: Labels, size: Labels) -> None:
    """All keys or values so far."""
    if site.has_output(index):
        site.set((samples, heads, all_steps(site, index), size), index)


def all_steps(site: Site, index: int) -> Labels:
    """The steps of a cache that is made; how many may only be known when the model runs."""
    shape = site.sizes.shape(site.node.output[index])
    return site.fixed(1 if shape is None else shape[-2])


def keep_scale(edit: Revision, size: int) -> None:
    """The scale, which by default depends on the size of a head."""
    held = find_attribute(edit.site.node, "scale")
    if held is None or held.f == 0:
        edit.set_attribute("scale", 1 / sqrt(size))


@revision("Attention")
def revise(edit: Revision) -> None:
    """Numbers of heads and scale."""
    site = edit.site
    packed = len(site.axes(0)) == 3
    heads = _heads(site)
    keep_scale(edit, site.shape(0)[-1] // (heads[0] if packed else 1))
    if packed:
        for name, index, count in (("q_num_heads", 0, heads[0]), ("kv_num_heads", 1, heads[1])):
            kept = edit.kept(index)[2].reshape(count, -1)
            edit.set_attribute(name, int(kept.any(axis=1).sum()))
