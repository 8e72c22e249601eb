"""The gradient of Einsum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import ModelError
from tests.training.gradcheck import Case, gradient_tests

EVERY = ("static", "symbolic", "unranked")
RANKED = ("static", "symbolic")


def einsum(equation, *shapes, modes=RANKED):
    return Case(
        "Einsum",
        *shapes,
        equation=equation,
        torch=lambda t, *x: t.einsum(equation, *x),
        modes=modes,
    )


CASES = [
    einsum("ij,jk->ik", (2, 3), (3, 4), modes=EVERY),
    einsum("ij,jk", (2, 3), (3, 4), modes=EVERY),
    einsum("bij,bjk->bik", (2, 2, 3), (2, 3, 2)),
    einsum("bsh,hnd->bnsd", (2, 3, 4), (4, 2, 2), modes=EVERY),
    einsum("bnsd,bntd->bnst", (1, 2, 3, 2), (1, 2, 2, 2)),
    einsum("bnst,btnd->bsnd", (2, 2, 3, 2), (2, 2, 2, 2)),
    einsum("i,jki->k", (2,), (2, 3, 2), modes=EVERY),
    einsum("i,j->ij", (2,), (3,), modes=EVERY),
    einsum("i,i->", (3,), (3,), modes=EVERY),
    einsum("i,i", (3,), (3,)),
    einsum(",i->i", (), (3,)),
    einsum("ij,ij->ij", (2, 3), (2, 3)),
    einsum("ij,j->i", (2, 3), (3,)),
    einsum("ij,kl->il", (2, 3), (2, 2), modes=EVERY),
    einsum("ij->ji", (2, 3), modes=EVERY),
    einsum("ji", (2, 3)),
    einsum("ij->", (2, 3)),
    einsum("ijk->k", (2, 3, 2), modes=EVERY),
    einsum("ij,jk,kl->il", (2, 3), (3, 2), (2, 2), modes=EVERY),
    einsum("bi,bj,ijk->bk", (2, 2), (2, 3), (2, 3, 2)),
    einsum("a,b,c,d->", (2,), (2,), (1,), (2,)),
    einsum("...ij,...jk->...ik", (2, 2, 3), (2, 3, 2)),
    einsum("...ij,jk->...ik", (2, 1, 2, 3), (3, 2)),
    einsum("...ab,bc->...ac", (2, 2, 3), (3, 2)),
    einsum("...i,...i", (2, 3), (2, 3)),
    einsum("i...->...", (2, 3, 2)),
    einsum("...ij,...kj->ik...", (2, 2, 3), (2, 2, 3)),
    einsum("...ij,...jk->...ik", (1, 2, 3), (2, 3, 2)),
    einsum("aB , BC -> aC", (2, 3), (3, 2)),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize("shapes", [((2, 3), (1, 2)), ((2, 1), (3, 2)), ((1, 1), (2, 2))])
def test_repeated_axes_of_size_one(shapes):
    einsum("ij,jk->ik", *shapes).check()


@pytest.mark.parametrize("equation", ["ii->i", "ii->", "ii"])
def test_diagonals_are_refused(equation):
    with pytest.raises(ModelError, match=r"Einsum 'node' takes a diagonal \('ii"):
        einsum(equation, (2, 2)).check()


@settings(max_examples=40)
@given(st.integers(1, 3), st.data())
def test_any_equation(count, data):
    """Terms over five letters with a size each, and any of the letters present in the output."""
    sizes = dict(zip("abcyz", data.draw(st.tuples(*[st.integers(1, 3)] * 5)), strict=True))
    letters = st.lists(st.sampled_from(sorted(sizes)), unique=True, min_size=1, max_size=3)
    terms = [data.draw(letters) for _ in range(count)]
    present = sorted({letter for term in terms for letter in term})
    output = data.draw(st.lists(st.sampled_from(present), unique=True, max_size=3))
    equation = ",".join("".join(term) for term in terms)
    if data.draw(st.booleans()):
        equation += f"->{''.join(output)}"
    shapes = [tuple(sizes[letter] for letter in term) for term in terms]
    if "->" not in equation or np.prod([sizes[letter] for letter in present]) < 60:
        einsum(equation, *shapes, modes=EVERY).check()
