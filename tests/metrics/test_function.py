from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from onnxprune.errors import DataError, UsageError
from onnxprune.evaluation import Meter
from onnxprune.metrics.function import function_metric
from onnxprune.metrics.metric import Tally
from onnxprune.metrics.request import MetricRequest
from onnxprune.model.sources import read
from tests.builders import mlp

CODE = """
import numpy as np

def f1(outputs, labels):
    guesses = outputs.argmax(axis=1) == 1
    return 2 * (guesses & (labels == 1)).sum() / (guesses.sum() + (labels == 1).sum())
f1.better, f1.share = "higher", True

def count(outputs, labels): return len(outputs) + len(labels)

def text(outputs, labels): return "0.5"
def nothing(outputs, labels): pass
def missing(outputs, labels): return float("nan")
def wrong(outputs, labels): raise KeyError("what")
def leaves(outputs, labels): raise SystemExit("gone")
for function in (text, nothing, missing, wrong, leaves): function.better = "lower"
odd = count
number = 5
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yardstick.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "yardstick", raising=False)


RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((150, 24)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 150)


def test_a_function_sees_all_samples_at_once() -> None:
    """F1 of all samples is no mean over batches: scikit-learn's is that of all."""
    model = mlp((24, 16, 3))
    meter = Meter((X, LABELS), request=MetricRequest("yardstick:f1"))
    value = meter(read(model))
    weights = {t.name: np.asarray(read(model).array(t)) for t in model.graph.initializer}
    hidden = np.maximum(X @ weights["fc0.weight"].T + weights["fc0.bias"], 0)
    guesses = (hidden @ weights["fc1.weight"].T + weights["fc1.bias"]).argmax(1)
    assert value == pytest.approx(f1_score(LABELS == 1, guesses == 1), abs=1e-12)
    assert (meter.metric, meter.better, meter.share) == ("yardstick:f1", "higher", True)
    assert meter.samples == 150


def test_without_labels_it_compares_with_the_unpruned_model() -> None:
    seen: list[Any] = []

    def distance(outputs: np.ndarray, targets: np.ndarray) -> float:
        seen.append((outputs.shape, targets.shape))
        return float(np.abs(outputs - targets).max())

    model = read(mlp((24, 16, 3)))
    meter = Meter(X, reference=model, request=MetricRequest(distance, "lower"))
    assert meter(model) == 0
    assert meter(read(mlp((24, 16, 3), seed=1))) > 0
    assert seen == [((150, 3), (150, 3))] * 2
    assert (meter.metric, meter.better, meter.share) == ("distance", "lower", False)


def test_a_function_gets_every_output() -> None:
    model = mlp((24, 16, 3))
    hidden = model.graph.output.add()
    hidden.name = "a0"

    def shapes(outputs: Any, labels: np.ndarray) -> float:
        assert [output.shape for output in outputs] == [(150, 3), (150, 16)]
        return 1.0

    assert Meter((X, LABELS), request=MetricRequest(shapes, "higher"))(read(model)) == 1


def test_a_named_function_travels_by_its_name() -> None:
    metric = function_metric("yardstick:f1", None)
    assert metric.whole is not None
    copy = pickle.loads(pickle.dumps(metric))
    assert copy == metric
    scores = RANDOM.standard_normal((30, 3))
    assert copy.whole(scores, LABELS[:30]) == metric.whole(scores, LABELS[:30])


def test_attributes_and_flag() -> None:
    assert function_metric("yardstick:text", None).better == "lower"
    assert function_metric("yardstick:text", "higher").better == "higher"
    assert not function_metric("yardstick:text", None).share


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ("yardstick:odd", UsageError, "'yardstick:odd' does not say which way is up: add"),
        (lambda a, b: 0, UsageError, "does not say which way is up"),
        ("yardstick:number", DataError, "name a function of outputs and labels"),
        ("yardstick:absent", DataError, "'yardstick' has no 'absent'"),
        ("nowhere:f", DataError, "cannot import 'nowhere'"),
    ],
)
def test_refusals_before_any_work(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        Meter((X, LABELS), request=MetricRequest(given))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("text", "the metric 'yardstick:text' returned '0.5'; it must return one finite number"),
        ("nothing", "returned None"),
        ("missing", "returned nan"),
        ("wrong", "the metric 'yardstick:wrong' failed with KeyError ('what')"),
        ("leaves", "failed with SystemExit (gone)"),
    ],
)
def test_results_that_are_none(name: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        Meter((X, LABELS), request=MetricRequest(f"yardstick:{name}"))(read(mlp((24, 16, 3))))
    assert words in str(caught.value)


def test_outputs_of_different_sizes() -> None:
    tally = Tally(function_metric(lambda a, b: 0, "higher"), "the data")
    tally.add([np.zeros((3, 2))], [np.zeros(3)])
    tally.add([np.zeros((3, 4))], [np.zeros(3)])
    with pytest.raises(DataError, match="do not fit together"):
        tally.measured()
