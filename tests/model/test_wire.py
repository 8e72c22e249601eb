from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model.payload import ArrayPayload
from onnxprune.model.wire import join, split


def tensor(name: str, values: np.ndarray, *, raw: bool) -> TensorProto:
    if raw:
        return numpy_helper.from_array(values, name)
    return helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape,
                              values.reshape(-1).tolist())  # fmt: skip


def model_with(tensors: list[TensorProto], depth: int = 0) -> onnx.ModelProto:
    """A model whose tensors are initializers, Constant values and initializers of nested bodies."""
    nodes = [helper.make_node("Constant", [], [f"c_{t.name}"], value=t) for t in tensors]
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    for _ in range(depth):
        wrapped = helper.make_node("If", ["flag"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([wrapped], "outer", [], [], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def restored(data: bytes, smallest: int) -> bytes:
    skeleton, slices = split(memoryview(data), smallest)
    payloads = {
        key: ArrayPayload(np.frombuffer(data, np.uint8, piece.length, piece.offset))
        for key, piece in slices.items()
    }
    joined = join(skeleton, payloads)
    result = b"".join(joined.blocks())
    assert len(result) == joined.size
    return result


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), max_size=4),
    smallest=st.sampled_from([1, 16, 500, 10_000]),
    depth=st.integers(0, 3),
)
def test_join_undoes_split(sizes: list[int], smallest: int, depth: int) -> None:
    random = np.random.default_rng(0)
    tensors = [
        tensor(f"t{i}", random.standard_normal(size).astype(np.float32), raw=True)
        for i, size in enumerate(sizes)
    ]
    model = model_with(tensors, depth)
    data = model.SerializeToString()
    assert onnx.ModelProto.FromString(restored(data, smallest)) == model


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_typed_fields_become_raw_data(dtype: type) -> None:
    values = np.arange(50, dtype=dtype)
    data = model_with([tensor("w", values, raw=False)]).SerializeToString()
    result = onnx.ModelProto.FromString(restored(data, 1)).graph.initializer[0]
    assert result.HasField("raw_data")
    np.testing.assert_array_equal(numpy_helper.to_array(result), values)


def test_fields_that_are_not_element_bytes_stay() -> None:
    values = np.arange(50, dtype=np.int64)
    data = model_with([tensor("w", values, raw=False)]).SerializeToString()
    _, slices = split(memoryview(data), 1)
    assert not slices


def test_skeleton_is_small_and_bytes_are_not_copied() -> None:
    data = model_with([tensor("w", np.ones(100_000, np.float32), raw=True)]).SerializeToString()
    skeleton, slices = split(memoryview(data))
    assert len(skeleton) < 1000
    assert {piece.length for piece in slices.values()} == {400_000}


def test_unknown_fields_survive() -> None:
    model = model_with([tensor("w", np.ones(600, np.float32), raw=True)])
    data = model.SerializeToString() + b"\xc2\x3e\x03abc"  # field 1000, not in onnx.proto
    assert b"\xc2\x3e\x03abc" in restored(data, 1)


@pytest.mark.parametrize("cut", [1, 7, 100, 2000])
def test_truncated_file_is_refused(cut: int) -> None:
    data = model_with([tensor("w", np.ones(2000, np.float32), raw=True)]).SerializeToString()
    with pytest.raises(ModelError, match="cut short"):
        split(memoryview(data[:-cut]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_crash(data: bytes) -> None:
    try:
        split(memoryview(data), 1)
    except ModelError as error:
        assert "\n" not in str(error)
