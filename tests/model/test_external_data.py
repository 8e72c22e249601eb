from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import ModelError
from onnxprune.model.external_data import ExternalFiles


def external(location: str, count: int = 4, **entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[count])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "model"
    (inside / "deep").mkdir(parents=True)
    np.arange(8, dtype=np.float32).tofile(inside / "w.bin")
    np.arange(8, dtype=np.float32).tofile(inside / "deep" / "w.bin")
    np.arange(8, dtype=np.float32).tofile(tmp_path / "secret.bin")
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "deeplink").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(inside / "fifo")
    (inside / "empty").touch()
    return inside


@pytest.mark.parametrize("location", ["w.bin", "deep/w.bin", "./w.bin"])
def test_reads_a_slice(folder: Path, location: str) -> None:
    payload = ExternalFiles(folder).payload(external(location, offset="8", length="16"))
    np.testing.assert_array_equal(payload.array(), [2, 3, 4, 5])


def test_unaligned_offsets_are_read(folder: Path) -> None:
    data = b"\x01" + np.arange(4, dtype=np.float32).tobytes()
    (folder / "odd.bin").write_bytes(data)
    payload = ExternalFiles(folder).payload(external("odd.bin", offset="1"))
    np.testing.assert_array_equal(np.concatenate(list(payload.chunks())), np.arange(4))


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("/etc/hostname", "an absolute path"),
        ("C:\\secret.bin", "an absolute path"),
        ("../secret.bin", "outside the model's folder"),
        ("deep/../../secret.bin", "outside the model's folder"),
        ("..\\secret.bin", "outside the model's folder"),
        ("link.bin", "a symbolic link"),
        ("deeplink/secret.bin", "a symbolic link"),
        ("fifo", "not a regular file"),
        ("deep", "not a regular file"),
        ("absent.bin", "does not exist"),
        ("", "no file name"),
        ("w.bin\0", "no file name"),
    ],
)
def test_unsafe_locations_are_refused(folder: Path, location: str, why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        ExternalFiles(folder).payload(external(location))
    assert "'w'" in str(caught.value)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"offset": "20"}, "ends at byte 36 but 'w.bin' has 32 bytes"),
        ({"length": "12"}, "12 bytes where its shape needs 16"),
        ({"offset": "-4"}, "no number"),
        ({"offset": "1e3"}, "no number"),
        ({"offset": "9" * 30}, "no number"),
        ({"length": "x"}, "no number"),
    ],
)
def test_bad_ranges_are_refused(folder: Path, entries: dict[str, str], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        ExternalFiles(folder).payload(external("w.bin", **entries))


def test_short_and_empty_files_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="copy the whole data file"):
        ExternalFiles(folder).payload(external("empty"))


def test_a_model_in_memory_has_no_folder() -> None:
    with pytest.raises(ModelError, match="handed over in memory"):
        ExternalFiles(None).payload(external("w.bin"))


def test_absurd_shapes_are_refused(folder: Path) -> None:
    tensor = external("w.bin")
    tensor.dims[:] = [2**40, 2**40]
    with pytest.raises(ModelError):
        ExternalFiles(folder).payload(tensor)
    tensor.dims[:] = [-1]
    with pytest.raises(ModelError, match="negative"):
        ExternalFiles(folder).payload(tensor)


def test_onnx_writes_what_we_read(folder: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.arange(512, dtype=np.float32), "w")
    graph = helper.make_graph([helper.make_node("Relu", ["w"], ["y"])], "g", [], [], [weights])
    path = folder / "m.onnx"
    onnx.save_model(helper.make_model(graph), path, save_as_external_data=True, location="m.data")
    (tensor,) = onnx.load(path, load_external_data=False).graph.initializer
    np.testing.assert_array_equal(ExternalFiles(folder).payload(tensor).array(), np.arange(512))
