"""Gradients of onnxruntime's own attention operators."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import ModelError
from onnxprune.training import contrib
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Case, gradient_tests

BY_KEY = np.array([[1, 1, 0], [1, 0, 1]], np.int32)
BY_PAIR = np.array([[[1, 0, 1], [1, 1, 0], [1, 1, 1]]] * 2, np.int32)


def attend(query, key, value, heads, mask=None, added=0.0, causal=False, scale=None):
    """Attention of 3-D numpy arrays or tensors."""
    batch, length, width = key.shape[0], key.shape[1], query.shape[2] // heads
    query, key, value = (
        x.reshape(batch, -1, heads, x.shape[2] // heads).swapaxes(1, 2) for x in (query, key, value)
    )
    scores = query @ key.swapaxes(2, 3) * (scale or width**-0.5) + added
    if mask is not None:
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None]
        scores = scores + (mask <= 0) * -10000.0
    if causal:
        later = np.triu(np.full((scores.shape[2], length), -1e9), 1)
        scores = scores + (later if isinstance(scores, np.ndarray) else scores.new_tensor(later))
    weights = np.exp(scores) if isinstance(scores, np.ndarray) else scores.exp()
    result = weights / weights.sum(-1)[..., None] @ value
    return result.swapaxes(1, 2).reshape(batch, query.shape[2], -1)


@pytest.fixture(autouse=True)
def shapes_of_outputs(monkeypatch):
    """State that results are as large as the first inputs, as all are here."""
    for op_type in ("Attention", "MultiHeadAttention"):
        monkeypatch.setitem(contrib._TWINS, op_type, "Identity")


def multi_head(*shapes, bias=None, mask=None, added=None, causal=0, **attributes):
    width = shapes[0][2]

    def function(query, key, value, *rest):
        rest = list(rest)
        given = rest.pop(0) if bias else None
        if given is not None:
            query, key = query + given[:width], key + given[width : 2 * width]
            value = value + given[2 * width :]
        masked = rest.pop(0) if mask is not None else None
        more = rest.pop(0) if added else 0.0
        scale = attributes.get("scale")
        return attend(query, key, value, 2, masked, more, causal, scale)

    optional = [bias, mask, added]
    while optional and optional[-1] is None:
        optional.pop()
    return Case(
        "MultiHeadAttention",
        *shapes,
        *optional,
        domain="com.microsoft",
        num_heads=2,
        unidirectional=causal,
        torch=lambda t, *x: function(*x),
        reference=function,
        modes=("static",),
        **attributes,
    )


def projected(x, weights, bias=True, mask=None, added=None, causal=0, **attributes):
    sizes = attributes.get("qkv_hidden_sizes", [weights[1] // 3] * 3)
    ends = np.cumsum([0, *sizes])

    def function(x, weights, *rest):
        rest = list(rest)
        whole = x @ weights + (rest.pop(0) if bias else 0.0)
        masked = rest.pop(0) if mask is not None else None
        more = rest.pop(0) if added else 0.0
        parts = [whole[..., ends[i] : ends[i + 1]] for i in range(3)]
        return attend(*parts, 2, masked, more, causal, attributes.get("scale"))

    optional = [weights[1:] if bias else None, mask, None, added]
    while optional and optional[-1] is None:
        optional.pop()
    return Case(
        "Attention",
        x,
        weights,
        *optional,
        domain="com.microsoft",
        num_heads=2,
        unidirectional=causal,
        torch=lambda t, *x: function(*x),
        reference=function,
        modes=("static",),
        **attributes,
    )


CROSS = ((2, 2, 4), (2, 3, 4), (2, 3, 4))
CASES = [
    multi_head(*CROSS),
    multi_head(*CROSS, bias=(12,), scale=0.3),
    multi_head(*CROSS, mask=BY_KEY),
    multi_head(*CROSS, bias=(12,), mask=BY_KEY, added=(2, 2, 2, 3)),
    multi_head(*CROSS, added=(1, 2, 2, 3)),
    multi_head(*[(1, 3, 4)] * 3, causal=1),
    projected((2, 3, 4), (4, 12)),
    projected((2, 3, 4), (4, 12), mask=BY_KEY, scale=0.3),
    projected((2, 3, 4), (4, 12), mask=BY_PAIR),
    projected((1, 3, 4), (4, 12), causal=1, added=(1, 2, 3, 3)),
    projected((1, 3, 4), (4, 8), qkv_hidden_sizes=[2, 2, 4]),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_what_the_gradient_is_checked_at(case):
    """That onnxruntime's kernel computes what the numpy reference does."""
    check = case.check_
    inputs = {info.name for info in check.model().graph.input}
    found = evaluate(check.model(), {n: v for n, v in check.values.items() if n in inputs})
    np.testing.assert_allclose(found["y0"], check._forward()["y0"], rtol=1e-3, atol=1e-5)


def refused(message, case):
    case.check_.reference = lambda x, *_: x
    with pytest.raises(ModelError, match=message):
        case.check_.gradients("static")


def test_what_is_refused():
    lengths = np.array([2, 3], np.int32)
    refused("has a mask of 1 axes", multi_head(*CROSS, mask=lengths))
    refused("has a mask of 1 axes", projected((2, 3, 4), (4, 12), mask=lengths))
    refused("rotates", projected((2, 3, 4), (4, 12), do_rotary=1))
    domain = {"domain": "com.microsoft", "num_heads": 2}
    refused("packed", Case("MultiHeadAttention", (1, 2, 2, 3, 2), **domain))
    sides = [(1, 2, 4)] * 3 + [None] * 3 + [(1, 2, 3, 2)] * 2
    refused("cache", Case("MultiHeadAttention", *sides, **domain))
    more = [(1, 2, 4), (4, 12), (12,), None, (2, 1, 2, 3, 2)]
    refused("cache", Case("Attention", *more, **domain))
    present = Case("Attention", *more[:3], outputs=2, seeded=(1,), **domain)
    present.check_.reference = lambda x, *_: (x, x)
    with pytest.raises(ModelError, match="more than its first output"):
        present.check_.gradients("static")
    unknown = multi_head(*CROSS, bias=(12,))
    with pytest.raises(ModelError, match="last axis of 'x0' has no known size"):
        unknown.check_.gradients("symbolic")
