"""Large sparse tensors: positions that stay varints in the file, and pages that are given back."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import payload, sparse
from onnxprune.model.external_data import map_file
from onnxprune.model.load import load
from onnxprune.model.payload import CHUNK, MappedPayload
from onnxprune.model.scattered import StreamedPayload
from onnxprune.model.varint import VarintPayload, decode

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, max_size=50))
def test_varints_of_protobuf_are_decoded(values: list[int]) -> None:
    tensor = TensorProto(int64_data=values)
    body = tensor.SerializeToString()[2 if len(tensor.SerializeToString()) < 130 else 3 :]
    encoded = np.frombuffer(body if values else b"", np.uint8)
    assert decode(encoded).tolist() == values
    found = VarintPayload.of(memoryview(body if values else b""), 0, encoded.size)
    assert found.size == len(values) and found.array().tolist() == values


def test_varints_are_cut_between_numbers() -> None:
    values = np.arange(3 * CHUNK, dtype=np.int64) * 129
    body = TensorProto(int64_data=values.tolist()).SerializeToString()[5:]
    found = VarintPayload.of(memoryview(body), 0, len(body))
    assert np.array_equal(np.concatenate(list(found.chunks())), values)
    assert max(chunk.size for chunk in found.chunks()) <= CHUNK


@pytest.mark.parametrize("body", [b"\x80", b"\x01" + b"\x80" * 20, b"\x80" * 20 + b"\x01"])
def test_varints_without_end_are_refused(body: bytes) -> None:
    with pytest.raises(ModelError, match="damaged"):
        VarintPayload.of(memoryview(body), 0, len(body)).array()


def model(positions: np.ndarray, values: np.ndarray, side: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", side])],
    )
    weight = graph.sparse_initializer.add(dims=[side, side])
    weight.values.CopyFrom(numpy_helper.from_array(values, "w"))
    indices = TensorProto(data_type=TensorProto.INT64, dims=positions.shape)
    indices.int64_data.extend(positions.tolist())
    weight.indices.CopyFrom(indices)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.9])
def test_a_streamed_tensor_is_the_one_in_memory(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, random = 1024, np.random.default_rng(0)
    positions = np.flatnonzero(random.random(side * side) < share)
    values = random.standard_normal(positions.size).astype(np.float32)
    onnx.save_model(model(positions, values, side), tmp_path / "m.onnx")
    dense = np.zeros(side * side, np.float32)
    dense[positions] = values
    monkeypatch.setattr(sparse, "STREAMED", 1)
    read = load(tmp_path / "m.onnx")
    (tensor,) = read.tensors.values()
    found = read.payload(tensor)
    assert isinstance(found, StreamedPayload)
    assert np.array_equal(found.array(), dense)
    chunks = list(found.chunks())
    assert np.array_equal(np.concatenate(chunks), dense)
    assert {chunk.size for chunk in chunks} == {CHUNK}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ((0, 2**20), "has the index 1048576"),
        ((0, -1), "has the index -1"),
        ((1, 0), "element 0 twice"),
    ],
)
def test_damage_is_found_while_streaming(
    change: tuple[int, int], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = np.arange(5000)
    positions[change[0]] = change[1]
    onnx.save_model(model(positions, np.ones(5000, np.float32), 1024), tmp_path / "m.onnx")
    monkeypatch.setattr(sparse, "STREAMED", 1)
    with pytest.raises(ModelError, match=says):
        load(tmp_path / "m.onnx")


def resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    text, inside = Path("/proc/self/smaps").read_text(), False
    for line in text.splitlines():
        if not line.startswith(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("not mapped")


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="no such advice here")
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says what is resident")
def test_pages_of_large_files_are_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.bin"
    values = np.arange(2**22, dtype=np.float32)
    path.write_bytes(values.tobytes())
    whole = MappedPayload(map_file(path), 0, np.dtype(np.float32), values.size)
    for chunk in whole.chunks():
        assert chunk.sum() >= 0
    assert resident(path) > 2**23
    del whole, chunk
    whole = MappedPayload(map_file(path), 0, np.dtype(np.float32), values.size)
    monkeypatch.setattr(payload, "RELEASED", 0)
    monkeypatch.setattr(payload, "STRIDE", 2**20)
    most = 0
    for chunk in whole.chunks():
        assert chunk[-1] == chunk[0] + chunk.size - 1
        most = max(most, resident(path))
    assert most < 2**23
    del chunk
    assert resident(path) == 0
    assert np.array_equal(whole.array(), values)
