from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import occupancy, payload, scattered
from onnxprune.model.load import parse
from onnxprune.model.model import Model
from onnxprune.model.occupancy import scan
from onnxprune.model.payload import ArrayPayload
from onnxprune.model.sparse import (
    ScatteredPayload,
    SparseIndicesPayload,
    SparseValuesPayload,
    densify_sparse,
)
from onnxprune.model.tensors import TensorAddress

WEIGHT = np.array([[0, 1.5, 0], [-2, 0, 3]], np.float32)
ADDRESS = TensorAddress((), "w")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (payload, occupancy, scattered):
        monkeypatch.setattr(module, "CHUNK", 7)


def coo(
    values: np.ndarray, indices: np.ndarray, dims: tuple[int, ...], name: str = "w"
) -> SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(indices, f"{name}_i"), dims
    )


def linear(array: np.ndarray, index_type: type = np.int64) -> SparseTensorProto:
    flat = array.reshape(-1)
    return coo(flat[flat != 0], np.flatnonzero(flat).astype(index_type), array.shape)


def model_with(*tensors: SparseTensorProto) -> ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        sparse_initializer=tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def dense(proto: ModelProto, address: TensorAddress = ADDRESS) -> np.ndarray:
    model = parse(memoryview(proto.SerializeToString()))
    assert model.origin.sparse == {address}
    return model.array(model.tensors[address])


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("index_type", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64])
def test_linear_indices_of_any_integer_type(index_type: type) -> None:
    np.testing.assert_array_equal(dense(model_with(linear(WEIGHT, index_type))), WEIGHT)


def test_coordinates() -> None:
    tensor = coo(WEIGHT[WEIGHT != 0], np.argwhere(WEIGHT).astype(np.int64), (2, 3))
    np.testing.assert_array_equal(dense(model_with(tensor)), WEIGHT)


def test_coordinates_of_three_axes() -> None:
    weight = np.zeros((2, 3, 4), np.float32)
    weight[1, 2, 3], weight[0, 1, 2], weight[1, 0, 0] = 1, 2, 3
    tensor = coo(weight[weight != 0], np.argwhere(weight).astype(np.int64), weight.shape)
    np.testing.assert_array_equal(dense(model_with(tensor)), weight)


def test_unsorted_indices() -> None:
    tensor = coo(np.array([3, 1.5, -2], np.float32), np.array([5, 1, 3]), (2, 3))
    np.testing.assert_array_equal(dense(model_with(tensor)), WEIGHT)


@pytest.mark.parametrize("dims", [[], [0], [0, 2]])
def test_nothing_kept(dims: list[int]) -> None:
    tensor = SparseTensorProto(
        values=TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0]),
        indices=TensorProto(data_type=TensorProto.INT64, dims=dims),
        dims=[2, 3],
    )
    np.testing.assert_array_equal(dense(model_with(tensor)), np.zeros((2, 3)))


def test_nothing_kept_and_no_indices() -> None:
    values = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0])
    tensor = SparseTensorProto(values=values, dims=[2, 3])
    np.testing.assert_array_equal(dense(model_with(tensor)), np.zeros((2, 3)))


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int8, np.bool_, ml_dtypes.bfloat16])
def test_value_types(kind: type) -> None:
    weight: np.ndarray = WEIGHT.astype(kind)
    assert dense(model_with(linear(weight))).tobytes() == weight.tobytes()


def test_big_tensors_are_made_chunk_by_chunk() -> None:
    weight = np.zeros(700_001, np.float32)
    weight[[0, 262_143, 262_144, 700_000]] = 1, 2, 3, 4
    model = parse(memoryview(model_with(linear(weight)).SerializeToString()))
    found = model.payload(model.tensors[ADDRESS])
    assert isinstance(found, ScatteredPayload)
    np.testing.assert_array_equal(np.concatenate(list(found.chunks())), weight)
    np.testing.assert_array_equal(found.array(), weight)
    assert found.nbytes == weight.nbytes


def test_big_parts_leave_the_payloads() -> None:
    weight = np.arange(4000, dtype=np.float32)
    model = parse(memoryview(model_with(linear(weight)).SerializeToString()))
    assert len(model.payloads) == 1
    np.testing.assert_array_equal(model.array(model.tensors[ADDRESS]), weight)


def test_names_and_documentation_stay() -> None:
    proto = model_with(linear(WEIGHT))
    proto.graph.sparse_initializer[0].values.doc_string = "learned"
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1), "other"))
    densify_sparse(proto, {})
    assert [tensor.name for tensor in proto.graph.initializer] == ["other", "w"]
    assert proto.graph.initializer[1].doc_string == "learned"
    assert not proto.graph.sparse_initializer


def test_declared_sparse_types_become_dense() -> None:
    proto = model_with(linear(WEIGHT))
    proto.graph.value_info.append(
        helper.make_sparse_tensor_value_info("w", TensorProto.FLOAT, [2, 3])
    )
    densify_sparse(proto, {})
    assert proto.graph.value_info[0].type.tensor_type.elem_type == TensorProto.FLOAT
    onnx.checker.check_model(proto, full_check=True)


def test_constants_in_bodies_and_functions() -> None:
    constant = helper.make_node("Constant", [], ["w"], sparse_value=linear(WEIGHT))
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    body = helper.make_graph(
        [constant, product], "b", [], [helper.make_empty_tensor_value_info("y")]
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["z"], name="if", then_branch=body, else_branch=body),
            helper.make_node("F", ["x"], ["y"], domain="my"),
        ],
        "g",
        [],
        [],
    )
    opsets = [helper.make_opsetid("", 13)]
    function = helper.make_function("my", "F", ["x"], ["y"], [constant, product], opsets)
    proto = helper.make_model(graph, functions=[function], opset_imports=opsets)
    scopes = [("if.then_branch",), ("if.else_branch",), ("function my:F",)]
    assert densify_sparse(proto, {}) == {TensorAddress(scope, "w") for scope in scopes}
    model = Model(proto)
    for scope in scopes:
        np.testing.assert_array_equal(model.array(model.tensors[TensorAddress(scope, "w")]), WEIGHT)
    attribute = proto.functions[0].node[0].attribute[0]
    assert (attribute.name, attribute.type) == ("value", AttributeProto.TENSOR)
    assert not attribute.HasField("sparse_tensor")


VALUES, INDICES = np.array([1, 2], np.float32), np.array([1, 4])


MALFORMED: dict[str, tuple[SparseTensorProto, str]] = {
    "index too large": (coo(VALUES, np.array([1, 6]), (2, 3)), "has the index 6 where only 6 fit"),
    "negative index": (coo(VALUES, np.array([-1, 4]), (2, 3)), "has the index -1"),
    "huge index": (coo(VALUES, np.array([1, 2**64 - 1], np.uint64), (2, 3)), "has the index -1"),
    "coordinate too large": (coo(VALUES, np.array([[0, 0], [1, 3]]), (2, 3)), "index 3 where only"),
    "twice": (coo(VALUES, np.array([4, 4]), (2, 3)), "has element 4 twice"),
    "too few indices": (coo(VALUES, np.array([1]), (2, 3)), "has 2 values and 1 indices"),
    "wrong rank": (coo(VALUES, np.array([[1, 1, 1]] * 2), (2, 3)), "2 values and 2x3 indices"),
    "float indices": (coo(VALUES, np.array([1.0, 2.0]), (2, 3)), "indices of type float64"),
    "absurd shape": (coo(VALUES, INDICES, (2**30, 2**30)), "claims the shape"),
    "negative shape": (coo(VALUES, INDICES, (2, -3)), "negative dimension"),
    "no indices": (
        SparseTensorProto(values=numpy_helper.from_array(VALUES, "w"), dims=[2, 3]),
        "2 values and no indices",
    ),
    "indices for nothing": (
        coo(np.array([], np.float32), INDICES, (2, 3)), "has 0 values and 2 indices"
    ),
    "strings": (
        SparseTensorProto(
            values=TensorProto(
                name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"a"]
            ),
            indices=numpy_helper.from_array(np.array([0])),
            dims=[2],
        ),
        "no runtime reads",
    ),
    "no name": (coo(VALUES, INDICES, (2, 3), name=""), "has no name"),
    "unknown type": (
        SparseTensorProto(values=TensorProto(name="w", data_type=99, dims=[0]), dims=[2]),
        "unknown element type",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_tensors_are_refused_in_one_sentence(case: str) -> None:
    tensor, message = MALFORMED[case]
    with pytest.raises(ModelError, match=message) as caught:
        densify_sparse(model_with(tensor), {})
    assert "\n" not in str(caught.value)


# --- Writing -------------------------------------------------------------------------------------

BITS = hnp.arrays(np.uint16, st.integers(0, 60), elements=st.sampled_from([0, 0, 0x3C00, 0x8000]))


@pytest.mark.usefixtures("small_chunks")
def test_chunk_edges() -> None:
    flat = np.zeros(700, np.float32)
    flat[[0, 6, 7, 13, 14, 127, 128, 699]] = np.arange(1, 9)
    source = ArrayPayload(flat)
    found = scan(source)
    assert (found.kept, found.varint_bytes) == (8, 10)
    values, indices = SparseValuesPayload(source, found), SparseIndicesPayload(source, found)
    assert all(chunk.size <= 7 for part in (values, indices) for chunk in part.chunks())
    np.testing.assert_array_equal(values.array(), np.arange(1, 9))
    np.testing.assert_array_equal(indices.positions(), [0, 6, 7, 13, 14, 127, 128, 699])
    for part in (values, indices):
        assert np.concatenate(list(part.chunks())).tobytes() == part.array().tobytes()


@given(BITS)
def test_every_bit_pattern_but_zero_is_kept(bits: np.ndarray) -> None:
    source = ArrayPayload(bits.view(np.float16))
    found = scan(source)
    values, indices = SparseValuesPayload(source, found), SparseIndicesPayload(source, found)
    assert found.kept == values.size == np.count_nonzero(bits)
    again = ScatteredPayload(indices.positions(), values.array(), source.size)
    assert again.array().tobytes() == bits.tobytes()


@given(hnp.arrays(np.bool_, st.integers(0, 100)), st.integers(1, 20))
def test_scattered_chunks_equal_the_whole(mask: np.ndarray, size: int) -> None:
    positions = np.flatnonzero(mask)
    held = ScatteredPayload(positions, np.arange(1, positions.size + 1), mask.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scattered, "CHUNK", size)
        chunks = list(held.chunks())
    whole = np.concatenate([np.empty(0, np.int64), *chunks])
    np.testing.assert_array_equal(whole, held.array())
    assert all(chunk.size <= size for chunk in chunks)
