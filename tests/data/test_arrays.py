"""Order and content of batches from arrays, whatever they are kept in."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

N = 11
SPEC = [InputSpec("x", np.dtype(np.float32), (None, 3))]
X = np.arange(N * 3, dtype=np.float32).reshape(N, 3)
LABELS = np.arange(N) % 4

Batches = list[dict[str, np.ndarray]]


def npz(folder: Path) -> Any:
    np.savez(folder / "set.npz", x=X, labels=LABELS)
    return folder / "set.npz"


def npy(folder: Path) -> Any:
    np.save(folder / "x.npy", X)
    np.save(folder / "labels.npy", LABELS)
    return folder


def columns(folder: Path) -> Any:
    """Stored column by column."""
    np.save(folder / "x.npy", np.asfortranarray(X))
    np.save(folder / "labels.npy", LABELS)
    return folder


FORMS: dict[str, Callable[[Path], Any]] = {
    "npz": npz,
    "folder": npy,
    "folder, columns": columns,
    "dict": lambda folder: {"x": X, "labels": LABELS},
    "tuple": lambda folder: (X, LABELS),
}


@pytest.fixture(params=FORMS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> BatchSource:
    return open_source(FORMS[request.param](tmp_path), SPEC)


def samples(batches: Batches) -> list[int]:
    """Numbers of the samples, and that inputs and labels belong together."""
    numbers = np.concatenate([batch["x"][:, 0] for batch in batches]).astype(int) // 3
    labels = np.concatenate([batch["labels"] for batch in batches])
    np.testing.assert_array_equal(labels, LABELS[numbers])
    return [int(number) for number in numbers]


def test_in_order(source: BatchSource) -> None:
    batches = list(source.epoch(5, 4, seed=None))
    assert [len(batch["x"]) for batch in batches] == [4, 4, 3]
    assert samples(batches) == list(range(N))
    for batch in batches:
        assert batch["x"].flags.c_contiguous
        assert (batch["x"].dtype, batch["labels"].dtype) == (np.float32, np.int64)


def test_shuffled_order_is_the_documented_one(source: BatchSource) -> None:
    order = np.random.default_rng([7, 2]).permutation(N)
    batches = list(source.epoch(2, 4, seed=7))
    assert samples(batches) == [*sorted(order[:4]), *sorted(order[4:8]), *sorted(order[8:])]
    assert samples(list(source.epoch(2, 4, seed=7))) == samples(batches)
    assert samples(list(source.epoch(3, 4, seed=7))) != samples(batches)
    assert samples(list(source.epoch(2, 4, seed=8))) != samples(batches)


@pytest.mark.parametrize("seed", [None, 7])
def test_skipped_batches_are_the_first(source: BatchSource, seed: int | None) -> None:
    whole = list(source.epoch(1, 4, seed=seed))
    assert samples(list(source.epoch(1, 4, seed=seed, skip=2))) == samples(whole[2:])
    assert list(source.epoch(1, 4, seed=seed, skip=3)) == []


@pytest.mark.parametrize(
    ("size", "drop_last", "sizes"),
    [
        (4, True, [4, 4]),
        (11, True, [11]),
        (12, True, [11]),
        (12, False, [11]),
        (1, False, [1] * 11),
    ],
)
def test_sizes(source: BatchSource, size: int, drop_last: bool, sizes: list[int]) -> None:
    batches = list(source.epoch(0, size, seed=1, drop_last=drop_last))
    assert [len(batch["x"]) for batch in batches] == sizes
    assert source.batches(size, drop_last=drop_last) == len(sizes)


def test_facts(source: BatchSource) -> None:
    assert source.samples == N
    assert source.description.endswith(": 11 samples, labelled")
    facts = source.labels
    assert facts is not None
    assert (facts.dtype, facts.shape, facts.minimum, facts.maximum) == (np.int64, (), 0, 3)


def test_classes_are_required_of_all_labels(
    source: BatchSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.data.arrays.CHUNK", 3)
    source.require_classes(4)
    with pytest.raises(DataError, match=r"is 3 for sample 3 .* 3 classes, 0 to 2"):
        source.require_classes(3)


def test_skipped_batches_of_a_folder_are_not_read(tmp_path: Path) -> None:
    broken = X.copy()
    broken[:8] = np.nan
    np.save(tmp_path / "x.npy", broken)
    source = open_source(tmp_path, SPEC)
    (batch,) = source.epoch(0, 8, seed=None, skip=1)
    np.testing.assert_array_equal(batch["x"], X[8:])


@pytest.mark.parametrize("seed", [None, 0])
def test_mapped_samples_with_nan_are_named_when_read(tmp_path: Path, seed: int | None) -> None:
    broken = X.copy()
    broken[9, 1] = np.inf
    np.save(tmp_path / "x.npy", broken)
    with pytest.raises(DataError, match=r"input 'x' in .* first in sample 9 "):
        list(open_source(tmp_path, SPEC).epoch(0, 4, seed=seed))


def test_a_set_larger_than_memory(tmp_path: Path) -> None:
    rows, width = 4096, 4096  # 64 MB
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, width))
    mapped[:, 0] = np.arange(rows)
    del mapped
    spec = [InputSpec("x", np.dtype(np.float32), (None, width))]
    tracemalloc.start()
    try:
        source = open_source(tmp_path, spec)
        seen = sum(int(batch["x"][:, 0].sum()) for batch in source.epoch(0, 32, seed=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == rows * (rows - 1) // 2
    assert peak < 4 * 2**20  # a batch is half a megabyte


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.array([True, False]), np.int64),
        (np.array([1, 2], np.uint8), np.int64),
        (np.array([1, 2], np.float64), np.float32),
        (np.array([[1], [2]], np.float16), np.float32),
    ],
)
def test_labels_have_one_of_two_types(tmp_path: Path, given: np.ndarray, dtype: type) -> None:
    np.save(tmp_path / "x.npy", X[:2])
    np.save(tmp_path / "labels.npy", given)
    for data in (tmp_path, (X[:2], given)):
        source = open_source(data, SPEC)
        (batch,) = source.epoch(0, 8, seed=None)
        assert source.labels is not None
        assert source.labels.dtype == batch["labels"].dtype == dtype
        assert source.labels.shape == given.shape[1:]
        np.testing.assert_array_equal(batch["labels"], given)


def test_bfloat16_comes_in_three_forms(tmp_path: Path) -> None:
    spec = [InputSpec("x", np.dtype(ml_dtypes.bfloat16), (None, 3))]
    exact = X.astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "set.npz", x=exact)  # comes back as plain bytes
    for data in (tmp_path / "set.npz", exact, X):
        (batch,) = open_source(data, spec).epoch(0, N, seed=None)
        assert batch["x"].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(batch["x"], exact)
    with pytest.raises(DataError, match="NaN"):
        open_source((exact * np.nan).astype(ml_dtypes.bfloat16), spec)
    with pytest.raises(DataError, match="float64"):
        open_source(X.astype(np.float64), spec)


def test_several_inputs_and_text() -> None:
    specs = [InputSpec("a", np.dtype(object), (None,)), InputSpec("b", np.dtype(np.int32), None)]
    words, numbers = np.array(["one", "two"]), np.zeros((2, 5, 5), np.int32)
    for data in ({"b": numbers, "a": words}, (words, numbers)):
        (batch,) = open_source(data, specs).epoch(0, 2, seed=None)
        assert batch["a"].tolist() == ["one", "two"]
        assert batch["b"].shape == (2, 5, 5)
