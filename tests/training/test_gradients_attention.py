"""The gradient of Attention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Case, Fixed, gradient_tests

RAGGED = np.array([[True, False, True], [False, False, False], [True, True, True]])
#: Positions that no query but the last may attend to, as a float mask.
HIDDEN = np.where(RAGGED, 0.3, -np.inf).astype(np.float32)


def attention(*shapes, mask=None, modes=("static", "symbolic"), **attributes):
    """A case from the shapes of query, key and value; a mask is a shape, array or Fixed."""
    heads = [attributes.get(name) for name in ("q_num_heads", "kv_num_heads")]

    def torch(t, q, k, v, bias=None):
        if heads[0]:
            q, k, v = (
                x.unflatten(2, (count, -1)).transpose(1, 2)
                for x, count in zip((q, k, v), (heads[0], heads[1], heads[1]), strict=True)
            )
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = q @ k.transpose(2, 3) * attributes.get("scale", q.shape[3] ** -0.5)
        cap = attributes.get("softcap")
        scores = t.tanh(scores / cap) * cap if cap else scores
        if bias is not None and bias.dtype == t.bool:
            scores = scores.masked_fill(~bias, -t.inf)
        elif bias is not None:
            scores = scores + bias
        if attributes.get("is_causal"):
            scores = scores.masked_fill(t.ones(scores.shape[2:]).triu(1).bool(), -t.inf)
        dead = (scores == -t.inf).all(-1, keepdim=True)
        y = scores.masked_fill(dead, 0).softmax(-1).masked_fill(dead, 0) @ v
        return y.transpose(1, 2).flatten(2) if heads[0] else y

    mask = () if mask is None else (mask,)
    return Case("Attention", *shapes, *mask, torch=torch, modes=modes, **attributes)


def square(**more):
    """Two heads of size two over three positions."""
    return attention(*[(1, 2, 3, 2)] * 3, modes=("static",), **more)


def flat(*shapes, heads, **more):
    heads = {"q_num_heads": heads[0], "kv_num_heads": heads[1]}
    return attention(*shapes, modes=("static",), **heads, **more)


def framed(case, *targets):
    """The case in a graph that knows of the operands' shapes only what these targets say."""
    check = case.check_
    check.modes = ("symbolic",)
    check.values = dict(check.values)
    reshapes = []
    for index, target in enumerate(targets):
        check.values[f"shape{index}"] = np.array(target)
        check.fixed.add(f"shape{index}")
        reshapes.append(helper.make_node("Reshape", [f"x{index}", f"shape{index}"], [f"r{index}"]))
        check.nodes[0].input[index] = f"r{index}"
    check.nodes = [*reshapes, *check.nodes]
    return case


CASES = [
    attention((2, 2, 3, 2), (2, 2, 2, 2), (2, 2, 2, 3), modes=("static",)),
    attention((1, 4, 2, 2), (1, 2, 3, 2), (1, 2, 3, 2), modes=("static",)),
    attention((1, 3, 2, 2), (1, 1, 3, 2), (1, 1, 3, 1), modes=("static",), scale=0.3),
    square(),
    square(scale=0.7, softcap=0.6),
    square(is_causal=1),
    square(is_causal=1, softcap=0.6, mask=(3, 3)),
    square(mask=RAGGED),
    square(mask=np.stack([RAGGED, RAGGED[::-1]])),
    square(mask=RAGGED, is_causal=1),
    square(mask=Fixed(HIDDEN), softcap=2.0),
    square(mask=Fixed(HIDDEN), is_causal=1),
    square(mask=(3, 3)),
    square(mask=(1, 1, 3, 3), softcap=0.6),
    square(mask=(2, 3, 3)),
    attention((1, 2, 2, 2), (1, 2, 3, 2), (1, 2, 3, 2), modes=("static",), is_causal=1),
    attention((1, 2, 3, 2), (1, 2, 2, 2), (1, 2, 2, 2), modes=("static",), is_causal=1),
    flat((2, 3, 4), (2, 2, 4), (2, 2, 6), heads=(2, 2)),
    flat((1, 2, 8), (1, 3, 4), (1, 3, 2), heads=(4, 2)),
    flat((1, 2, 4), (1, 3, 2), (1, 3, 2), heads=(2, 1), mask=(2, 2, 3), scale=0.4),
    flat((1, 3, 4), (1, 3, 4), (1, 3, 4), heads=(2, 2), mask=RAGGED, is_causal=1),
]

test_finite_differences, test_torch = gradient_tests(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_what_the_gradient_is_checked_at(case):
    """That onnxruntime's kernel computes what the float64 reference does."""
    model = case.check_.model()
    found = evaluate(model, {n: v for n, v in case.check_.values.items() if _is_input(model, n)})
    expected = case.check_._forward()["y0"]
    np.testing.assert_allclose(found["y0"], expected, rtol=1e-4, atol=1e-5)


def _is_input(model, name):
    return any(info.name == name for info in model.graph.input)


@settings(max_examples=25)
@given(
    st.tuples(*[st.integers(1, 2)] * 4),
    st.tuples(*[st.integers(2, 3)] * 2),
    st.booleans(),
    st.sampled_from([0.0, 0.7, 3.0]),
    st.sampled_from(["none", "float", "bool"]),
    st.booleans(),
)
def test_any_attention(sizes, lengths, causal, softcap, masked, three):
    batch, keys, group, size = sizes
    queries = keys * group
    allowed = np.random.default_rng(sum(sizes)).random((batch, 1, *lengths)) < 0.6
    allowed[:, :, 1, :2] = True  # one choice at least, else gradients are exactly 0
    mask = {"none": None, "float": lengths, "bool": allowed}[masked]
    attributes = {"is_causal": int(causal), "softcap": softcap, "mask": mask}
    if three:
        shapes = [(batch, lengths[0], queries * size)]
        shapes += [(batch, lengths[1], keys * size), (batch, lengths[1], keys * 2)]
        flat(*shapes, heads=(queries, keys), **attributes).check()
    else:
        shapes = [(batch, queries, lengths[0], size)]
        shapes += [(batch, keys, lengths[1], size), (batch, keys, lengths[1], 2)]
        attention(*shapes, modes=("static",), **attributes).check()


@pytest.mark.parametrize("causal", [0, 1])
def test_symbolic_sizes(causal):
    """Batch, sequence and head size, as far as a model leaves them open."""
    case = flat((1, 2, 4), (1, 3, 2), (1, 3, 2), heads=(2, 1), is_causal=causal, mask=(2, 2, 3))
    framed(case, [0, 0, 4], [0, 0, 2], [0, 0, 2]).check()
    case = attention((1, 4, 2, 2), (1, 2, 3, 2), (1, 2, 3, 3), is_causal=causal)
    framed(case, [0, 4, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0]).check()


def refused(message, inputs=("q", "k", "v"), outputs=("y",), shape=(1, 2, 3, 2), mask=(3, 3)):
    shapes = {"q": shape, "k": shape, "v": shape, "mask": mask}
    shapes |= {"past_k": (1, 2, 2, 2), "past_v": (1, 2, 2, 2)}
    graph = helper.make_graph(
        [helper.make_node("Attention", inputs, outputs, name="node")],
        "g",
        [helper.make_tensor_value_info(name, 1, shapes[name]) for name in inputs if name],
        [helper.make_tensor_value_info(outputs[-1], 1, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    with pytest.raises(ModelError, match=f"Attention 'node' .*{message}"):
        pull_back(GraphBuilder(model), {outputs[-1]: "dy"}, ["q"])


def test_what_is_refused():
    refused("cache", ("q", "k", "v", "", "past_k", "past_v"))
    refused("present keys", outputs=("y", "present"))
    refused("scores", outputs=("y", "", "", "scores"))
    refused("2 columns for 3 keys", ("q", "k", "v", "mask"), mask=(3, 2))


def test_unknown_numbers_of_heads_are_refused():
    case = attention(*[(1, 2, 3, 2)] * 3, modes=("symbolic",))
    with pytest.raises(ModelError, match="numbers of heads"):
        case.check()
