"""Losses and their gradients against PyTorch; which loss is chosen, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.loss.append import LossConfig, append_loss
from tests.training.lossrun import append, labels_of, model, run

F = np.float32
SCORES = "(float[N,5] x) => (float[N,5] y) { y = Identity(x) }"
SOFTMAX = "(float[N,5] x) => (float[N,5] y) { y = Softmax(x) }"
LOG_SOFTMAX = "(float[N,5] x) => (float[N,5] y) { y = LogSoftmax<axis=1>(x) }"
SIGMOID = "(float[N,5] x) => (float[N,5] y) { y = Sigmoid(x) }"
UNIT = "(float[N,1] x) => (float[N,1] y) { y = Sigmoid(x) }"
FLAT_UNIT = "(float[N,1] x) => (float[N] y) <int64[1] a = {1}> { s = Sigmoid(x) y = Squeeze(s, a) }"
PICTURE = "(float[N,4,3,2] x) => (float[N,4,3,2] y) { y = Softmax<axis=1>(x) }"
TALL = "(float[N,5,1,1] x) => (float[N,5,1,1] y) { y = Softmax<axis=1>(x) }"
TOKENS = "(float[N,3,5] x) => (float[N,3,5] y) { y = Identity(x) }"
CHANNELS = "(float[N,3,5] x) => (float[N,5,3] y) { s = Softmax(x) y = Transpose<perm=[0,2,1]>(s) }"
FREE = "(float[N,C] x) => (float[N,C] y) { y = Softmax(x) }"
UNITS = "(float[N,1,3,2] x) => (float[N,1,3,2] y) { y = Sigmoid(x) }"


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(0, 2, shape).astype(F)


def classes(count, *shape, dtype=np.int64):
    return np.random.default_rng(3).integers(0, count, shape).astype(dtype)


def shares(*shape):
    values = np.random.default_rng(4).uniform(0, 1, shape)
    return (values / values.sum(axis=1, keepdims=True)).astype(F)


def against(expected, found, x):
    """Compare loss and gradient with a PyTorch scalar of a float64 leaf."""
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(x.astype(np.float64), requires_grad=True)
    value = expected(torch, leaf)
    value.backward()
    assert found.loss == pytest.approx(value.item(), rel=1e-5)
    np.testing.assert_allclose(found.gradients["x"], leaf.grad.numpy(), rtol=1e-4, atol=2e-7)


WEIGHTS = (0.5, 2.0, 0.0, 1.0, 3.0)
OPTIONS = [
    {},
    {"class_weights": WEIGHTS},
    {"label_smoothing": 0.2},
    {"class_weights": WEIGHTS, "label_smoothing": 0.2},
]


def cross_entropy(torch, x, target, options):
    weights = options.get("class_weights")
    return torch.nn.functional.cross_entropy(
        x,
        target,
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        label_smoothing=options.get("label_smoothing", 0.0),
    )


#: Class weights need a known number of classes.
WITH_FREE = [(FREE, options) for options in OPTIONS if "class_weights" not in options]


@pytest.mark.parametrize(
    ("text", "options"),
    [(text, options) for text in (SCORES, SOFTMAX, LOG_SOFTMAX) for options in OPTIONS] + WITH_FREE,
)
def test_cross_entropy(text, options):
    x, labels = draw(7, 5), classes(5, 7)
    found = run(text, {"x": x}, labels, LossConfig(**options))
    against(lambda t, z: cross_entropy(t, z, t.tensor(labels), options), found, x)
    assert found.names.classes == (None if text == FREE else 5)
    assert found.names.label_range == (None if text == FREE else (0, 4))
    assert found.correct == (x.argmax(1) == labels).sum()


@pytest.mark.parametrize(
    ("text", "options"), [(SOFTMAX, options) for options in OPTIONS] + WITH_FREE
)
def test_shares_of_classes_as_labels(text, options):
    x, labels = draw(7, 5), shares(7, 5)
    found = run(text, {"x": x}, labels, LossConfig(**options))
    against(lambda t, z: cross_entropy(t, z, t.tensor(labels).double(), options), found, x)
    assert found.correct is None
    assert "shares of classes" in found.names.description


@pytest.mark.parametrize("options", OPTIONS[:1] + OPTIONS[2:3], ids=str)
def test_positions(options):
    x, labels = draw(2, 4, 3, 2), classes(4, 2, 3, 2, dtype=np.uint8)
    found = run(PICTURE, {"x": x}, labels, LossConfig(**options))
    against(lambda t, z: cross_entropy(t, z, t.tensor(labels.astype(int)), options), found, x)
    assert found.correct == pytest.approx((x.argmax(1) == labels).mean(axis=(1, 2)).sum())


def test_weights_along_a_class_axis_in_the_middle():
    x, labels = draw(2, 4, 3, 2), classes(4, 2, 3, 2)
    options = {"class_weights": (1.0, 2.0, 3.0, 4.0), "label_smoothing": 0.1}
    found = run(PICTURE, {"x": x}, labels, LossConfig(**options))
    against(lambda t, z: cross_entropy(t, z, t.tensor(labels), options), found, x)


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_axes_of_size_one(shape, dtype):
    x, labels = draw(7, 5, 1, 1), classes(5, *shape, dtype=dtype)
    found = run(TALL, {"x": x}, labels)
    target = labels.reshape(7).astype(np.int64)
    against(lambda t, z: t.nn.functional.cross_entropy(z.reshape(7, 5), t.tensor(target)), found, x)
    assert found.correct == (x.reshape(7, 5).argmax(1) == target).sum()


@pytest.mark.parametrize("text", [TOKENS, CHANNELS])
def test_class_axis_is_where_the_softmax_or_the_labels_put_it(text):
    x, labels = draw(2, 3, 5), classes(5, 2, 3)
    found = run(text, {"x": x}, labels)
    against(
        lambda t, z: t.nn.functional.cross_entropy(z.transpose(1, 2), t.tensor(labels)), found, x
    )
    assert found.names.classes == 5


def test_a_last_axis_as_large_as_the_class_axis_is_not_the_class_axis():
    x, labels = draw(2, 3, 3), classes(3, 2, 3)
    found = run("(float[N,3,3] x) => (float[N,3,3] y) { y = Identity(x) }", {"x": x}, labels)
    against(lambda t, z: t.nn.functional.cross_entropy(z, t.tensor(labels)), found, x)


def test_labels_with_an_axis_of_size_one_where_that_of_the_scores_is_free():
    x, labels = draw(7, 5, 1), classes(5, 7, 1)
    found = run("(float[N,5,T] x) => (float[N,5,T] y) { y = Softmax<axis=1>(x) }", {"x": x}, labels)
    against(lambda t, z: t.nn.functional.cross_entropy(z, t.tensor(labels)), found, x)


def test_large_logits_are_no_problem():
    x = np.array([[1000, -1000, 0, 0, 0], [-5000, 5000, 0, 0, 0]], F)
    found = run(SOFTMAX, {"x": x}, np.array([1, 1]))
    assert found.loss == 1000
    assert found.gradients["x"][0].tolist() == [0.5, -0.5, 0, 0, 0]
    x = np.array([[300], [-300]], F)
    found = run(UNIT, {"x": x}, np.array([0, 1]))
    assert found.loss == 300
    assert found.gradients["x"].tolist() == [[0.5], [-0.5]]


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.float32, np.float64])
@pytest.mark.parametrize("text", [UNIT, FLAT_UNIT])
def test_single_unit(text, dtype, shape):
    x, labels = draw(7, 1), classes(2, *shape).astype(dtype)
    x[:2] = [[0.2], [-0.2]]
    found = run(text, {"x": x}, labels)
    target = labels.reshape(7, 1).astype(np.float64)
    against(
        lambda t, z: t.nn.functional.binary_cross_entropy_with_logits(z, t.tensor(target)), found, x
    )
    assert found.names.label_range == (0, 1)
    if labels.dtype.kind == "f":
        assert (found.names.classes, found.correct) == (None, None)
    else:
        assert found.names.classes == 2
        assert found.correct == ((x > 0) == target).sum()


def test_units_at_positions():
    x, labels = draw(2, 1, 3, 2), classes(2, 2, 3, 2)
    found = run(UNITS, {"x": x}, labels)
    target = labels.reshape(x.shape).astype(np.float64)
    against(
        lambda t, z: t.nn.functional.binary_cross_entropy_with_logits(z, t.tensor(target)), found, x
    )
    assert found.correct == pytest.approx(((x > 0) == target).reshape(2, -1).mean(1).sum())


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_many_labels_for_each_sample(dtype):
    x, labels = draw(7, 5), classes(2, 7, 5).astype(dtype)
    found = run(SIGMOID, {"x": x}, labels)
    target = labels.astype(np.float64)
    against(
        lambda t, z: t.nn.functional.binary_cross_entropy_with_logits(z, t.tensor(target)), found, x
    )
    assert found.correct is None


def test_one_sigmoid_for_each_class():
    x, labels = draw(7, 5), classes(5, 7)
    found = run(SIGMOID, {"x": x}, labels)
    target = np.eye(5)[labels]
    against(
        lambda t, z: t.nn.functional.binary_cross_entropy_with_logits(z, t.tensor(target)), found, x
    )
    assert found.names.classes == 5
    assert found.correct == (x.argmax(1) == labels).sum()


@pytest.mark.parametrize("name", ["auto", "mse", "l1"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_regression(name, dtype):
    x, labels = draw(7, 5), draw(7, 5, 1)[..., 0].astype(dtype)
    found = run(SCORES, {"x": x}, labels, LossConfig(name))
    target = labels.astype(np.float64)
    kind = "l1_loss" if name == "l1" else "mse_loss"
    against(lambda t, z: getattr(t.nn.functional, kind)(z, t.tensor(target)), found, x)
    assert found.names.label_range is None


def test_one_value_for_each_sample_is_not_broadcast():
    x, labels = draw(7, 1), draw(7)
    found = run("(float[N,1] x) => (float[N,1] y) { y = Identity(x) }", {"x": x}, labels)
    target = labels.reshape(7, 1).astype(np.float64)
    against(lambda t, z: t.nn.functional.mse_loss(z, t.tensor(target)), found, x)


def test_mse_is_of_what_the_model_gives():
    x, labels = draw(7, 5), classes(2, 7, 5)
    found = run(SIGMOID, {"x": x}, labels, LossConfig("mse"))
    target = labels.astype(np.float64)
    against(lambda t, z: t.nn.functional.mse_loss(t.sigmoid(z), t.tensor(target)), found, x)


DESCRIPTIONS = [
    (SCORES, classes(5, 7), "cross-entropy on output 'y'"),
    (SOFTMAX, classes(5, 7), "cross-entropy on the input of Softmax 'y'"),
    (LOG_SOFTMAX, classes(5, 7), "cross-entropy on the input of LogSoftmax 'y'"),
    (UNIT, classes(2, 7), "binary cross-entropy on the input of Sigmoid 'y'"),
    (SIGMOID, classes(5, 7), "binary cross-entropy on the input of Sigmoid 'y', one unit per"),
    (SIGMOID, draw(7, 5), "binary cross-entropy on the input of Sigmoid 'y'"),
    (SCORES, draw(7, 5), "mean squared error of output 'y'"),
]


@pytest.mark.parametrize(("text", "labels", "start"), DESCRIPTIONS)
def test_description_says_what_was_chosen(text, labels, start):
    assert append(text, labels).description.startswith(start)


def test_description_of_options():
    config = LossConfig(class_weights=WEIGHTS, label_smoothing=0.1)
    found = append(SOFTMAX, classes(5, 7), config).description
    assert found.endswith("'y', class weights, label smoothing 0.1")


def test_inputs_share_the_symbol_of_the_batch():
    proto = model(SOFTMAX)
    values = append(proto, classes(5, 7, 1, dtype=np.int32), LossConfig(distill=True))
    shapes = {
        info.name: [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in proto.graph.input
    }
    assert shapes[values.label_input] == ["N", 1]
    assert shapes["teacher"] == ["N", 5]
    types = {info.name: info.type.tensor_type.elem_type for info in proto.graph.input}
    assert types[values.label_input] == onnx.TensorProto.INT32
    onnx.checker.check_model(proto, full_check=True)


def test_without_labels_or_distillation_nothing_else_is_added():
    proto = model(SCORES)
    values = append(proto, classes(5, 7))
    assert [info.name for info in proto.graph.input] == ["x", "labels"]
    assert values.teachers == {}


# ---- refusals ------------------------------------------------------------------------------

OVER_SAMPLES = SOFTMAX.replace("Softmax", "Softmax<axis=0>")
SINGLE = "(float[N,1] x) => (float[N,1] y) { y = Identity(x) }"
REFUSED = [
    (SCORES, classes(5, 7, 3), "auto", DataError, r"int64 and shape \[N, 3\].*'y' of shape \[N, 5"),
    (SOFTMAX, classes(5, 7, 3), "auto", DataError, "one class number for each row"),
    (SOFTMAX, draw(7), "auto", DataError, "float32 and shape .N. .*class labels are integers"),
    (SCORES, draw(7, 4), "auto", DataError, "one value for each score"),
    (SCORES, classes(5, 7, 5), "auto", DataError, "choose the loss 'mse'"),
    (SCORES, classes(5, 7), "mse", DataError, "one value for each score"),
    (SINGLE, classes(2, 7), "auto", DataError, "binary-cross-entropy"),
    (SINGLE, classes(2, 7), "cross-entropy", UsageError, "choose the loss 'binary-cross-entropy'"),
    (SOFTMAX, classes(2, 7, 5), "binary-cross-entropy", UsageError, "shares of a whole"),
    (OVER_SAMPLES, classes(5, 7, 5), "auto", UsageError, "softmax goes over samples"),
    (SIGMOID, draw(7, 4), "auto", DataError, "0 to 1, for each score"),
    (SCORES, np.array(["a"] * 7), "auto", DataError, "whole numbers or floats"),
    (SCORES, np.ones(7, np.complex64), "l1", DataError, "whole numbers or floats"),
]


@pytest.mark.parametrize(("text", "labels", "name", "error", "words"), REFUSED)
def test_labels_that_do_not_fit(text, labels, name, error, words):
    with pytest.raises(error, match=words):
        append(text, labels, LossConfig(name))


def test_made_up_names_of_sizes_are_not_shown():
    proto = model(SCORES)
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.shape.dim[0].Clear()
    with pytest.raises(DataError, match=r"'y' of shape \[\?, 5\]"):
        append(proto, classes(5, 7, 3))


@pytest.mark.parametrize("name", ["mse", "l1", "binary-cross-entropy"])
def test_explicit_losses_on_raw_outputs(name):
    x, labels = draw(7, 1), classes(2, 7)
    found = run(SINGLE, {"x": x}, labels, LossConfig(name))
    assert found.names.label_range == ((0, 1) if name.startswith("b") else None)
    assert np.isfinite(found.loss)


BAD_CONFIGS = [
    ({"name": "hinge"}, "no loss 'hinge'; choose one of auto, cross-entropy"),
    ({"class_weights": (1.0, -1.0)}, "class weights"),
    ({"class_weights": (0.0, 0.0)}, "class weights"),
    ({"class_weights": (1.0, float("nan"))}, "class weights"),
    ({"class_weights": (1.0, float("inf"))}, "class weights"),
    ({"class_weights": ()}, "class weights"),
    ({"label_smoothing": 1.0}, "label smoothing"),
    ({"label_smoothing": -0.1}, "label smoothing"),
    ({"temperature": 0.0}, "temperature"),
    ({"temperature": float("inf")}, "temperature"),
    ({"distill_weight": 0.0}, "distillation weight"),
    ({"distill_weight": 1.5}, "distillation weight"),
    ({"name": lambda b, outputs, targets: "", "label_smoothing": 0.1}, "loss function"),
]


@pytest.mark.parametrize(("options", "words"), BAD_CONFIGS)
def test_options_without_sense(options, words):
    with pytest.raises(UsageError, match=words):
        LossConfig(**options)


@pytest.mark.parametrize(
    ("text", "labels", "options", "words"),
    [
        (SOFTMAX, classes(5, 7), {"class_weights": (1.0, 2.0)}, "2 class weights and 5 classes"),
        (FREE, classes(5, 7), {"class_weights": (1.0, 2.0)}, "an unknown number of classes"),
        (SCORES, draw(7, 5), {"label_smoothing": 0.1}, "belong to cross-entropy and .* is mse"),
        (SOFTMAX, None, {"label_smoothing": 0.1}, "the loss is distillation"),
        (SOFTMAX, None, {"distill_weight": 0.5}, "there are no labels"),
        (SOFTMAX, classes(5, 7), {"distill_weight": 0.5}, "needs distillation"),
        (SCORES, None, {"name": "cross-entropy", "class_weights": WEIGHTS}, "is distillation"),
    ],
)
def test_options_that_do_not_fit(text, labels, options, words):
    with pytest.raises(UsageError, match=words):
        append(text, labels, LossConfig(**options))


# ---- functions -----------------------------------------------------------------------------


def huber(b, outputs, targets):
    """Pseudo-Huber."""
    gap = b.op("Sub", outputs["y"], targets["labels"])
    root = b.op("Sqrt", b.op("Add", b.op("Mul", gap, gap), b.scalar(1, gap)))
    return b.op("ReduceMean", root, keepdims=0)


def test_function():
    x, labels = draw(7, 5), draw(7, 5, 1)[..., 0]
    found = run(SCORES, {"x": x}, labels, LossConfig(huber))
    target = labels.astype(np.float64)
    against(lambda t, z: ((z - t.tensor(target)) ** 2 + 1).sqrt().mean(), found, x)
    assert found.names.description == "loss function 'huber'"
    assert found.names.teachers == {}


def test_function_gets_what_there_is():
    seen = []

    def keep(b, outputs, targets):
        seen.append((dict(outputs), dict(targets)))
        return b.op("ReduceMean", outputs["y"])  # one element of rank 2

    x = draw(7, 5)
    found = run(SOFTMAX, {"x": x}, None, LossConfig(keep))
    assert found.loss == pytest.approx(0.2)
    values = append(SOFTMAX, classes(5, 7), LossConfig(keep, distill=True))
    assert seen == [
        ({"y": "y"}, {}),
        ({"y": "y"}, {"labels": "labels", "teacher": "teacher"}),
    ]
    assert list(values.teachers.values()) == ["x"]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda b, outputs, targets: outputs["y"], r"of shape \['N', 5\] and a loss is one number"),
        (lambda b, outputs, targets: None, "returned None"),
        (lambda b, outputs, targets: "nothing", "'nothing', which is not the name"),
        (lambda b, outputs, targets: b.constant([1]), "not the name of a float"),
    ],
)
def test_function_has_to_return_a_number(function, words):
    with pytest.raises(UsageError, match=words):
        append(SCORES, classes(5, 7), LossConfig(function))


def test_a_model_with_a_value_named_labels():
    text = "(float[N,5] labels) => (float[N,5] y) { y = Softmax(labels) }"
    with pytest.raises(ModelError, match="'labels'"):
        append(text, classes(5, 7))


def test_the_builder_stays_usable():
    proto = model(SOFTMAX)
    b = GraphBuilder(proto)
    values = append_loss(b, LossConfig(distill=True, distill_weight=1), labels_of(classes(5, 7)))
    used = {name for node in proto.graph.node for name in node.input}
    made = {name for node in proto.graph.node for name in node.output}
    assert made - used == {"y", values.loss, values.correct}
