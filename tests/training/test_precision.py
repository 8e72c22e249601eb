"""Float16 and bfloat16 models as float32 copies: the same values, no old type left."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, TypeProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model.tensors import all_tensors, walk_graphs
from onnxprune.runtime import open_session, random_feeds, run
from onnxprune.training.precision import float32_copy
from onnxprune.training.upgrading.upgrade import upgraded

F, H, B, D = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
OLD = {H: np.float16, B: ml_dtypes.bfloat16}


def info(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def tensor(values, dtype, name=""):
    """A tensor of floats in any element type."""
    array = np.asarray(values, helper.tensor_dtype_to_np_dtype(dtype))
    return numpy_helper.from_array(array, name)


def model_of(nodes, inputs, outputs, tensors=(), opset=23):
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, list(tensors))
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def results_of(model, feeds):
    return run(open_session(model.SerializeToString(), threads=1), feeds)


def old_types(model):
    """Element types other than float32 that anything in the text of the model still names."""
    text = str(model)
    left = {t.data_type for t in all_tensors(model)} & {H, B}
    numbers = {f"elem_type: {dtype}\n" for dtype in (H, B)}
    return left | {number for number in numbers if number in text}


def halved(model: ModelProto, dtype: int) -> ModelProto:
    """A float32 model (without bodies) in another element type."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for _, graph in walk_graphs(copy):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == F:
                value.type.tensor_type.elem_type = dtype
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == F:
                    attribute.i = dtype
                if node.op_type == "Constant" and attribute.name == "value_float":
                    attribute.t.CopyFrom(tensor(attribute.f, F))
                    attribute.name, attribute.type = "value", AttributeProto.TENSOR
                    attribute.ClearField("f")
    for found in all_tensors(copy):
        if found.data_type == F:
            found.CopyFrom(tensor(numpy_helper.to_array(found), dtype, found.name))
    return copy


def rounded(model: ModelProto, dtype: int) -> ModelProto:
    """The float32 model with values that the other element type can hold."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for found in all_tensors(copy):
        if found.data_type == F:
            values = numpy_helper.to_array(found).astype(OLD[dtype]).astype(np.float32)
            found.CopyFrom(tensor(values, F, found.name))
    return copy


@pytest.mark.parametrize("dtype", [H, B])
@pytest.mark.parametrize("field", ["raw", "int32"])
def test_tensor_values_are_exact(dtype, field):
    values = np.array([0.1, -2.5, 0.0, np.inf, -np.inf, np.nan, 6e-5], OLD[dtype])
    if field == "raw":
        stored = numpy_helper.from_array(values, "w")
    else:
        bits = values.view(np.uint16).astype(int)
        stored = TensorProto(name="w", data_type=dtype, dims=[7], int32_data=bits)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    model = model_of(nodes, [info("x", dtype, [7])], [info("y", dtype, [7])], [stored])
    model.graph.value_info.append(info("y", dtype, [7]))
    before = model.SerializeToString()
    copy = float32_copy(model)
    assert model.SerializeToString() == before
    assert copy.replaced == ({H: "float16", B: "bfloat16"}[dtype],)
    assert not old_types(copy.proto)
    (found,) = copy.proto.graph.initializer
    assert found.name == "w" and found.data_type == F and not found.int32_data
    np.testing.assert_array_equal(numpy_helper.to_array(found), values.astype(np.float32))
    (result,) = results_of(copy.proto, {"x": np.zeros(7, np.float32)})
    np.testing.assert_array_equal(result, values.astype(np.float32))


def sparse(dtype):
    indices = numpy_helper.from_array(np.array([1, 3], np.int64), "i")
    return helper.make_sparse_tensor(tensor([0.5, 3.0], dtype, "v"), indices, [4])


SCALE = [tensor([0.5], H, "scale"), numpy_helper.from_array(np.array([0], np.int8), "zero")]
#: Nodes that make a float16 value 'y' of four elements from x, each naming the type its own way.
FORMS = {
    "Constant.value": [helper.make_node("Constant", [], ["y"], value=tensor([1, 2, 3, 4], H))],
    "Cast": [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("Cast", ["i"], ["y"], to=H),
    ],
    "CastLike": [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("CastLike", ["i", "x"], ["y"]),
    ],
    "ConstantOfShape": [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["y"], value=tensor([2.5], H)),
    ],
    "DequantizeLinear": [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ],
    "LayerNormalization": [helper.make_node("LayerNormalization", ["x", "w"], ["y"], stash_type=F)],
    "If": [
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node(
            "If",
            ["yes"],
            ["y"],
            then_branch=helper.make_graph(
                [helper.make_node("Add", ["x", "c"], ["a"])],
                "then",
                [],
                [info("a", H, [4])],
                [tensor([1, 2, 3, 4], H, "c")],
            ),
            else_branch=helper.make_graph(
                [helper.make_node("Identity", ["x"], ["b"])], "else", [], [info("b", H, [4])]
            ),
        ),
    ],
    "Sequence": [
        helper.make_node("SequenceEmpty", [], ["none"], dtype=H),
        helper.make_node("SequenceInsert", ["none", "x"], ["list"]),
        helper.make_node("Constant", [], ["first"], value_int=0),
        helper.make_node("SequenceAt", ["list", "first"], ["y"]),
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_name_a_type(form):
    tensors = [*SCALE, tensor([1, 2, 1, 2], H, "w")]
    model = model_of(FORMS[form], [info("x", H, [4])], [info("y", H, [4])], tensors)
    copy = float32_copy(model).proto
    assert not old_types(copy)
    onnx.checker.check_model(copy, full_check=True)
    x = np.array([1.5, -2.0, 3.0, 0.5], np.float16)
    (expected,) = results_of(model, {"x": x})
    (found,) = results_of(copy, {"x": x.astype(np.float32)})
    assert expected.dtype == np.float16 and found.dtype == np.float32
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=2e-3)


def test_sparse_values():
    node = helper.make_node("Constant", [], ["y"], sparse_value=sparse(H))
    model = model_of([node], [], [info("y", H, [4])])
    model.graph.sparse_initializer.append(sparse(B))
    copy = float32_copy(model).proto
    assert not old_types(copy)
    expected = numpy_helper.to_array(tensor([0.5, 3.0], F))
    for found in (copy.graph.node[0].attribute[0].sparse_tensor, copy.graph.sparse_initializer[0]):
        np.testing.assert_array_equal(numpy_helper.to_array(found.values), expected)
        assert found.indices == sparse(H).indices


@pytest.mark.parametrize(
    ("op_type", "attribute", "inputs"),
    [
        ("EyeLike", "dtype", ["q"]),
        ("RandomNormal", "dtype", []),
        ("RandomUniform", "dtype", []),
        ("RandomNormalLike", "dtype", ["x"]),
        ("RandomUniformLike", "dtype", ["x"]),
        ("DequantizeLinear", "output_dtype", ["q", "s"]),
        ("Attention", "softmax_precision", ["x", "x", "x"]),
        ("RMSNormalization", "stash_type", ["x", "s"]),
        ("HannWindow", "output_datatype", ["q"]),
        ("QuantizeLinear", "precision", ["x", "s"]),
    ],
)
@pytest.mark.parametrize("dtype", [H, B])
def test_attributes_that_name_a_type(op_type, attribute, inputs, dtype):
    node = helper.make_node(op_type, inputs, ["y"], **{attribute: dtype}, axis=int(dtype))
    found = float32_copy(model_of([node], [], [])).proto.graph.node[0]
    values = {a.name: a.i for a in found.attribute}
    assert values == {attribute: F, "axis": dtype}


def test_types_within_types():
    deep = helper.make_optional_type_proto(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(H, [2]))
    )
    mapped = TypeProto()
    mapped.map_type.key_type = TensorProto.INT64
    mapped.map_type.value_type.CopyFrom(helper.make_tensor_type_proto(B, [2]))
    thin = helper.make_sparse_tensor_type_proto(H, [2])
    values = [helper.make_value_info(f"x{i}", t) for i, t in enumerate((deep, mapped, thin))]
    optional = helper.make_node("Optional", [], ["o"], type=helper.make_tensor_type_proto(H, [2]))
    copy = float32_copy(model_of([optional], values, []))
    assert copy.replaced == ("bfloat16", "float16")
    assert not old_types(copy.proto)
    assert str(copy.proto).count(f"elem_type: {F}\n") == 4


def test_float64_for_a_part_stays():
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=D),
        helper.make_node("Add", ["d", "w"], ["e"]),
        helper.make_node("Cast", ["e"], ["y"], to=H),
    ]
    one_third = tensor([1 / 3], D, "w")
    copy = float32_copy(model_of(nodes, [info("x", H, [1])], [info("y", H, [1])], [one_third]))
    assert copy.replaced == ("float16",)
    assert copy.proto.graph.initializer[0] == one_third
    assert copy.proto.graph.node[0].attribute[0].i == D


def test_float64_for_all_becomes_float32():
    values = np.array([1 / 3, -1e300, np.inf, 5.0])
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    tensors = [tensor(values, D, "w")]
    copy = float32_copy(model_of(nodes, [info("x", D, [4])], [info("y", D, [4])], tensors))
    assert copy.replaced == ("float64",)
    (found,) = results_of(copy.proto, {"x": np.ones(4, np.float32)})
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(found, np.float32([1 / 3, -largest, np.inf, 5.0]))


def test_float32_stays_as_it_is():
    nodes = [helper.make_node("BitCast", ["x"], ["i"], to=TensorProto.INT32)]
    model = model_of(nodes, [info("x", F, [1])], [], [tensor([1], F, "w")])
    copy = float32_copy(model)
    assert copy.replaced == ()
    assert copy.proto == model and copy.proto is not model


def test_bits_of_floats_are_refused():
    nodes = [helper.make_node("BitCast", ["x"], ["i"], name="bits", to=TensorProto.INT16)]
    with pytest.raises(ModelError, match="BitCast 'bits' depends on how floats are stored"):
        float32_copy(model_of(nodes, [info("x", H, [1])], []))


def test_a_real_model_computes_the_same(zoo):
    model = upgraded(onnx.load(zoo / "squeezenet_fp16.onnx"))
    copy = float32_copy(model)
    assert copy.replaced == ("float16",)
    assert not old_types(copy.proto)
    session = open_session(model.SerializeToString())
    feeds = next(iter(random_feeds(session)))
    (expected,) = run(session, feeds)
    cast = {key: value.astype(np.float32) for key, value in feeds.items()}
    (found,) = results_of(copy.proto, cast)
    assert expected.dtype == np.float16 and found.dtype == np.float32
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("dtype", [H, B])
@pytest.mark.parametrize(
    "name",
    [
        "cifar10_wml_pytorch_imageclassifier",
        "mnist_cntk_wml",
        "silero_vad_openvino_16k",
        "ultraface_slim320",
        "vnn23_vit_ibp_3_3_8",
    ],
)
def test_real_models_converted(zoo, name, dtype):
    """The copy of a converted model is the float32 model with rounded weights, to the bit."""
    model = upgraded(onnx.load(zoo / f"{name}.onnx"))
    copy = float32_copy(halved(model, dtype)).proto
    assert not old_types(copy)
    same = rounded(model, dtype)
    session = open_session(same.SerializeToString(), threads=1)
    feeds = next(iter(random_feeds(session)))
    for expected, found in zip(run(session, feeds), results_of(copy, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
