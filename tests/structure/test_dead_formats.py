"""Dead neurons in models of other precisions, old formats, Constant nodes; what is said of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.errors import OutputError
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure import dead
from onnxprune.structure.dead import shrink
from tests.builders import arrays, mlp
from tests.structure.dying import PADDED, prove_shrunk, shapes, shrunk, zeroed
from tests.structure.graphs import Case, built, feed


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 1e-2), (np.float64, 1e-12)])
def test_other_precisions(dtype: type, tolerance: float) -> None:
    case = Case(
        "h = Gemm(x, a, ab)\ni = Relu(h)\nj = Gemm(i, b)\nk = Relu(j)\nm = MatMul(k, c)\n"
        "y = Add(m, cb)",
        {
            "a": zeroed((6, 8), axis=1, at=(1, 2)), "ab": (8,),
            "b": zeroed((8, 8), axis=0, at=(5,)), "cb": (3,),
            "c": zeroed((8, 3), axis=0, at=(0, 3)),
        },
        [], sample=(6,),
    )  # fmt: skip
    model, kind = built(case), helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = kind
    feeds = [{"x": feed(case, 3)["x"].astype(dtype)}]
    done = prove_shrunk(model, feeds, tolerance)
    assert done.removed >= 4
    smaller = to_proto(done.model)
    assert {t.data_type for t in smaller.graph.initializer} == {kind}


def test_bfloat16() -> None:
    """onnxruntime has no kernels for it here: the reference implementation compares."""
    model = mlp((6, 8, 3))
    first = zeroed(arrays(model)["fc0.weight"], axis=0, at=(1, 5))
    for tensor in model.graph.initializer:
        array = first if tensor.name == "fc0.weight" else numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            helper.make_tensor(tensor.name, TensorProto.BFLOAT16, array.shape, array.reshape(-1))
        )
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.BFLOAT16
    smaller = to_proto(shrink(read(model)).model)
    onnx.checker.check_model(smaller, full_check=True)
    assert {t.data_type for t in smaller.graph.initializer} == {TensorProto.BFLOAT16}
    assert shapes(smaller)["fc0.weight"] == (6, 6)

    def widened(proto: ModelProto) -> ModelProto:
        copy = ModelProto.FromString(proto.SerializeToString())
        for tensor in copy.graph.initializer:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        for info in (*copy.graph.input, *copy.graph.output):
            info.type.tensor_type.elem_type = TensorProto.FLOAT
        return copy

    x = {"x": np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)}
    expected, found = (
        ReferenceEvaluator(widened(proto)).run(None, x)[0] for proto in (model, smaller)
    )
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_biases_of_old_formats(ir_version: int) -> None:
    case = Case(
        "h = Conv(x, w, b)\ng = Sigmoid(h)\nf = Conv(g, v)\ny = Relu(f)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1,)), "b": (8,), "v": (3, 8, 1, 1)},
        [], opset=8, ir_version=ir_version,
    )  # fmt: skip
    done, model = shrunk(case)
    assert done.absorbed.made == ("node2",)
    assert ("f_bias" in {info.name for info in model.graph.input}) == (ir_version == 3)


def test_no_bias_is_added_where_nothing_broadcasts() -> None:
    """An Add of opset 6 would need an axis, and so would other operators: the constants stay."""
    case = Case(
        f"{PADDED}t = Transpose<perm=[0,2,3,1]>(g)\ny = MatMul(t, v)",
        {"w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4)), "b": (8,), "v": (8, 3)},
        [], opset=6, ir_version=3,
    )  # fmt: skip
    assert shrunk(case)[0].reason


def test_weights_and_biases_in_constant_nodes() -> None:
    case = Case(
        f"c = Constant<value_floats=[1.0,2.0,3.0]>()\n{PADDED}"
        "d = Conv<pads=[1,1,1,1]>(g, v, c)\ne = Conv(g, n, c)\ns = Sigmoid(e)\n"
        "o = Conv<pads=[1,1,1,1]>(s, m)\ny = Sum(d, o)",
        {
            "w": zeroed((8, 4, 1, 1), axis=0, at=(1, 4, 6)), "b": (8,), "n": (3, 8, 1, 1),
            "v": (3, 8, 3, 3), "m": (3, 3, 3, 3),
        },
        [],
    )  # fmt: skip
    model = built(case)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in ("v", "n")]
    for tensor in model.graph.initializer:
        if tensor.name in ("v", "n"):
            node = helper.make_node("Constant", [], [tensor.name], value=tensor)
            model.graph.node.insert(0, node)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    done = prove_shrunk(model, [feed(case, 1), feed(case, 3)])
    assert done.removed == 2


def test_what_is_said_of_the_model_stays() -> None:
    model = mlp((6, 8, 3))
    model.producer_name, model.graph.doc_string = "maker", "about"
    first = zeroed(arrays(model)["fc0.weight"], axis=0, at=(1, 5))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(first, "fc0.weight"))
    told: list[str] = []
    given = read(model)
    done = shrink(given, progress=lambda what, *_: told.append(what))
    smaller = to_proto(done.model)
    assert smaller.producer_name == "maker" and smaller.graph.doc_string == "about"
    assert done.model.origin == given.origin
    assert told == ["looking for dead channels"]


def test_a_model_over_2_gb_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> ModelProto:
        raise OutputError("the model is over 2 GB")

    monkeypatch.setattr(dead, "to_proto", refuse)
    model = read(mlp())
    done = shrink(model)
    assert done.model is model and done.reason == "not looked for: the model is over 2 GB"
