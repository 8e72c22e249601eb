"""Hidden units of recurrent layers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove


def layer(operator: str, gates: int, directions: int = 1, more: str = "", **options) -> Case:
    """A layer of four units between two products, its last state read as well."""
    attributes = f'hidden_size=4, direction="{"bidirectional" if directions == 2 else "forward"}"'
    states = "a, b, c" if operator == "LSTM" else "a, b"
    weights = {
        "w": (6, 8), "k": (directions, gates * 4, 8), "r": (directions, gates * 4, 4),
        "q": (directions, 2 * gates * 4), "p": (directions, 12), "v": (directions * 4, 7),
        "u": (4, 7), "last": ints(0), "merge": ints(0, 0, -1),
    }  # fmt: skip
    text = f"""
        t = Transpose<perm=[1,0,2]>(x)
        h = MatMul(t, w)
        {states} = {operator}<{attributes}{more}>(h, k, r, q)
        s = Transpose<perm=[0,2,1,3]>(a)
        d = Reshape(s, merge)
        e = MatMul(d, v)
        l = Gather<axis=0>(b, last)
        m = MatMul(l, u)
        f = Add(e, m)
        y = Relu(f)
    """
    text = options.pop("text", text)
    return Case(text, {**weights, **options.pop("weights", {})}, [4, 8], (5, 6), **options)


STATES = """
    h = MatMul(x, w)
    i = Constant<value_float=0.3>()
    z = Shape(x)
    n = Gather(z, zero)
    j = Concat<axis=0>(one, n, four)
    k0 = Expand(i, j)
    h0 = Mul(k0, ones)
    c0 = Tanh(h0)
    t = Transpose<perm=[1,0,2]>(h)
    a, b, c = LSTM<hidden_size=4, activations=["Sigmoid","Tanh","Relu"]>(t, k, r, q, , h0, c0, p)
    d = Squeeze(a, one)
    o = Squeeze(c, zero)
    e = Add(d, o)
    y = MatMul(e, v)
"""
LENGTHS = """
    z = Shape(x)
    n = Slice(z, first, second)
    lengths = Expand(four, n)
    t = Transpose<perm=[1,0,2]>(x)
    h = MatMul(t, w)
    a, b = GRU<hidden_size=4>(h, k, r, q, lengths)
    d = Squeeze(b, last)
    y = MatMul(d, v)
"""
BATCH_FIRST = """
    z = Shape(x)
    n = Slice(z, first, second)
    shape = Concat<axis=0>(n, one, four)
    s = Expand(some, shape)
    h = MatMul(x, w)
    a, b = RNN<hidden_size=4, layout=1>(h, k, r, q, , s)
    d = Squeeze(a, two)
    l = Squeeze(b, one)
    e = MatMul(d, v)
    m = MatMul(l, v)
    m1 = Unsqueeze(m, one)
    y = Add(e, m1)
"""

CASES = {
    "lstm": layer("LSTM", 4),
    "gru": layer("GRU", 3),
    "gru, reset before": layer("GRU", 3, more=", linear_before_reset=1"),
    "rnn": layer("RNN", 1),
    "lstm, both directions": layer("LSTM", 4, 2),
    "gru, both directions": layer("GRU", 3, 2),
    "lstm, states and peepholes": layer(
        "LSTM", 4, text=STATES,
        weights={"zero": ints(0), "one": ints(1), "four": ints(4), "ones": (4,)},
    ),
    "gru, lengths": layer(
        "GRU", 3, text=LENGTHS, weights={"first": ints(0), "second": ints(1), "four": np.int32(4)}
    ),
}  # fmt: skip

#: Channels of a product that became steps, or samples, of a layer.
TURNED = {
    "steps": Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[2,0,1]>(h)\na = GRU<hidden_size=4>(t, k, r)\n"
        "d = Squeeze(a, one)\ne = Transpose<perm=[1,2,0]>(d)\ny = MatMul(e, v)",
        {"w": (6, 8), "k": (1, 12, 5), "r": (1, 12, 4), "one": ints(1), "v": (8, 3)},
        [],
        (5, 6),
    ),
    "samples": Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[1,2,0]>(h)\n"
        "_, b = GRU<hidden_size=4>(t, k, r, , n, s)\n"
        "d = Squeeze(b, zero)\ne = Transpose(d)\ny = MatMul(e, v)",
        {
            "w": (6, 8), "k": (1, 12, 1), "r": (1, 12, 4), "zero": ints(0), "v": (8, 3),
            "n": np.array([5, 3, 1, 2, 5, 4, 3, 5], np.int32), "s": (1, 8, 4),
        },
        [8],
        (5, 6),
        fixed_batch=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNED)
def test_former_channels(name: str) -> None:
    case = TURNED[name]
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=(1,))


def test_former_channels_as_steps_behind_samples() -> None:
    case = Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[0,2,1]>(h)\n"
        "a, _ = RNN<hidden_size=4, layout=1>(t, k, r)\nd = Squeeze(a, two)\n"
        "e = Transpose<perm=[0,2,1]>(d)\ny = MatMul(e, v)",
        {"w": (6, 8), "k": (1, 4, 5), "r": (1, 4, 4), "two": ints(2), "v": (8, 3)},
        [],
        (5, 6),
    )
    prove(built(case), lambda batch: feed(case, batch), [], batches=(2,), reference=True)


def test_former_channels_as_samples_in_front_of_as_many_steps() -> None:
    case = Case(
        "h = MatMul(x, w)\nt = Transpose<perm=[2,1,0]>(h)\n"
        "a, _ = RNN<hidden_size=4, layout=1>(t, k, r)\nd = Squeeze(a, two)\n"
        "e = Transpose<perm=[1,2,0]>(d)\ny = MatMul(e, v)",
        {"w": (6, 8), "k": (1, 4, 1), "r": (1, 4, 4), "two": ints(2), "v": (8, 3)},
        [8],
        (8, 6),
        fixed_batch=True,
    )
    prove(built(case), lambda batch: feed(case, batch), [8], batches=(1,), reference=True)


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    prove(built(case), lambda batch: feed(case, batch), case.sizes)


def test_samples_first() -> None:
    """No runtime here has a kernel for it: onnx's own evaluator computes the values."""
    case = layer(
        "RNN", 1, text=BATCH_FIRST, opset=14,
        weights={
            "first": ints(0), "second": ints(1), "four": ints(4), "some": (4,), "one": ints(1),
            "two": ints(2),
        },
    )  # fmt: skip
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=(2,), reference=True)
