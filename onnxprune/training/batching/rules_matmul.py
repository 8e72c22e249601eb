"""How matrix products carry the batch axis."""

from __future__ import annotations

from ...graph.attributes import text
from ..contrib import DOMAIN
from .nodes import Batched, BatchNode, State, batch_rule

CONTRACTED = "sums over the batch axis"


TRANSPOSING = ("transA", "transB", "transBatchA", "transBatchB")


@batch_rule("MatMul")
@batch_rule("FusedMatMul", domain=DOMAIN)
def matmul(node: BatchNode) -> State:
    """Rows, columns or whole matrices may belong to samples; what is summed over may not."""
    if any(node.attribute(name, 0) for name in TRANSPOSING):
        node.refuse("transposes its inputs, which is not followed")
    ranks = node.rank(0), node.rank(1)
    if node.state(0) is not None and node.state(1) is not None:
        return _stacked(node, ranks)
    index = 0 if node.state(0) is not None else 1
    state = node.batched(index)
    rank, other = ranks[index], ranks[1 - index]
    end = rank - state.axis  # from the end: 1 for the last axis
    if end == (1 if index == 0 else min(rank, 2)):
        node.refuse(CONTRACTED)
    if end > 2:
        shape = node.shape(1 - index)
        if len(shape) >= end and shape[-end] != 1:
            node.refuse("multiplies the batch with a stack of matrices of its own")
    # A vector takes the axis away that it is summed with: the last but one, or the last.
    kept = end if other > 1 or (index == 1 and end == 1) else end - 1
    return state.at(max(rank, other) - (other == 1) - kept)


def _stacked(node: BatchNode, ranks: tuple[int, int]) -> State:
    """Both depend on the batch: a matrix of each sample's with the other of the same sample."""
    left, right = node.batched(0), node.batched(1)
    ends = ranks[0] - left.axis, ranks[1] - right.axis
    if min(ends) <= 2:
        node.refuse("multiplies samples with each other")
    if ends[0] != ends[1] or left.at(0) != right.at(0):
        node.refuse("combines values whose batch axes do not correspond")
    return left.at(max(ranks) - ends[0])


@batch_rule("Gemm")
@batch_rule("FusedGemm", domain=DOMAIN)
def gemm(node: BatchNode) -> State:
    """Samples are rows of the first matrix."""
    node.need_fixed(1)
    state = node.batched(0)
    if state.axis != node.attribute("transA", 0):
        node.refuse(CONTRACTED)
    result = state.at(0)
    if not node.has(2):
        return result
    if node.state(2) is not None:
        if node.rank(2) != 2 or node.batched(2) != result:
            node.refuse("combines values whose batch axes do not correspond")
    elif node.rank(2) == 2 and node.shape(2)[0] != 1:
        node.refuse("adds a constant with sizes of its own along the batch axis")
    return result


@batch_rule("Einsum")
def einsum(node: BatchNode) -> State:
    """One letter stands for the batch, in the result too."""
    equation = (text(node.node, "equation") or "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(node.node.input):
        node.refuse("has an equation that is not followed")
    letters: set[str] = set()
    states: set[Batched] = set()
    for index, term in enumerate(terms):
        if node.state(index) is not None:
            state = node.batched(index)
            letters.add(term[state.axis])
            states.add(state.at(0))
            if term.count(term[state.axis]) > 1:
                node.refuse("takes a diagonal of the batch axis")
    if len(letters) != 1 or len(states) != 1:
        node.refuse("combines values whose batch axes do not correspond")
    (letter,), (state,) = letters, states
    if letter not in right:
        node.refuse(CONTRACTED)
    for index, term in enumerate(terms):
        if node.state(index) is None and letter in term:
            node.lift(index, state.at(term.index(letter)))
    return state.at(right.index(letter))
