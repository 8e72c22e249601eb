"""Tensor files: what is read is what was written, damage is noticed, files are replaced whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError, OutputError
from onnxprune.training.tensor_file import read_tensors, write_file, write_tensors

ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "bytes": np.arange(5, dtype=np.uint8),
    "nicht/ascii ü": np.ones(2, np.float32),
}
FACTS = {"epoch": 3, "rate": 0.1, "none": None, "names": ["ü", "b"], "rows": [{"loss": 1e-300}]}


def test_arrays_and_facts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.safetensors"
    write_tensors(path, ARRAYS, FACTS)
    arrays, facts = read_tensors(path)
    assert facts == FACTS
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert np.array_equal(arrays[name], array)
    assert [item.name for item in path.parent.iterdir()] == ["state.safetensors"]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tensors(tmp_path / name, ARRAYS, FACTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_tensors(path, ARRAYS, FACTS)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged or was not written by onnxprune"):
            read_tensors(path)
    for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="is damaged or was not written by onnxprune"):
            read_tensors(path)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "other")
    for name in ("other", "missing"):
        with pytest.raises(DataError, match=name):
            read_tensors(tmp_path / name)


class Failing:
    """Stands for `os.fsync` or `os.replace` of a full or vanished disk."""

    def __call__(self, *args: object) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    write_file(path, b"old")
    monkeypatch.setattr(os, where, Failing())
    with pytest.raises(OutputError, match=r"cannot write .*No space left"):
        write_file(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_ctrl_c_during_a_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    write_file(path, b"old")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]


def test_a_folder_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_file(tmp_path / "file" / "state", b"")
