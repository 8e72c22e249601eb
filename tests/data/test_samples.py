from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.data.samples import InputSpec, read_samples
from onnxprune.errors import DataError

SPEC = [InputSpec("x", np.dtype(np.float32), (None, 3))]
GOOD = np.zeros((4, 3), np.float32)
LABELS = np.arange(4)


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "val.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", ["x", "anything"])
def test_reads_inputs_and_labels(tmp_path: Path, name: str) -> None:
    samples = read_samples(npz(tmp_path, labels=LABELS, **{name: GOOD}), SPEC)
    batches = list(samples.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 1]
    assert all(set(feeds) == {"x"} for feeds, _ in batches)


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": GOOD}, "no array 'labels'"),
        ({"labels": LABELS}, "no array for the model's input 'x'"),
        ({"labels": LABELS, "a": GOOD, "b": GOOD}, "it has: 'a', 'b'"),
        ({"labels": LABELS[:2], "x": GOOD}, "4 samples in 'x' but 2 labels"),
        ({"labels": LABELS.astype(float), "x": GOOD}, "whole-number classes"),
        ({"labels": LABELS[:0], "x": GOOD[:0]}, "non-empty"),
        ({"labels": LABELS, "x": GOOD.astype(float)}, "float64 of shape 4x3; the model wants "),
        ({"labels": LABELS, "x": GOOD[:, :2]}, "float32 of shape 4x2; the model wants "),
        ({"labels": LABELS, "x": GOOD + np.nan}, "NaN"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_samples(npz(tmp_path, **arrays), SPEC)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "single.npy", GOOD)
    np.savez(tmp_path / "pickled.npz", labels=LABELS, x=np.array([object()]))
    for name in ("absent.npz", "text.npz", "single.npy", "pickled.npz"):
        with pytest.raises(DataError) as caught:
            read_samples(tmp_path / name, SPEC)
        assert name in str(caught.value)
