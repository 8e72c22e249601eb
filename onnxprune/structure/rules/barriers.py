"""Operators that nothing is removed through, each with its reason, and those that only measure.

Operators without any rule are barriers too.
"""

from __future__ import annotations

from ..registry import Site, rule
from ..revision import Revision, revision


@rule("Shape", "Size")
def measures(site: Site) -> None:
    """A size is no element: the operand can get smaller."""
    site.axes(0)
    site.set_fixed()


@revision("Shape", "Size")
def revise_measures(edit: Revision) -> None:
    """What computes with the sizes goes on with the original ones."""
    kept, old = edit.counts(edit.kept(0)), list(edit.site.shape(0))
    if edit.site.node.op_type == "Size":
        kept, old = [_product(kept)], [_product(old)]
    else:
        start, end = edit.site.integer("start", 0), edit.site.integer("end", len(old))
        kept, old = kept[start:end], old[start:end]
    edit.scale_result(old, kept)


def _product(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


@rule("Bernoulli", "EyeLike", "Multinomial", "RandomNormalLike", "RandomUniformLike")
def shaped_alike(site: Site) -> None:
    """The result is as large as the operand, whose size the number of draws depends on."""
    site.barrier("makes new elements in the shape of its operand")


@rule("Constant", "RandomNormal", "RandomUniform", "Range")
def made(site: Site) -> None:
    """Made from nothing but sizes and bounds."""
    for index in range(len(site.node.input)):
        for labels in site.axes(index):
            site.fix(labels)
    site.set_fixed()


@rule("If", "Loop", "Scan", "SequenceMap")
def bodies(site: Site) -> None:
    """Graphs inside a node are not followed."""
    site.barrier("has a graph of its own, which is not followed")
