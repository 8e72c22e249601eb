"""Axis roles of weights: what each axis of an operator's weight operand runs over.

A layout takes the node, the position of the operand among the inputs, and the operand's rank, and
returns a role per axis. None means that it cannot be told (an attribute that a function's caller
decides, a malformed equation or rank).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onnx import NodeProto

from .attributes import integer, text
from .layer import Role

__all__ = [
    "Layout",
    "conv",
    "conv_transpose",
    "einsum",
    "fixed",
    "left",
    "opaque",
    "right",
]

Layout = Callable[[NodeProto, int, int], "tuple[Role, ...] | None"]


def fixed(*roles: Role) -> Layout:
    """A weight whose rank and axes never vary."""
    return partial(_fixed, roles)


def _fixed(
    roles: tuple[Role, ...], node: NodeProto, index: int, rank: int
) -> tuple[Role, ...] | None:
    return roles if rank == len(roles) else None


def opaque(node: NodeProto, index: int, rank: int) -> tuple[Role, ...] | None:
    """A weight stored in an order that its shape does not tell."""
    return None


def conv(node: NodeProto, index: int, rank: int) -> tuple[Role, ...] | None:
    """Conv and its like: (outputs, inputs of one group, kernel positions...)."""
    return ("output", "input", *_taps(rank - 2)) if rank >= 2 else None


def conv_transpose(node: NodeProto, index: int, rank: int) -> tuple[Role, ...] | None:
    """ConvTranspose: (inputs, outputs of one group, kernel positions...)."""
    return ("input", "output", *_taps(rank - 2)) if rank >= 2 else None


def _taps(count: int) -> tuple[Role, ...]:
    return tuple("tap" for _ in range(count))


def left(node: NodeProto, index: int, rank: int) -> tuple[Role, ...] | None:
    """Left operand of a matrix product: (..., outputs, inputs), transA and transBatchA heeded."""
    return _matrix(node, rank, ("output", "input"), "A")


def right(node: NodeProto, index: int, rank: int) -> tuple[Role, ...] | None:
    """Right operand of a matrix product: (..., inputs, outputs), transB and transBatchB heeded."""
    return _matrix(node, rank, ("input", "output"), "B")


def _matrix(
    node: NodeProto, rank: int, plain: tuple[Role, Role], side: str
) -> tuple[Role, ...] | None:
    if rank == 1:
        return ("input",)
    swapped = integer(node, f"trans{side}", 0)
    batched = integer(node, f"transBatch{side}", 0)
    if rank < 1 or swapped is None or batched is None:
        return None
    first, second = plain[::-1] if swapped else plain
    groups: list[Role] = ["group"] * (rank - 2)
    # transBatch moves the rows in front of the batch axes (FusedMatMul of onnxruntime).
    return (first, *groups, second) if batched else (*groups, first, second)


def einsum(node: NodeProto, index: int, rank: int) -> tuple[Role, ...] | None:
    """Operand of an Einsum: summed axes are inputs, kept ones outputs, kept and shared ones groups.

    Axes under an ellipsis are groups.
    """
    terms = _einsum_terms(text(node, "equation"))
    if terms is None or index >= len(terms) - 1:
        return None
    mine, result = terms[index], terms[-1]
    others = "".join(terms[:index] + terms[index + 1 : -1])
    roles: list[Role] = []
    for letter in mine:
        if letter == ".":
            roles += ["group"] * (rank - len(mine) + 1)
        elif letter not in result:
            roles.append("input")
        else:
            roles.append("group" if letter in others else "output")
    return tuple(roles) if len(roles) == rank else None


def _einsum_terms(equation: str | None) -> list[str] | None:
    """Labels of every operand and of the result; an ellipsis becomes one dot."""
    if not equation:
        return None
    operands, arrow, result = equation.replace(" ", "").replace("...", ".").partition("->")
    terms = operands.split(",")
    if not arrow:
        labels = operands.replace(",", "")
        once = sorted(x for x in set(labels) - {"."} if labels.count(x) == 1)
        result = ("." if "." in labels else "") + "".join(once)
    if any(term.count(".") > 1 for term in terms):
        return None
    return [*terms, result]
