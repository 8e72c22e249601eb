"""The gradient of Einsum: for every operand another Einsum, of dy and the other operands."""

from __future__ import annotations

import string
from collections.abc import Sequence

from ...errors import ModelError
from ..builder import GraphBuilder
from ..values import Dim
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("Einsum")
def einsum(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Dy times the other operands, summed over what the operand has no axis for.

    Along axes that only one operand has, which are summed alone, its gradient is the same
    everywhere. Any number of operands; ellipses, implicit outputs and repeated axes of size one.

    Raises:
        ModelError: A letter occurs twice in an operand (a diagonal).
    """
    terms, output = _letters(b, node)
    for term in terms:
        if len(set(term)) < len(term):
            equation = node.attribute("equation", "")
            raise ModelError(
                f"Einsum '{node.label}' takes a diagonal ('{equation}'), which has no gradient "
                "here; keep the weights in front of it frozen"
            )
    uniform = _uniform(b, node.inputs, terms)
    found: list[str | None] = []
    for index, (x, term) in enumerate(zip(node.inputs, terms, strict=True)):
        others = [position for position in range(len(terms)) if position != index]
        factors = [str(grads[0]), *(node.inputs[position] for position in others)]
        sources = [output, *(terms[position] for position in others)]
        present = "".join(letter for letter in term if letter in "".join(sources))
        slope = b.op("Einsum", *factors, equation=f"{','.join(sources)}->{present}")
        missing = [axis for axis, letter in enumerate(term) if letter not in present]
        slope = b.unsqueeze(slope, missing)
        if missing or not uniform:
            slope = b.op("Expand", slope, b.shape_of(x))
        found.append(slope if uniform else b.unbroadcast(slope, x))
    return found


def _letters(b: GraphBuilder, node: Node) -> tuple[list[str], str]:
    """The letters of every operand's axes and of the output's, ellipses spelled out."""
    equation = node.attribute("equation", "").replace(" ", "")
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        single = sorted(letter for letter in set(left) - set(",.") if left.count(letter) == 1)
        output = ("..." if "..." in left else "") + "".join(single)
    if "..." not in left:
        return terms, output
    unused = "".join(letter for letter in string.ascii_letters if letter not in equation)
    # An ellipsis is as many axes in every operand that has one.
    hidden = max(
        b.rank(x) - len(term) + 3
        for x, term in zip(node.inputs, terms, strict=True)
        if "..." in term
    )
    terms = [term.replace("...", unused[:hidden]) for term in terms]
    return terms, output.replace("...", unused[:hidden])


def _uniform(b: GraphBuilder, names: Sequence[str], terms: Sequence[str]) -> bool:
    """Whether every letter is known to be of one size in all operands: none is repeated."""
    sizes: dict[str, set[Dim]] = {}
    for position, (name, term) in enumerate(zip(names, terms, strict=True)):
        shape = b.shape(name) or tuple(f"?{position}:{letter}" for letter in term)
        for letter, size in zip(term, shape, strict=True):
            sizes.setdefault(letter, set()).add(size)
    return all(len(found) == 1 for found in sizes.values())
