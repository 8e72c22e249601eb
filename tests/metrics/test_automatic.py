from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import DataError
from onnxprune.metrics.automatic import agreement_metric, choose_metric, ends_in_sigmoid

N = 6
RANDOM = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal((N, *shape)).astype(np.float32)


def classes(top: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, top, (N, *shape))


#: Labels, output, whether a Sigmoid is last: name, number of classes.
CHOICES: dict[str, tuple[np.ndarray, np.ndarray, bool, str, int | None]] = {
    "scores": (classes(5), floats(5), False, "top-1 accuracy", 5),
    "scores of a convolution": (classes(5), floats(5, 1, 1), False, "top-1 accuracy", 5),
    "scores in a row": (classes(5), floats(1, 5), False, "top-1 accuracy", 5),
    "classes": (classes(5), classes(5), False, "top-1 accuracy", None),
    "classes in rows": (classes(5), classes(5, 1), False, "top-1 accuracy", None),
    "pixels": (classes(5, 4, 3), floats(5, 4, 3), False, "pixel accuracy", 5),
    "pixels, classes last": (classes(5, 4, 3), floats(4, 3, 5), False, "pixel accuracy", 5),
    "pixels as classes": (classes(5, 4, 3), classes(5, 4, 3), False, "pixel accuracy", None),
    "square": (classes(4, 4, 4), floats(4, 4, 4), False, "pixel accuracy", 4),
    "tokens": (classes(5, 7), floats(7, 5), False, "token accuracy", 5),
    "probability": (classes(2), floats(1), True, "accuracy at 0.5", 2),
    "logit": (classes(2), floats(1), False, "accuracy at logit 0", 2),
    "logit without an axis": (classes(2, 1), floats(), False, "accuracy at logit 0", 2),
    "several yes or no": (classes(2, 3), floats(3), True, "label accuracy at 0.5", 2),
    "several logits": (classes(2, 3), floats(3), False, "label accuracy at logit 0", 2),
    "targets": (floats(3, 2), floats(3, 2), False, "mean squared error", None),
    "targets of one value": (floats(), floats(1), True, "mean squared error", None),
}
CHOICES["several logits"][0][0] = 1


@pytest.mark.parametrize("case", CHOICES)
def test_choice(case: str) -> None:
    labels, output, sigmoid, name, count = CHOICES[case]
    metric = choose_metric(labels, output, sigmoid=sigmoid)
    assert (metric.name, metric.classes) == (name, count)
    regression = name == "mean squared error"
    assert (metric.better, metric.share) == (("lower", False) if regression else ("higher", True))


@pytest.mark.parametrize("case", CHOICES)
def test_the_best_output_and_a_wrong_entry(case: str) -> None:
    """An output made from the labels is perfect, and each wrong entry counts once."""
    labels, output, sigmoid, _, count = CHOICES[case]
    metric = choose_metric(labels, output, sigmoid=sigmoid)
    if count is None or count == 2:
        perfect = labels.reshape(output.shape).astype(output.dtype)
        perfect = perfect if count is None or sigmoid else 2 * perfect - 1
        wrong = perfect.copy()
        first = wrong.reshape(-1)
        first[0] = first[0] + 1 if count is None else (0.9 if labels.reshape(-1)[0] == 0 else -0.1)
    else:
        last = output.shape[1] != count or case == "scores in a row"
        eye = np.eye(count, dtype=np.float32)
        flat = eye[labels] if last else np.moveaxis(eye[labels], -1, 1)
        perfect = flat.reshape(output.shape)
        wrong = perfect.copy()
        at = [0] * wrong.ndim
        axis = wrong.ndim - 1 if last else 1
        at[axis] = int((labels.reshape(-1)[0] + 1) % count)
        wrong[tuple(at)] = 2
    best, off = metric.values(perfect, labels), metric.values(wrong, labels)
    assert best.size == labels.size
    assert best.mean() == (0 if metric.better == "lower" else 1)
    assert (best.reshape(-1) != off.reshape(-1)).tolist() == [True] + [False] * (labels.size - 1)


def test_mean_squared_error_of_rows_against_columns() -> None:
    labels, output = floats(), floats(1)
    metric = choose_metric(labels, output)
    wanted = np.mean([(output[i, 0] - labels[i]) ** 2 for i in range(N)])
    assert metric.values(output, labels).mean() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("labels", "output", "match"),
    [
        (floats(), floats(5), "floats of shape .6,. for a first output that is float32"),
        (classes(5, 1, 2), floats(5), "whole numbers of shape .6, 1, 2."),
        (classes(5, 2), floats(5), "whole-number classes"),
        (np.eye(5, dtype=np.int64)[classes(5)], floats(5), "of shape .6, 5."),
        (classes(5), np.array(["a"] * N), "first output that is <U1"),
        (classes(5, 2), classes(5), "first output that is int64"),
        (floats(5), classes(5, 5), "floats of shape"),
        (classes(5), floats(5, 2), "of shape .6, 5, 2."),
    ],
)
def test_what_does_not_fit(labels: np.ndarray, output: np.ndarray, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        choose_metric(labels, output, place="'val.npz'")
    assert "'labels' in 'val.npz'" in str(caught.value)


def test_agreement() -> None:
    scores, other = floats(5), floats(5)
    values = agreement_metric(scores).values(other, scores)
    assert values.tolist() == (scores.argmax(1) == other.argmax(1)).tolist()
    numbers = agreement_metric(classes(5))
    assert numbers.values(np.array([1, 2]), np.array([1, 3])).tolist() == [True, False]
    sides = agreement_metric(floats(1), sigmoid=True)
    assert agreement_metric(floats(3, 4), sigmoid=True) == sides
    given = np.array([[0.4], [0.6]]), np.array([[0.1], [0.2]])
    assert sides.values(*given).tolist() == [[True], [False]]
    for metric in (agreement_metric(scores), numbers, sides):
        assert metric.name == "agreement with the unpruned model"
        assert (metric.better, metric.share) == ("higher", True)


@pytest.mark.parametrize("shape", [(1,), (), (3, 4)])
def test_agreement_of_values(shape: tuple[int, ...]) -> None:
    metric = agreement_metric(floats(*shape))
    assert metric.name == "mean squared error against the unpruned model"
    assert (metric.better, metric.share) == ("lower", False)
    a, b = floats(*shape), floats(*shape)
    assert metric.values(a, b).mean() == pytest.approx(np.square(a - b).mean())


def test_outputs_that_cannot_agree() -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        agreement_metric(np.array(["a"]))


@pytest.mark.parametrize(
    ("operators", "ends"),
    [
        (["Sigmoid"], True),
        (["Sigmoid", "Squeeze", "Identity"], True),
        (["Sigmoid", "Relu"], False),
        (["Identity"], False),
    ],
)
def test_a_sigmoid_at_the_end(operators: list[str], ends: bool) -> None:
    nodes = [helper.make_node(kind, [f"v{i}"], [f"v{i + 1}"]) for i, kind in enumerate(operators)]
    x = helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["N", 1])
    y = helper.make_tensor_value_info(f"v{len(nodes)}", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]))
    assert ends_in_sigmoid(model) is ends
