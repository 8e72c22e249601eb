"""Weights and samples in other files, and sparse weights: damaged or hostile ones are refused."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, numpy_helper

from onnxprune.cli import main
from tests.builders import mlp, saved
from tests.refusal import refused

Capture = pytest.CaptureFixture[str]

FEATURES, CLASSES, SAMPLES = 24, 10, 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with external data in a folder that has neighbours."""
    inside = tmp_path / "models"
    inside.mkdir()
    saved(mlp((FEATURES, 40, CLASSES)), inside / "m.onnx", external=True)
    return inside


def relocate(folder: Path, **entries: str) -> None:
    """Give the first weight other external-data entries."""
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in kept.items():
        tensor.external_data.add(key=key, value=value)
    onnx.save(model, folder / "m.onnx")


def missing(folder: Path) -> None:
    (folder / "m.onnx.bin").unlink()


def short(folder: Path) -> None:
    data = (folder / "m.onnx.bin").read_bytes()
    (folder / "m.onnx.bin").write_bytes(data[:100])


def emptied(folder: Path) -> None:
    (folder / "m.onnx.bin").write_bytes(b"")


def replaced_by_folder(folder: Path) -> None:
    (folder / "m.onnx.bin").unlink()
    (folder / "m.onnx.bin").mkdir()


def replaced_by_pipe(folder: Path) -> None:
    (folder / "m.onnx.bin").unlink()
    os.mkfifo(folder / "m.onnx.bin")


def replaced_by_link(folder: Path) -> None:
    (folder / "m.onnx.bin").rename(folder.parent / "elsewhere.bin")
    (folder / "m.onnx.bin").symlink_to("../elsewhere.bin")


def in_a_linked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (folder / "m.onnx.bin").rename(outside / "m.onnx.bin")
    (folder / "inside").symlink_to(outside, target_is_directory=True)
    relocate(folder, location="inside/m.onnx.bin")


def at(**entries: str) -> Callable[[Path], None]:
    return lambda folder: relocate(folder, **entries)


EXTERNAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (missing, "does not exist"),
    "short": (short, "copy the whole data file"),
    "empty": (emptied, "has 0 bytes"),
    "folder": (replaced_by_folder, "not a regular file"),
    "pipe": (replaced_by_pipe, "not a regular file"),
    "link": (replaced_by_link, "symbolic link"),
    "linked folder": (in_a_linked_folder, "symbolic link"),
    "absolute": (at(location="/etc/passwd"), "absolute path"),
    "windows": (at(location="C:\\windows\\system.ini"), "absolute path"),
    "outside": (at(location="../m.bin"), "outside the model's folder"),
    "outside and back": (at(location="../models/m.onnx.bin"), "outside the model's folder"),
    "deeper": (at(location="a/../../m.bin"), "outside the model's folder"),
    "no location": (at(location=""), "no file name"),
    "NUL": (at(location="m\0.bin"), "no file name"),
    "escape": (at(location="\x1b[2J"), "does not exist"),
    "our own prefix": (at(location="onnxprune-payload:0"), "does not exist"),
    "negative offset": (at(offset="-4"), "no number of bytes"),
    "offset beyond": (at(offset=str(2**50)), "copy the whole data file"),
    "offset in words": (at(offset="four"), "no number of bytes"),
    "other length": (at(length="4"), "its shape needs"),
    "absurd length": (at(length="9" * 400), "no number of bytes"),
}


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
@pytest.mark.parametrize("case", EXTERNAL)
def test_external_data(case: str, folder: Path, capsys: Capture) -> None:
    spoil, words = EXTERNAL[case]
    spoil(folder)
    sentence = refused([str(folder / "m.onnx")], folder.parent, capsys)
    assert words in sentence
    assert "fc0.weight" in sentence


def test_our_own_prefix_is_no_way_to_other_tensors(tmp_path: Path, capsys: Capture) -> None:
    model = mlp((24, 40, 24))  # both weights have the same size
    second = model.graph.initializer[2]
    second.ClearField("raw_data")
    second.data_location = onnx.TensorProto.EXTERNAL
    second.external_data.add(key="location", value="onnxprune-payload:0")
    path = saved(model, tmp_path / "m.onnx")
    assert "does not exist" in refused([str(path)], tmp_path, capsys)


def sparse(values: list[float], indices: Any, dims: list[int]) -> SparseTensorProto:
    return SparseTensorProto(
        values=numpy_helper.from_array(np.array(values, np.float32), "fc0.weight"),
        indices=numpy_helper.from_array(np.array(indices)),
        dims=dims,
    )


SHAPE = [40, 24]
SPARSE: dict[str, tuple[SparseTensorProto, str]] = {
    "beyond the end": (sparse([1, 2], [0, 960], SHAPE), "index 960 where only 960 fit"),
    "negative": (sparse([1, 2], [-1, 5], SHAPE), "index -1"),
    "twice": (sparse([1, 2], [5, 5], SHAPE), "element 5 twice"),
    "twice, apart": (sparse([1, 2, 3], [5, 6, 5], SHAPE), "element 5 twice"),
    "too few indices": (sparse([1, 2], [5], SHAPE), "2 values and 1 indices"),
    "too many indices": (sparse([1], [5, 6], SHAPE), "1 values and 2 indices"),
    "coordinates beyond": (sparse([1], [[40, 0]], SHAPE), "index 40 where only 40 fit"),
    "coordinates of three axes": (sparse([1], [[1, 1, 1]], SHAPE), "1 values and 1x3 indices"),
    "fractions": (sparse([1], [0.5], SHAPE), "indices of type"),
    "negative shape": (sparse([1], [5], [-40, 24]), "negative dimension"),
    "absurd shape": (sparse([1], [5], [2**62, 2**62]), "claims the shape"),
    "absurd size": (sparse([1], [5], [2**20, 2**20]), "claims the shape"),
}


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_weights(case: str, tmp_path: Path, capsys: Capture) -> None:
    tensor, words = SPARSE[case]
    model = mlp((24, 40, 10))
    del model.graph.initializer[0]
    model.graph.sparse_initializer.append(tensor)
    path = saved(model, tmp_path / "m.onnx")
    sentence = refused([str(path)], tmp_path, capsys)
    assert words in sentence
    assert "fc0.weight" in sentence


def test_unsorted_sparse_weights_are_read(tmp_path: Path, capsys: Capture) -> None:
    model = mlp((24, 40))
    del model.graph.initializer[0]
    model.graph.sparse_initializer.append(sparse([1, 2, 3], [9, 5, 700], SHAPE))
    path = saved(model, tmp_path / "m.onnx")
    assert main([str(path), "-q", "0", "--format", "dense", "--quiet"]) == 0
    (weight,) = (
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "m.pruned.onnx").graph.initializer
        if tensor.name == "fc0.weight"
    )
    assert weight.reshape(-1)[[5, 9, 700]].tolist() == [2, 1, 3]
    assert np.count_nonzero(weight) == 3


INPUTS = np.zeros((SAMPLES, FEATURES), np.float32)
LABELS = np.zeros(SAMPLES, np.int64)


def npz(**arrays: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def members(**files: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def claiming(rows: int) -> bytes:
    """An .npy that says it has many rows and holds none."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {FEATURES}), }}"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def patched(offset: int, new: bytes) -> bytes:
    """Compressed samples with a few bytes overwritten, counted from the archive's directory."""
    data = npz(x=np.random.default_rng(0).random((SAMPLES, FEATURES), np.float32), labels=LABELS)
    at = data.index(b"PK\x01\x02") + offset if offset >= 0 else data.index(b"x.npy") - offset
    return data[:at] + new + data[at + len(new) :]


VAL: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "text": b"inputs and labels",
    "half an array": b"\x93NUMPY\x01\x00",
    "objects": npz(x=np.array([{}], object), labels=LABELS),
    "no inputs": npz(labels=LABELS),
    "fewer labels": npz(x=INPUTS, labels=LABELS[1:]),
    "no samples": npz(x=INPUTS[:0], labels=LABELS[:0]),
    "labels of fractions": npz(x=INPUTS, labels=LABELS + 0.5),
    "labels in pairs": npz(x=INPUTS, labels=np.stack([LABELS, LABELS], axis=1)),
    "another type": npz(x=INPUTS.astype(np.float64), labels=LABELS),
    "another width": npz(x=INPUTS[:, :3], labels=LABELS),
    "a number": npz(x=np.array(np.float32(1)), labels=LABELS),
    "NaN": npz(x=INPUTS * np.nan, labels=LABELS),
    "several others": npz(a=INPUTS, b=INPUTS, labels=LABELS),
    "one too many": npz(x=INPUTS, y=LABELS, labels=LABELS),
    "more classes": npz(x=INPUTS, labels=LABELS + CLASSES),
    "negative classes": npz(x=INPUTS, labels=LABELS - 1),
    "infinite targets": npz(x=INPUTS, labels=np.full((SAMPLES, CLASSES), np.inf)),
    "members that are no arrays": members(x=b"", labels=b"none"),
    "more rows than exist": members(x=claiming(2**40), labels=claiming(2**40)),
    "absurd rows": members(x=claiming(2**62), labels=claiming(1)),
    "negative rows": members(x=claiming(-5), labels=claiming(1)),
    "cut short": patched(0, b"")[:900],
    "damaged stream": patched(-100, b"\xff" * 400),
    "encrypted": patched(8, b"\x01"),
    "unknown compression": patched(10, b"\x63"),
}


@pytest.mark.parametrize("case", VAL)
def test_samples(case: str, tmp_path: Path, capsys: Capture) -> None:
    data = VAL[case]
    if data is not None:
        (tmp_path / "val.npz").write_bytes(data)
    path = saved(mlp((FEATURES, 40, CLASSES)), tmp_path / "m.onnx")
    sentence = refused([str(path), "--val", str(tmp_path / "val.npz")], tmp_path, capsys)
    assert "val.npz" in sentence


def npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


#: Contents of x.npy in a folder with good labels; None for a pipe.
FOLDER: dict[str, bytes | None] = {
    "empty": b"",
    "text": b"inputs",
    "half an array": b"\x93NUMPY\x01\x00",
    "an archive": npz(x=INPUTS),
    "objects": npy(np.array([{}] * SAMPLES, object)),
    "fewer samples": npy(INPUTS[1:]),
    "no samples": npy(INPUTS[:0]),
    "another type": npy(INPUTS.astype(np.float64)),
    "another width": npy(INPUTS[:, :3]),
    "a number": npy(np.array(np.float32(1))),
    "NaN": npy(INPUTS * np.nan),
    "more rows than exist": claiming(2**40),
    "absurd rows": claiming(2**62),
    "negative rows": claiming(-5),
    "cut short": npy(INPUTS)[:-1],
    "a pipe": None,
}


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
@pytest.mark.parametrize("case", FOLDER)
def test_samples_in_a_folder(case: str, tmp_path: Path, capsys: Capture) -> None:
    data = FOLDER[case]
    path = saved(mlp((FEATURES, 40, CLASSES)), tmp_path / "m.onnx")
    folder = tmp_path / "val"
    folder.mkdir()
    np.save(folder / "labels.npy", LABELS)
    if data is None:
        target = tmp_path.with_name(f"{tmp_path.name}.pipe")
        os.mkfifo(target)
        (folder / "x.npy").symlink_to(target)
    else:
        (folder / "x.npy").write_bytes(data)
    assert "val" in refused([str(path), "--val", str(folder)], tmp_path, capsys)


def test_places_without_samples(tmp_path: Path, capsys: Capture) -> None:
    path = saved(mlp((FEATURES, 40, CLASSES)), tmp_path / "m.onnx")
    for place in (str(tmp_path), os.devnull):
        assert place in refused([str(path), "--val", place], tmp_path, capsys)


def test_functions_that_give_no_samples(tmp_path: Path, capsys: Capture) -> None:
    path = saved(mlp((FEATURES, 40, CLASSES)), tmp_path / "m.onnx")
    for function in ("no_such_module_here:val", "os:no_such_function", "os:getcwd", "os:sep"):
        name = function.partition(":")[0]
        assert name in refused([str(path), "--val", function], tmp_path, capsys)
