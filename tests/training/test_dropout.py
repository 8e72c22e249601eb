"""Live Dropout: what the graph becomes, how random its masks are, and gradients through it."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, parser

from onnxprune.errors import ModelError
from onnxprune.training.backward import backward
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.dropout import with_live_dropout

F = np.float32
HEAD = '<ir_version: 10, opset_import: ["": 23]> g'


def live(text, count=1, seed="seed"):
    proto = parser.parse_model(f"{HEAD} {text}")
    assert with_live_dropout(proto, seed) == count
    onnx.checker.check_model(proto, full_check=True)
    assert not any(node.op_type == "Dropout" for node in proto.graph.node)
    return proto


def session(proto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def runner(proto):
    made = session(proto)
    return lambda x, seed: made.run(None, {"x": x, "seed": np.array(seed, np.int64)})


def masks_of(ratio):
    """Masks of two Dropouts of the same input."""
    return runner(
        live(
            f"(float[N,M] x) => (bool[N,M] m, bool[N,M] k) <float r = {{{ratio}}}>"
            " { a, m = Dropout(x, r) b, k = Dropout(x, r) }",
            count=2,
        )
    )


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.8])
def test_kept_elements_are_divided_by_what_is_kept_on_average(ratio):
    text = f"<float r = {{{ratio}}}> {{ y, m = Dropout(x, r) }}"
    run = runner(live(f"(float[N,300] x) => (float[N,300] y, bool[N,300] m) {text}"))
    x = np.random.default_rng(0).standard_normal((200, 300)).astype(F)
    y, mask = run(x, 3)
    np.testing.assert_allclose(y, np.where(mask, x / (1 - ratio), 0), rtol=5e-7)
    mean, spread = 1 - ratio, math.sqrt(ratio * (1 - ratio) / mask.size)
    assert abs(mask.mean() - mean) < 5 * spread


def test_same_seed_same_mask_in_another_session():
    text = "(float[N,300] x) => (float[N,300] y) { y = Dropout(x) }"
    x = np.ones((70, 300), F)
    first, second = (runner(live(text)) for _ in range(2))
    np.testing.assert_array_equal(first(x, 7)[0], second(x, 7)[0])
    assert (first(x, 7)[0] != second(x, 8)[0]).any()
    assert (first(x, -1)[0] != second(x, 2**63 - 1)[0]).any()


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 0), (1024,), (1025,), (2, 3, 5, 7, 11)])
def test_every_shape(shape):
    declared = ",".join(f"d{axis}" for axis in range(len(shape)))
    kind = f"float[{declared}]" if shape else "float"
    proto = live(f"({kind} x) => ({kind} y) {{ y = Dropout(x) }}")
    found = runner(proto)(np.ones(shape, F), 1)[0]
    assert found.shape == shape
    assert set(np.unique(found)) <= {0.0, 2.0}


def test_ratios_from_attributes_nodes_and_by_default():
    text = """
        (float[N,4096] x) => (bool[N,4096] a, bool[N,4096] b, bool[N,4096] c)
        <float r = {0.1}>
        {
            y, a = Dropout(x, r)
            q = Constant<value_float = 0.9>()
            z, b = Dropout(x, q)
            w, c = Dropout<seed = 5>(x)
        }
    """
    proto = live(text, 3)
    assert "r" not in [tensor.name for tensor in proto.graph.initializer], "nothing reads it"
    shares = [mask.mean() for mask in runner(proto)(np.ones((8, 4096), F), 0)]
    assert shares == pytest.approx([0.9, 0.1, 0.5], abs=0.02)


def test_constants_that_others_read_stay():
    proto = live(
        "(float[N] x) => (float[N] y) <float r = {0.25}> { h = Dropout(x, r) y = Mul(h, r) }"
    )
    assert "r" in [tensor.name for tensor in proto.graph.initializer]


def test_ratio_of_zero_is_an_identity():
    proto = live(
        "(float[N,9] x) => (float[N,9] y, bool[N,9] m) <float r = {0}> { y, m = Dropout(x, r) }"
    )
    x = np.random.default_rng(0).standard_normal((4, 9)).astype(F)
    y, mask = runner(proto)(x, 1)
    np.testing.assert_array_equal(y, x)
    assert mask.all()
    assert mask.shape == x.shape


def test_tiny_ratio_keeps_everything():
    assert masks_of(1e-12)(np.zeros((8, 9), F), 1)[0].all()


def test_without_dropout_nothing_changes():
    proto = parser.parse_model(f"{HEAD} (float[N] x) => (float[N] y) {{ y = Relu(x) }}")
    before = proto.SerializeToString()
    assert with_live_dropout(proto, "seed") == 0
    assert proto.SerializeToString() == before


def test_other_nodes_keep_their_place_and_names_stay_unique():
    proto = live(
        "(float[N,4] x) => (float[N,4] y)"
        ' { "dropout/Mul_0" = Relu(x) h = Dropout("dropout/Mul_0") i = Neg(h) j = Dropout(i)'
        " y = Neg(j) }",
        count=2,
    )
    names = [output for node in proto.graph.node for output in node.output]
    assert len(names) == len(set(names))
    assert [n.op_type for n in proto.graph.node if n.op_type in ("Relu", "Neg")] == [
        "Relu",
        "Neg",
        "Neg",
    ]
    assert runner(proto)(np.ones((2, 4), F), 1)[0].shape == (2, 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(float[N] x, float r) => (float[N] y) { y = Dropout(x, r) }", "computed by the graph"),
        ("(float[N] x) => (float[N] y) <float r = {1}> { y = Dropout(x, r) }", "is 1.0"),
        ("(float[N] x) => (float[N] y) <float r = {-0.5}> { y = Dropout(x, r) }", "is -0.5"),
        ("(float[N] x) => (float[N] y) { seed = Relu(x) y = Dropout(seed) }", "named 'seed'"),
    ],
)
def test_refuses_and_leaves_the_model_alone(text, words):
    proto = parser.parse_model(f"{HEAD} {text}")
    before = proto.SerializeToString()
    with pytest.raises(ModelError, match=words):
        with_live_dropout(proto, "seed")
    assert proto.SerializeToString() == before


def test_gradient_passes_what_was_kept():
    proto = live(
        "(float[N,50] x) => (float[N,50] y) <float r = {0.2}> { h = Relu(x) y = Dropout(h, r) }"
    )
    proto.graph.node.append(helper.make_node("ReduceSum", ["y"], ["loss"], keepdims=0))
    before = len(proto.graph.node)
    gradient = backward(GraphBuilder(proto), "loss", ["x"])["x"]
    added = [node.op_type for node in proto.graph.node[before:]]
    assert "ReduceSum" not in added, "shapes are known to agree"
    proto.graph.output.append(helper.make_tensor_value_info(gradient, 1, None))
    x = np.random.default_rng(0).uniform(0.5, 1, (20, 50)).astype(F)
    y, found = runner(proto)(x, 11)
    np.testing.assert_allclose(found, y / x, rtol=1e-6)
    assert (found == 0).any()


# ---- randomness -----------------------------------------------------------------------------


def surprise(counts, shares):
    """Standard deviations of a chi-square statistic above its mean (Wilson and Hilferty)."""
    expected = np.asarray(shares, float) * counts.sum()
    return _normal(float(((counts - expected) ** 2 / expected).sum()), counts.size - 1)


def _normal(statistic, freedom):
    ninth = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - ninth)) / math.sqrt(ninth)


def patterns(*masks):
    """How often each combination of values occurs."""
    codes = sum(mask.astype(np.int64) << i for i, mask in enumerate(masks))
    return np.bincount(codes.ravel(), minlength=2 ** len(masks))


def pattern_shares(count, keep):
    ones = [bin(code).count("1") for code in range(2**count)]
    return [keep**one * (1 - keep) ** (count - one) for one in ones]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_masks_are_as_random_as_independent_draws(ratio):
    keep, run = 1 - ratio, masks_of(ratio)
    x = np.zeros((64, 1024), F)
    pairs = [run(x, seed) for seed in range(150)]
    masks, others = (np.stack(found) for found in zip(*pairs, strict=True))
    assert abs(masks.mean() - keep) < 4.5 * math.sqrt(keep * ratio / masks.size)
    checks = {
        "neighbours in a row": (masks[:, :, :-1], masks[:, :, 1:]),
        "neighbours in a column": (masks[:, :-1], masks[:, 1:]),
        "squares": (masks[:, :-1:2, ::2], masks[:, 1::2, ::2], masks[:, :-1:2, 1::2],
                    masks[:, 1::2, 1::2]),
        "distant squares": (masks[:, :32, :512], masks[:, 32:, :512], masks[:, :32, 512:],
                            masks[:, 32:, 512:]),
        "nodes": (masks, others),
        "steps": (masks[:-1], masks[1:]),
        "rows a step apart": (masks[1:, :-1], masks[:-1, 1:]),
        "nodes a step apart": (masks[1:], others[:-1]),
    }  # fmt: skip
    for what, values in checks.items():
        counts = patterns(*values)
        assert surprise(counts, pattern_shares(len(values), keep)) < 4.5, what
    variance = keep * ratio
    for what, axes in {"element": 0, "row": 2, "column": 1, "mask": (1, 2)}.items():
        found = masks.sum(axis=axes)
        size = masks.size // found.size
        statistic = float(((found - size * keep) ** 2).sum()) / (size * variance)
        assert abs(_normal(statistic, found.size)) < 4.5, what


def test_no_two_columns_or_rows_agree():
    mask = masks_of(0.5)(np.zeros((2048, 1024), F), 5)[0] * F(2) - F(1)
    for signs in (mask, mask[:1024].T):
        together = signs.T @ signs / len(signs)
        np.fill_diagonal(together, 0)
        assert np.abs(together).max() < 0.25
