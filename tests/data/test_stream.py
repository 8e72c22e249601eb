"""Batches from Python iterables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

SPEC = [InputSpec("x", np.dtype(np.float32), (None, 3))]
X = np.arange(24, dtype=np.float32).reshape(8, 3)
LABELS = np.arange(8) % 3
PARTS = [(X[:3], LABELS[:3]), (X[3:5], LABELS[3:5]), (X[5:], LABELS[5:])]


def generator() -> Iterator[Any]:
    yield from PARTS


def inputs(source: BatchSource, number: int = 0, **options: Any) -> list[np.ndarray]:
    return [batch["x"] for batch in source.epoch(number, 64, seed=0, **options)]


FORMS: dict[str, Any] = {
    "tuples": PARTS,
    "lists": [list(part) for part in PARTS],
    "dicts": [{"x": x, "labels": y} for x, y in PARTS],
    "function": generator,
    "tuple of batches": tuple(PARTS),
}


@pytest.mark.parametrize("form", FORMS)
def test_own_sizes_and_order_in_every_epoch(form: str) -> None:
    source = open_source(FORMS[form], SPEC, labelled=True)
    for number in range(3):
        got = list(source.epoch(number, 64, seed=0))
        assert [len(batch["labels"]) for batch in got] == [3, 2, 3]
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in got]), X)
        np.testing.assert_array_equal(np.concatenate([b["labels"] for b in got]), LABELS)
    assert source.samples is None
    assert source.labels is not None
    assert (source.labels.dtype, source.labels.shape) == (np.int64, ())
    assert source.labels.maximum is None
    assert source.batches(64) == (None if form == "function" else 3)
    assert source.description.endswith(": batches in their own size and order, labelled")


def test_skipped_batches_are_taken_and_dropped() -> None:
    for number in range(2):
        source = open_source(PARTS, SPEC)
        for _ in range(number):
            inputs(source)
        np.testing.assert_array_equal(np.concatenate(inputs(source, number, skip=1)), X[3:])


def test_an_iterator_lasts_for_one_epoch() -> None:
    source = open_source(generator(), SPEC)
    assert len(inputs(source)) == 3
    with pytest.raises(DataError, match="the given generator gives its batches only once"):
        source.epoch(1, 64, seed=0)


def test_a_function_that_always_returns_the_same_iterator() -> None:
    one = generator()
    source = open_source(lambda: one, SPEC)
    assert len(inputs(source)) == 3
    with pytest.raises(DataError, match="no batches in a later epoch"):
        inputs(source, 1)


def test_unlabelled_batches() -> None:
    for given in ([X[:3], X[3:]], [(X,)], [[X]], [{"x": X}]):
        source = open_source(given, SPEC)
        assert source.labels is None
        np.testing.assert_array_equal(np.concatenate(inputs(source)), X)


def test_the_first_batch_decides_about_labels() -> None:
    got = open_source([(X,), (X, LABELS)], SPEC).epoch(0, 64, seed=None)
    assert [set(batch) for batch in got] == [{"x"}, {"x"}]
    with pytest.raises(DataError, match="batch 1 of the given list has no 'labels'"):
        inputs(open_source([(X, LABELS), (X,)], SPEC))


def test_classes_are_required_of_every_batch() -> None:
    source = open_source(PARTS, SPEC)
    source.require_classes(2)
    epoch = source.epoch(0, 64, seed=0)
    with pytest.raises(DataError, match=r"'labels' in batch 0 .* is 2 for sample 2"):
        next(epoch)


NAN = np.where(X == 7, np.float32(np.nan), X)


def failing() -> Iterator[Any]:
    yield PARTS[0]
    raise RuntimeError("worker\ndied")


REFUSED: dict[str, tuple[Any, str]] = {
    "nothing": ([], "the given list gave no batches"),
    "an empty batch": ([(X[:0], LABELS[:0])], "batch 0 of the given list holds no samples"),
    "another type": ([PARTS[0], (X.astype(float), LABELS)], "'x' in batch 1 of .* is float64"),
    "another width": ([PARTS[0], (X[:, :2], LABELS)], "'x' in batch 1 of .* of shape 8x2"),
    "NaN": (
        [PARTS[0], (NAN, LABELS)],
        "'x' in batch 1 .* holds NaN or infinity, first in sample 2",
    ),
    "fewer labels": ([(X, LABELS[:2])], "batch 0 .* has 8 samples in 'x' but 2 labels"),
    "no labels": ([(X,)], "batch 0 of the given list has no 'labels'"),
    "labels missing later": ([PARTS[0], (X,)], "batch 1 of the given list has no 'labels'"),
    "unknown names": ([{"x": X, "labels": LABELS, "id": LABELS}], "no input of the model: 'id'"),
    "too many": ([(X, LABELS, LABELS)], "batch 0 of the given list has 3 arrays"),
    "a number": ([7], "batch 0 of the given list is of type int; batches are dicts"),
    "text": ([(X, ["a"] * 8)], "'labels' in batch 0 of the given list is <U1"),
    "a function that fails": (failing, "failed with RuntimeError .worker died."),
    "a function without batches": (lambda: 7, "gave a value of type int; it must give an iterable"),
    "a function with arguments": (lambda path: [path], "failed with TypeError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_batches_that_are_refused(case: str) -> None:
    given, match = REFUSED[case]
    with pytest.raises(DataError, match=match):
        list(open_source(given, SPEC, labelled=True).epoch(0, 64, seed=0))


# ---- torch ---------------------------------------------------------------------------------


def test_a_torch_data_loader() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(LABELS))
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    source = open_source(loader, SPEC, labelled=True)
    assert source.description.startswith("DataLoader: batches in their own size")
    assert source.batches(64) == 3
    for number in range(2):
        seen = []
        for batch in source.epoch(number, 64, seed=0):
            assert (type(batch["x"]), type(batch["labels"])) == (np.ndarray, np.ndarray)
            rows = batch["x"][:, 0].astype(int) // 3
            np.testing.assert_array_equal(batch["labels"], LABELS[rows])
            seen += rows.tolist()
        assert sorted(seen) == list(range(8))
    with pytest.raises(DataError, match=r"TensorDataset cannot be iterated.*DataLoader"):
        open_source(data, SPEC)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X).requires_grad_()
    for given in ((x, torch.from_numpy(LABELS)), [(x, torch.from_numpy(LABELS))]):
        (batch,) = open_source(given, SPEC, labelled=True).epoch(0, 64, seed=None)
        np.testing.assert_array_equal(batch["x"], X)
    (batch,) = open_source([x.to(torch.bfloat16)], SPEC).epoch(0, 64, seed=None)
    np.testing.assert_array_equal(batch["x"], X)
    with pytest.raises(DataError, match="is float64"):
        open_source(x.double(), SPEC)
