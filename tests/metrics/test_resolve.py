from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine as cosine_distance
from sklearn.metrics import top_k_accuracy_score

from onnxprune.errors import DataError, UsageError
from onnxprune.metrics.automatic import choose_metric
from onnxprune.metrics.metric import Metric
from onnxprune.metrics.request import MetricRequest
from onnxprune.metrics.resolve import resolve

RANDOM = np.random.default_rng(5)
SCORES = RANDOM.standard_normal((40, 7)).astype(np.float32)
LABELS = RANDOM.integers(0, 7, 40)


def by_labels(name: str, labels: np.ndarray, output: np.ndarray) -> Metric:
    return resolve(MetricRequest(name), labels, output, reference=False, place="'val.npz'")


def by_reference(name: str, reference: np.ndarray, output: np.ndarray) -> Metric:
    return resolve(MetricRequest(name), reference, output, reference=True)


def mean(metric: Metric, output: np.ndarray, target: np.ndarray) -> float:
    assert metric.values is not None
    return float(metric.values(output, target).mean())


@pytest.mark.parametrize("k", range(1, 7))
def test_top_k_is_that_of_scikit_learn(k: int) -> None:
    metric = by_labels(f"top{k}", LABELS, SCORES)
    want = top_k_accuracy_score(LABELS, SCORES, k=k, labels=range(7))
    assert mean(metric, SCORES, LABELS) == pytest.approx(want, abs=1e-12)
    assert (metric.name, metric.better, metric.share) == (f"top-{k} accuracy", "higher", True)
    assert metric.classes == 7
    for shape in ((40, 7, 1, 1), (40, 1, 7)):
        output = SCORES.reshape(shape)
        other = by_labels(f"top{k}", LABELS, output)
        assert mean(other, output, LABELS) == pytest.approx(want, abs=1e-12)
    column = LABELS[:, None]
    assert mean(by_labels(f"top{k}", column, SCORES), SCORES, column) == pytest.approx(want)


def test_top_k_of_positions() -> None:
    output = RANDOM.standard_normal((4, 6, 3, 5)).astype(np.float32)
    labels = RANDOM.integers(0, 6, (4, 3, 5))
    metric = by_labels("top2", labels, output)
    assert metric.name == "top-2 pixel accuracy"
    flat = np.moveaxis(output, 1, -1).reshape(-1, 6)
    want = top_k_accuracy_score(labels.reshape(-1), flat, k=2, labels=range(6))
    assert mean(metric, output, labels) == pytest.approx(want, abs=1e-12)
    last = np.moveaxis(output, 1, -1)
    assert mean(by_labels("top2", labels, last), last, labels) == pytest.approx(want, abs=1e-12)
    bare, single = labels[:, None], output
    assert mean(by_labels("top2", bare, single), single, bare) == pytest.approx(want, abs=1e-12)


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), min_size=4, max_size=4),
    st.integers(0, 3),
)
def test_top_k_begins_with_top_1_and_grows(row: list[float], label: int) -> None:
    """Equal scores and NaN too: top-1 is argmax, and every further place adds one class."""
    output, labels = np.array([row], np.float32), np.array([label])
    one = mean(choose_metric(labels, output), output, labels)
    found = [mean(by_labels(f"top{k}", labels, output), output, labels) for k in (2, 3)]
    first = mean(by_labels("top1", labels, output), output, labels)
    assert first == one
    if not np.isnan(row[label]):
        assert one <= found[0] <= found[1]
        ahead = sum(not value <= row[label] for value in row)
        ahead += sum(value == row[label] for value in row[:label])
        assert found == [ahead < 2, ahead < 3]
    else:
        assert found == [0, 0]


def test_cosine_is_that_of_scipy() -> None:
    other = RANDOM.standard_normal((40, 7)).astype(np.float32)
    metric = by_reference("cosine", SCORES, other)
    assert metric.values is not None
    want = [1 - cosine_distance(a.astype(float), b) for a, b in zip(SCORES, other, strict=True)]
    np.testing.assert_allclose(metric.values(other, SCORES), want, atol=1e-12)
    assert metric.name == "cosine similarity with the unpruned model"
    assert (metric.better, metric.share) == ("higher", False)


def test_cosine_without_direction() -> None:
    zeros = np.zeros((3, 2), np.float32)
    other = np.array([[0, 0], [1, 2], [np.nan, 0]], np.float32)
    metric = by_reference("cosine", zeros, other)
    assert metric.values is not None
    np.testing.assert_array_equal(metric.values(other, zeros), [1, 0, np.nan])


def test_mse() -> None:
    values = RANDOM.standard_normal((40, 7)).astype(np.float32)
    want = np.square(SCORES.astype(float) - values).mean()
    for metric in (by_labels("mse", values, SCORES), by_reference("mse", values, SCORES)):
        assert mean(metric, SCORES, values) == pytest.approx(want)
        assert (metric.better, metric.share) == ("lower", False)
    counts = RANDOM.integers(0, 9, (40, 1))
    assert mean(by_labels("mse", counts, SCORES[:, :1]), SCORES[:, :1], counts) == pytest.approx(
        np.square(SCORES[:, :1] - counts).mean()
    )


def test_the_other_model_may_have_a_name() -> None:
    metric = resolve(MetricRequest("cosine"), SCORES, SCORES, reference=True, other="'a.onnx'")
    assert metric.name == "cosine similarity with 'a.onnx'"


@pytest.mark.parametrize(
    ("name", "target", "output", "reference", "kind", "words"),
    [
        ("top7", LABELS, SCORES, False, UsageError, "always right where there are 7 classes"),
        ("top2", LABELS % 2, SCORES[:, :1], False, UsageError, "there are 2 classes"),
        ("top2", LABELS, LABELS, False, UsageError, "needs scores of classes"),
        ("top1", SCORES, SCORES, False, DataError, "top1 counts right classes"),
        ("top1", LABELS, SCORES[:, :, None, None].repeat(2, 2), False, DataError, "'labels' in"),
        ("mse", LABELS, SCORES, False, DataError, "mse compares values, but 'labels' in 'val.npz'"),
        ("mse", LABELS, LABELS, True, DataError, "mse compares floats"),
        ("cosine", LABELS, LABELS, True, DataError, "cosine compares floats"),
        ("cosine", SCORES[:, :3], SCORES, True, DataError, "only where their shapes are the same"),
        ("agreement", SCORES[:, :3], SCORES, True, DataError, "shapes are the same"),
    ],
)
def test_refusals(
    name: str,
    target: np.ndarray,
    output: np.ndarray,
    reference: bool,
    kind: type[Exception],
    words: str,
) -> None:
    with pytest.raises(kind) as caught:
        resolve(MetricRequest(name), target, output, reference=reference, place="'val.npz'")
    assert words in str(caught.value)
