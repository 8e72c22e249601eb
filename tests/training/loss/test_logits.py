"""Looking through softmax, sigmoid and what stands behind them, to the logits."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import ModelError, UsageError
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.loss.logits import find_scores
from onnxprune.training.upgrading.upgrade import upgraded
from tests.training.lossrun import append, model, run

F = np.float32


def find(text, output=None):
    return find_scores(GraphBuilder(model(text)), output)


def graph(body, output="float[N,5] y", shape="N,5"):
    return f"(float[{shape}] x) => ({output}) {{ l = Neg(x) {body} }}"


THREE_AXES = "r = Constant<value_ints=[0,5,-1]>() s = Softmax<axis=1>(l) y = Reshape(s, r)"
TURNED = "s = Softmax(l) y = Transpose<perm=[0,3,1,2]>(s)"
MIDDLE = "a = Constant<value_ints=[1]>() s = Softmax(l) y = Squeeze(s, a)"

#: Graphs over logits `l`, with the link and the axis of the classes in the output.
LINKS = [
    (graph("y = Softmax(l)"), "softmax", 1),
    (graph("y = Softmax<axis=1>(l)"), "softmax", 1),
    (graph("y = Softmax<axis=-2>(l)", "float[N,5,3] y", "N,5,3"), "softmax", 1),
    (graph("y = LogSoftmax(l)"), "log-softmax", 1),
    (graph("s = Softmax(l) y = Log(s)"), "log-softmax", 1),
    (graph("s = LogSoftmax(l) y = Exp(s)"), "softmax", 1),
    (graph("y = Sigmoid(l)"), "sigmoid", None),
    (graph("s = Softmax(l) y = Identity(s)"), "softmax", 1),
    (graph("s = Softmax(l) y = Dropout(s)"), "softmax", 1),
    (
        graph(
            "r = Constant<value_float=0.5>() t = Constant<value=bool[1] {0}>() s = Softmax(l) "
            "y = Dropout(s, r, t)"
        ),
        "softmax",
        1,
    ),
    (graph("s = Softmax(l) c = Cast<to=10>(s) y = Cast<to=1>(c)"), "softmax", 1),
    (
        graph("s = Softmax(l) y = Flatten(s)", "float[N,5] y", "N,5,1,1").replace(
            "Softmax(l)", "Softmax<axis=1>(l)"
        ),
        "softmax",
        1,
    ),
    (graph("s = Softmax(l) y = Flatten<axis=2>(s)", "float[M,5] y", "N,3,5"), "softmax", 1),
    (graph("s = Softmax<axis=1>(l) y = Squeeze(s)", "float[N,5] y", "N,5,1,1"), "softmax", 1),
    (
        graph(
            "a = Constant<value_ints=[-1,2]>() s = Softmax<axis=1>(l) y = Squeeze(s, a)",
            "float[N,5] y",
            "N,5,1,1",
        ),
        "softmax",
        1,
    ),
    (
        graph(
            "a = Constant<value_ints=[1,3]>() s = Softmax(l) y = Unsqueeze(s, a)",
            "float[N,1,5,1] y",
        ),
        "softmax",
        2,
    ),
    (
        graph("s = Softmax(l) y = Transpose<perm=[0,2,1]>(s)", "float[N,5,3] y", "N,3,5"),
        "softmax",
        1,
    ),
    (graph("s = Softmax(l) y = Transpose(s)", "float[5,3,N] y", "N,3,5"), "softmax", 0),
    (
        graph(
            "r = Constant<value_ints=[-1,5,6]>() s = Softmax<axis=1>(l) y = Reshape(s, r)",
            "float[N,5,6] y",
            "N,5,2,3",
        ),
        "softmax",
        1,
    ),
    (
        graph("r = Constant<value_ints=[-1,1]>() s = Sigmoid(l) y = Reshape(s, r)", "float[M,1] y"),
        "sigmoid",
        None,
    ),
    (
        graph("a = Constant<value_ints=[1]>() e = Exp(l) t = ReduceSum(e, a) y = Div(e, t)"),
        "softmax",
        1,
    ),
    (
        graph(
            "a = Constant<value_ints=[-1]>() m = ReduceMax(l, a) d = Sub(l, m) e = Exp(d) "
            "t = ReduceSum(e, a) y = Div(e, t)"
        ),
        "softmax",
        1,
    ),
    (
        graph("a = Constant<value_ints=[1]>() t = ReduceLogSumExp(l, a) y = Sub(l, t)"),
        "log-softmax",
        1,
    ),
]


@pytest.mark.parametrize(("text", "link", "axis"), LINKS)
def test_link(text, link, axis):
    found = find(text)
    assert (found.link, found.logits, found.axis) == (link, "l", axis)
    assert (found.output, found.like, found.where) == ("y", "y", "output 'y'")


LINKS += [
    (graph(TURNED, "float[N,5,2,3] y", "N,2,3,5"), "softmax", 1),
    (graph(MIDDLE, "float[N,5] y", "N,1,5"), "softmax", 1),
    (graph(THREE_AXES, "float[N,5,P] y", "N,5,H,W"), "softmax", 1),
]

RESHAPED = (
    "a = Constant<value_ints=[1]>() r = Constant<value_ints=[-1,1]>() "
    "o = Constant<value_ints=[1,1]>() m = ReduceMax<keepdims=0>(l, a) n = Reshape(m, r) "
    "f = Expand(n, o) d = Sub(l, f) e = Exp(d) t = ReduceSum<keepdims=0>(e, a) u = Reshape(t, r) "
    "v = Expand(u, o) y = Div(e, v)"
)
LINKS += [(graph(RESHAPED), "softmax", 1)]

NO_LINKS = [
    graph(
        "a = Constant<value_ints=[1]>() e = Exp(l) t = ReduceSum<keepdims=0>(e, a) y = Div(e, t)",
        "float[5,5] y",
        "5,5",
    ),
    graph(
        "a = Constant<value_ints=[0]>() r = Constant<value_ints=[-1,1]>() e = Exp(l) "
        "t = ReduceSum<keepdims=0>(e, a) u = Reshape(t, r) y = Div(e, u)",
        "float[5,5] y",
        "5,5",
    ),
    graph(
        "a = Constant<value_ints=[1]>() r = Constant<value_ints=[2,1,3]>() e = Exp(l) "
        "t = ReduceSum<keepdims=0>(e, a) u = Reshape(t, r) y = Div(e, u)",
        "float[6,4,6] y",
        "6,4,1",
    ),
    graph("y = Neg(l)"),
    graph("s = Softmax(l) y = Neg(s)"),
    graph("e = Exp(l) y = Log(e)"),
    graph("s = Sigmoid(l) y = Log(s)"),
    graph("a = Constant<value_ints=[1]>() e = Exp(l) t = ReduceSum(l, a) y = Div(e, t)"),
    graph("a = Constant<value_ints=[0,1]>() e = Exp(l) t = ReduceSum(e, a) y = Div(e, t)"),
    graph("e = Exp(l) t = ReduceSum(e) y = Div(e, t)"),
    graph("a = Constant<value_ints=[1]>() t = ReduceLogSumExp(x, a) y = Sub(l, t)"),
    graph("s = Softmax(l) c = Cast<to=6>(s) y = Cast<to=1>(c)"),
    graph(
        "r = Constant<value_float=0.5>() t = Constant<value=bool[1] {1}>() s = Softmax(l) "
        "y = Dropout(s, r, t)"
    ),
]


@pytest.mark.parametrize("text", NO_LINKS)
def test_no_link(text):
    found = find(text)
    assert (found.link, found.logits, found.axis) == ("none", "y", None)


def test_a_shift_by_the_maximum_along_another_axis_is_none_of_the_softmax():
    text = graph(
        "a = Constant<value_ints=[1]>() z = Constant<value_ints=[0]>() m = ReduceMax(l, z) "
        "d = Sub(l, m) e = Exp(d) t = ReduceSum(e, a) y = Div(e, t)"
    )
    assert find(text).logits == "d"


def test_a_class_axis_that_is_lost_on_the_way_is_taken_before_it():
    text = graph(
        "r = Constant<value_ints=[-1,15]>() s = Softmax(l) y = Reshape(s, r)",
        "float[N,15] y",
        "N,3,5",
    )
    found = find(text)
    assert (found.like, found.axis, found.views) == ("s", 2, ())
    labels = np.array([[0, 1, 2], [3, 4, 0]])
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(F)
    scores = -x.astype(np.float64)
    expected = _negative_log(scores, labels)
    assert run(text, {"x": x}, labels).loss == pytest.approx(expected.mean(), rel=1e-5)


def _negative_log(scores, labels):
    shifted = scores - scores.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(logs, labels[..., None], -1)


@pytest.mark.parametrize(
    ("body", "output", "logits", "words"),
    [
        ("s = Softmax(l) y = ArgMax<axis=1>(s)", "int64[N,1] y", "l", "(scores 's' of output 'y')"),
        (
            "a = ArgMax<axis=1,keepdims=0>(l) y = Cast<to=6>(a)",
            "int32[N] y",
            "l",
            "scores 'l' of output 'y'",
        ),
        (
            "c = Constant<value_ints=[7,8,9,10,11]>() s = Softmax(l) a = ArgMax<axis=1>(s) "
            "y = ai.onnx.ml.ArrayFeatureExtractor(c, a)",
            "int64[1,N] y",
            "l",
            "(scores 's' of output 'y')",
        ),
        (
            "s = Softmax(l) k = Constant<value_ints=[1]>() v, y = TopK(s, k)",
            "int64[N,1] y",
            "l",
            "",
        ),
        (
            "h = Constant<value_float=0.5>() s = Sigmoid(l) y = Greater(s, h)",
            "bool[N,5] y",
            "l",
            "",
        ),
    ],
)
def test_outputs_of_classes_stand_for_the_scores_beneath(body, output, logits, words):
    found = find(graph(body, output))
    assert found.logits == logits
    assert words in found.beneath


def test_map_output():
    proto = model(graph("s = Softmax(l)"))
    node = helper.make_node(
        "ZipMap", ["s"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[*range(5)]
    )
    proto.graph.node.append(node)
    element = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    kind = helper.make_sequence_type_proto(element)
    proto.graph.output[0].CopyFrom(helper.make_value_info("y", kind))
    found = find_scores(GraphBuilder(proto))
    assert (found.logits, found.link, found.like) == ("l", "softmax", "s")


def test_scores_beside_an_output_of_something_else():
    text = "(float[N,5] x) => (int64[2] n, float[N,5] y) { n = Shape(x) y = Softmax(x) }"
    found = find(text)
    assert found.logits == "x"
    assert "output 'y' beside 'n'" in found.beneath
    assert "output 'y' beside 'n'" in append(text, np.array([1])).description


def test_another_output_on_request():
    text = "(float[N,5] x) => (float[N,5] a, float[N,5] b) { a = Neg(x) b = Softmax(x) }"
    assert find(text).output == "a"
    assert find(text, "b").logits == "x"
    with pytest.raises(UsageError, match="no output 'c'; it has 'a', 'b'"):
        find(text, "c")


def test_a_threshold_is_no_score():
    text = graph("h = Constant<value_float=0.5>() s = Sigmoid(l) y = Less(h, s)", "bool[N,5] y")
    assert find(text).output == "s"


def test_nothing_to_train():
    with pytest.raises(ModelError, match="'n' holds no float values"):
        find("(float[N,5] x) => (int64[2] n) { n = Shape(x) }")
    proto = model(graph("y = Neg(l)"))
    del proto.graph.output[:]
    with pytest.raises(ModelError, match="no outputs"):
        find_scores(GraphBuilder(proto))


# ---- real models ---------------------------------------------------------------------------


def test_real_models(zoo):
    """Cross-entropy of every classifier is that of its own scores."""
    for name in json.loads((zoo / "baselines.json").read_text()):
        proto = onnx.load(zoo / f"{name}.onnx")
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        feeds = _noise(session)
        expected = _log_shares(session, feeds)
        label = int(np.argsort(expected)[len(expected) // 2])
        forward = upgraded(proto)
        for info in forward.graph.output:
            info.type.tensor_type.ClearField("shape")
        found = run(forward, feeds, np.array([label]), wanted=())
        assert found.loss == pytest.approx(-expected[label], rel=2e-3, abs=1e-4), name
        assert found.correct == 0, name
        assert found.names.classes == len(expected), name
        assert found.names.description.startswith("cross-entropy on"), name


def _noise(session):
    random = np.random.default_rng(0)
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    dtype = np.float16 if "16" in given.type else F
    return {given.name: random.uniform(0, 1, shape).astype(dtype)}


def _log_shares(session, feeds):
    """Logarithms of the shares of classes that a session gives for one sample."""
    names = [value.name for value in session.get_outputs()]
    scores = session.run(names, feeds)
    maps = [value for value in scores if isinstance(value, list)]
    row = np.array([*maps[0][0].values()] if maps else scores[0], np.float64).reshape(-1)
    if row.min() >= 0 and row.sum() == pytest.approx(1, abs=1e-2):
        return np.log(row)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())
