"""Matrix products."""

from __future__ import annotations

from ..atoms import Labels
from ..registry import Axes, Site, rule


@rule("Gemm")
@rule("FusedGemm", "GemmFastGelu", domain="com.microsoft")
def gemm(site: Site) -> None:
    """Rows of the first, columns of the second; what is summed over is equal."""
    a, b = _turned(site, 0, "transA"), _turned(site, 1, "transB")
    site.unify(a[-1], b[0])
    result = [*a[:-1], b[1]]
    if site.has(2):
        result = site.broadcast([tuple(result), site.axes(2)])
    site.set(result)


@rule("MatMul")
def matmul(site: Site) -> None:
    """Leading axes broadcast; vectors lose the axis that they are summed over."""
    a, b = site.axes(0), site.axes(1)
    if not a or not b:
        site.barrier("its operands are no matrices")
    product(site, a, b)


@rule("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def fused_matmul(site: Site) -> None:
    """As MatMul, of operands whose last two axes may be exchanged."""
    if site.integer("transBatchA", 0) or site.integer("transBatchB", 0):
        site.barrier("moves its batch axes")
    product(site, _turned(site, 0, "transA"), _turned(site, 1, "transB"))


def product(site: Site, a: Axes, b: Axes) -> None:
    """Set the result of a product of (stacks of) matrices or vectors."""
    site.unify(a[-1], b[-2] if len(b) > 1 else b[0])
    leading = site.broadcast([a[:-2], b[:-2]]) if len(a) > 2 or len(b) > 2 else []
    site.set([*leading, *(a[-2:-1]), *(b[-1:] if len(b) > 1 else ())])


def _turned(site: Site, index: int, flag: str) -> Axes:
    axes = site.axes(index)
    if len(axes) < 2:
        site.barrier("its operands are no matrices")
    return (*axes[:-2], axes[-1], axes[-2]) if site.integer(flag, 0) else axes


@rule("Einsum")
def einsum(site: Site) -> None:
    """One letter is one axis: equal in all terms, and in the result."""
    left, arrow, right = site.text("equation", "").replace(" ", "").partition("->")
    ranks = [len(site.axes(index)) for index in range(len(site.node.input))]
    terms = [_letters(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    leading = max((sum(letter < 0 for letter in term) for term in terms), default=0)
    every = [letter for term in terms for letter in term]
    if arrow:
        result = _letters(right, len(right.replace("...", "")) + leading)
    else:
        single = {letter for letter in every if letter > 0 and every.count(letter) == 1}
        result = [*range(-leading, 0), *sorted(single)]
    found: dict[int, Labels] = {}
    for index, term in enumerate(terms):
        _read_term(site, term, site.axes(index), found)
    for letter, labels in found.items():
        if letter not in result and sum(letter in term for term in terms) == 1:
            site.freeze(labels, "sums over the axis")
    site.set([found[letter] for letter in result])


def _letters(term: str, rank: int) -> list[int]:
    """The axes of a term by number: letters, and -1, -2 ... from the right for its dots."""
    front, dots, back = term.partition("...")
    number = rank - len(front) - len(back)
    if number != 0 and not (dots and number > 0):
        raise ValueError("the equation does not fit its operands")
    return [*map(ord, front), *range(-number, 0), *map(ord, back)]


def _read_term(site: Site, term: list[int], axes: Axes, found: dict[int, Labels]) -> None:
    for letter, labels in zip(term, axes, strict=True):
        known = found.get(letter)
        if known is None or len(known) == 1:
            found[letter] = labels
        elif len(labels) != 1:
            site.unify(known, labels)
