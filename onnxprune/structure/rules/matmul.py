"""Matrix products."""

from __future__ import annotations

from ..atoms import Labels
from ..registry import Axes, Site, rule


@rule("Gemm")
def gemm(site: Site) -> None:
    """Rows of the first, columns of the second; what is summed over is equal."""
    a, b = site.axes(0), site.axes(1)
    a = a[::-1] if site.integer("transA", 0) else a
    b = b[::-1] if site.integer("transB", 0) else b
    if len(a) != 2 or len(b) != 2:
        site.barrier("its operands are no matrices")
    site.unify(a[1], b[0])
    result = [a[0], b[1]]
    if site.has(2):
        result = site.broadcast([tuple(result), site.axes(2)])
    site.set(result)


@rule("MatMul")
def matmul(site: Site) -> None:
    """Leading axes broadcast; vectors lose the axis that they are summed over."""
    a, b = site.axes(0), site.axes(1)
    if not a or not b:
        site.barrier("its operands are no matrices")
    site.unify(a[-1], b[-2] if len(b) > 1 else b[0])
    leading = site.broadcast([a[:-2], b[:-2]]) if len(a) > 2 or len(b) > 2 else []
    site.set([*leading, *(a[-2:-1]), *(b[-1:] if len(b) > 1 else ())])


@rule("Einsum")
def einsum(site: Site) -> None:
    """One letter is one axis: equal in all terms, and in the result."""
    equation = site.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation:
        site.barrier("has an equation with dots")
    if not arrow:
        letters = sorted(set(left) - {","})
        right = "".join(letter for letter in letters if left.count(letter) == 1)
    found: dict[str, Labels] = {}
    for index, term in enumerate(terms):
        _read_term(site, term, site.axes(index), found)
    for letter, labels in found.items():
        if letter not in right and sum(letter in term for term in terms) == 1:
            site.freeze(labels, "sums over the axis")
    site.set([found[letter] for letter in right])


def _read_term(site: Site, term: str, axes: Axes, found: dict[str, Labels]) -> None:
    if len(term) != len(axes):
        site.barrier("has an equation that does not fit its operands")
    for letter, labels in zip(term, axes, strict=True):
        known = found.get(letter)
        if known is None or len(known) == 1:
            found[letter] = labels
        elif len(labels) != 1:
            site.unify(known, labels)
