"""Weights wherever models keep them: trained, written back by name, all else byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.finetune import FineTune
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.model.tensors import TensorAddress
from onnxprune.training.writeback import write_back
from tests.training.nets import MLP_SHAPES, data, draw, mlp, model, stored, without_values

SQUARE = {"w": (6, 6), "v": (3, 6)}


def dressed(proto: ModelProto) -> ModelProto:
    """With everything that must survive: doc strings, metadata, names, versions."""
    proto.doc_string, proto.producer_name, proto.model_version = "a model", "somebody", 7
    proto.graph.doc_string = "a graph"
    helper.set_model_props(proto, {"author": "ü", "license": "none"})
    for number, node in enumerate(proto.graph.node):
        node.name, node.doc_string = f"node {number}", "a node"
    return proto


def constants(proto: ModelProto) -> ModelProto:
    """Initializers as Constant nodes."""
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    del proto.graph.initializer[:]
    return proto


def listed(proto: ModelProto) -> ModelProto:
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    proto.ir_version = 3
    return proto


def of_type(proto: ModelProto, dtype: Any) -> ModelProto:
    """Weights of a narrow type behind Casts."""
    nodes = []
    for tensor in proto.graph.initializer:
        name = tensor.name
        array = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=TensorProto.FLOAT))
        for node in proto.graph.node:
            for index, read_name in enumerate(node.input):
                if read_name == name:
                    node.input[index] = f"{name}_cast"
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    return proto


SHARED = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = Gemm <transB = 1> (x, w)
    a = Relu (h)
    i = Gemm <transB = 1> (a, w)
    y = Gemm <transB = 1> (i, v)
}"""
VIEWS = """agraph (float[N, 6] x) => (float[N, 3] y) {
    same = Identity (w)
    t = Transpose (same)
    h = MatMul (x, t)
    a = Relu (h)
    u = Transpose <perm = [1, 0]> (v)
    y = MatMul (a, u)
}"""
CALLED_TWICE = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = f.layer (x)
    i = f.layer (h)
    y = Gemm <transB = 1> (i, v)
}"""
LAYER = """<opset_import: ["": 17], domain: "f">
layer (x) => (y) {
    w = Constant <value = float[6, 6] {WEIGHTS}> ()
    h = MatMul (x, w)
    y = Relu (h)
}"""
NESTED = """<opset_import: ["": 17, "f": 1], domain: "f">
outer (x) => (y) {
    b = Constant <value = float[6] {BIAS}> ()
    a = f.layer (x)
    c = f.layer (a)
    y = Add (c, b)
}"""


def functions(call: str, *parts: str) -> ModelProto:
    random = np.random.default_rng(5)
    texts = []
    for part in parts:
        for key, size in (("WEIGHTS", 36), ("BIAS", 6)):
            numbers = ", ".join(f"{value:.6f}" for value in draw(random, (size,)))
            part = part.replace(key, numbers)
        texts.append(part)
    return model(call, {"v": (3, 6)}, functions="\n".join(texts))


PLACES = {
    "initializers": (lambda: mlp(), set(MLP_SHAPES)),
    "Constant nodes": (lambda: constants(mlp()), set(MLP_SHAPES)),
    "listed as inputs": (lambda: listed(mlp()), set(MLP_SHAPES)),
    "shared": (lambda: model(SHARED, SQUARE), {"w", "v"}),
    "views": (lambda: model(VIEWS, SQUARE), {"w", "v"}),
    "function": (lambda: functions(CALLED_TWICE, LAYER), {"w", "v"}),
    "nested functions": (
        lambda: functions(CALLED_TWICE.replace("f.layer", "f.outer"), LAYER, NESTED),
        {"w", "v", "b"},
    ),
    "float16": (lambda: of_type(mlp(), np.float16), set(MLP_SHAPES)),
    "bfloat16": (lambda: of_type(mlp(), ml_dtypes.bfloat16), set(MLP_SHAPES)),
    "old opset": (lambda: mlp(opset=11), set(MLP_SHAPES)),
}


def trained(proto: ModelProto, **settings: Any) -> onnxprune.Result:
    options = {"epochs": 2, "lr": 0.02, "batch_size": 16, **settings}
    return onnxprune.prune(
        proto, quality=0.5, train=data(40), finetune=FineTune(**options), shrink=False
    )


@pytest.mark.parametrize(("build", "moving"), PLACES.values(), ids=PLACES)
def test_weights_are_trained_where_they_are(build: Any, moving: set[str]) -> None:
    proto = dressed(build())
    result = trained(proto)
    after = result.to_proto()
    onnx.checker.check_model(after)
    assert without_values(after) == without_values(proto)
    old, new = stored(proto), stored(after)
    assert set(old) == set(new)
    for name, array in old.items():
        assert new[name].dtype == array.dtype
        if name in moving:
            assert (new[name] != array).mean() > 0.5, name
        else:
            assert np.array_equal(new[name], array), name
    training = result.report.training
    assert training.trained_tensors == len(moving)
    assert training.epoch_rows[-1].loss < training.epoch_rows[0].loss


def test_a_function_called_twice_has_one_weight_that_gets_both_gradients() -> None:
    """The same model without functions, its weight shared by two nodes, trains alike."""
    proto = functions(CALLED_TWICE, LAYER)
    plain = """agraph (float[N, 6] x) => (float[N, 3] y) {
        h = MatMul (x, w)
        a = Relu (h)
        i = MatMul (a, w)
        j = Relu (i)
        y = Gemm <transB = 1> (j, v)
    }"""
    values = stored(proto)
    expected = stored(trained(model(plain, values)).to_proto())
    found = stored(trained(proto).to_proto())
    for name in ("w", "v"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_shared_weights_get_the_gradients_of_all_nodes() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    proto = model(SHARED, SQUARE)
    w, v = (torch.nn.Parameter(torch.tensor(stored(proto)[name])) for name in SQUARE)
    samples = data(16)
    hidden = torch.relu(torch.tensor(samples["x"]) @ w.T) @ w.T
    labels = torch.tensor(samples["labels"])
    torch.nn.functional.cross_entropy(hidden @ v.T, labels).backward()
    settings = FineTune(epochs=1, lr=1.0, batch_size=16, optimizer="sgd", momentum=0, l2=0)
    after = onnxprune.prune(proto, quality=0, train=samples, finetune=settings).to_proto()
    for name, parameter in (("w", w), ("v", v)):
        expected = (parameter - parameter.grad).detach().numpy()
        np.testing.assert_allclose(stored(after)[name], expected, rtol=1e-4, atol=1e-5)


def test_sparse_initializers_are_trained() -> None:
    proto = mlp()
    dense = np.array(stored(proto)["w1"])
    dense[np.abs(dense) < 0.4] = 0
    flat = dense.reshape(-1)
    places = np.flatnonzero(flat).astype(np.int64)
    tensor = helper.make_sparse_tensor(
        numpy_helper.from_array(flat[places], "w1"),
        numpy_helper.from_array(places, "w1_indices"),
        dense.shape,
    )
    kept = [item for item in proto.graph.initializer if item.name != "w1"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.sparse_initializer.append(tensor)
    result = trained(proto)
    after = stored(result.to_proto())["w1"]
    assert not after[dense == 0].any()
    moved = (after != 0) & (after != dense)
    assert moved.any()
    assert result.report.training.trained_tensors == 4


def test_pruned_weights_of_float16_are_zero_and_others_float16() -> None:
    proto = of_type(mlp(), np.float16)
    before, after = stored(proto)["w1"], stored(trained(proto).to_proto())["w1"]
    pruned = np.abs(before.astype(np.float64)) < 0.5 * before.astype(np.float64).std()
    assert pruned.any()
    assert not after[pruned].any()
    assert after[~pruned].all()


# ---- write_back alone ------------------------------------------------------------------------


def addressed(proto: ModelProto) -> Mapping[str, TensorAddress]:
    return {tensor.name: TensorAddress((), tensor.name) for tensor in proto.graph.initializer}


def test_only_what_is_given_changes() -> None:
    proto = mlp()
    source = read(proto)
    new = np.full((3, 8), 2, np.float32)
    after = to_proto(write_back(source, {"w2": new}, addressed(proto)))
    assert np.array_equal(stored(after)["w2"], new)
    for name in ("w1", "b1", "b2"):
        assert stored(after)[name].tobytes() == stored(proto)[name].tobytes()
    assert to_proto(source).SerializeToString() == proto.SerializeToString()


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.float32, np.nan), (np.float32, np.inf), (np.float16, 70000.0), (np.float16, -1e30)],
)
def test_values_without_sense_are_refused(dtype: Any, value: float) -> None:
    proto = of_type(mlp(), dtype) if dtype is np.float16 else mlp()
    bad = np.ones(3, np.float32)
    bad[1] = value
    with pytest.raises(ModelError, match=r"NaN or infinity of tensor 'b2'.*--lr") as failure:
        write_back(read(proto), {"b2": bad}, addressed(proto))
    assert "\n" not in str(failure.value)


def test_rounding_is_to_nearest() -> None:
    proto = of_type(mlp(), ml_dtypes.bfloat16)
    values = np.array([1.003, -1.005, 1e-30], np.float32)
    after = to_proto(write_back(read(proto), {"b2": values}, addressed(proto)))
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    expected = torch.tensor(values).bfloat16().float().numpy()
    assert np.array_equal(stored(after)["b2"].astype(np.float32), expected)
