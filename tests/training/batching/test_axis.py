"""Freeing a fixed batch axis: every sample alone gives what all give together, or a refusal."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.runtime import open_session, run
from onnxprune.training.batching import axis
from onnxprune.training.batching.axis import already_free, free_batch
from onnxprune.training.batching.nodes import RULES
from onnxprune.training.upgrading.upgrade import upgraded
from tests.training.batch_graphs import FREE, ROWS, TOKENS, draw, ints, model_of, one
from tests.training.batch_graphs_refused import REFUSED

RANDOM = np.random.default_rng(3)


def feeds_of(model, samples):
    """Random inputs of so many batches, one for each."""
    found = []
    for _ in range(samples):
        feed = {}
        for info in model.graph.input:
            known = info.type.tensor_type
            shape = [dim.dim_value for dim in known.shape.dim]
            if known.elem_type == TensorProto.INT64:
                feed[info.name] = RANDOM.integers(0, 3, shape)
            else:
                feed[info.name] = draw(*shape)
        found.append(feed)
    return found


def check_freed(model, samples=3):
    """The freed model on several batches at once against the original on each."""
    freed = free_batch(model)
    assert freed.reason is None
    assert freed.proto is not None
    if all(not entry.domain or entry.version != 1 for entry in model.opset_import):
        onnx.checker.check_model(freed.proto, full_check=True)
    feeds = feeds_of(model, samples)
    alone = open_session(model.SerializeToString())
    parts = [run(alone, feed) for feed in feeds]
    together = open_session(freed.proto.SerializeToString())
    stacked = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    for info in freed.proto.graph.input:
        assert info.type.tensor_type.shape.dim[0].dim_param == "batch"
    outputs = zip(
        freed.proto.graph.output, run(together, stacked), zip(*parts, strict=True), strict=True
    )
    for info, found, values in outputs:
        dims = [dim.dim_param for dim in info.type.tensor_type.shape.dim] or ["batch"]
        expected = np.concatenate(values, dims.index("batch")) if "batch" in dims else values[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return freed.proto


def proof(model, monkeypatch):
    """The reason that the proof alone gives."""
    monkeypatch.setattr(axis, "disagreement", lambda *_: None)
    freed = free_batch(model)
    assert (freed.proto is None) == (freed.reason is not None)
    return freed.reason


@pytest.mark.parametrize("name", FREE)
def test_freed(name):
    nodes, inputs, constants, *outputs = FREE[name]
    check_freed(model_of(nodes, inputs, constants, *outputs))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("Reshape of a fixed first axis", [0, 24]),
        ("Reshape with the rest", [0, -1]),
        ("Reshape with the batch left over", [-1, 24]),
        ("Reshape behind another axis", [5, -1, 2, 4]),
        ("batch of four", [0, 24]),
    ],
)
def test_targets(name, target):
    proto = check_freed(model_of(*FREE[name]))
    reshape = next(node for node in proto.graph.node if node.op_type == "Reshape")
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    assert constants[reshape.input[1]].tolist() == target


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, monkeypatch):
    reason, nodes, inputs, constants, *outputs = REFUSED[name]
    found = proof(model_of(nodes, inputs, constants, *outputs), monkeypatch)
    assert found is not None and reason in found


def test_reshape_where_other_sizes_are_open():
    model = model_of(*one("Reshape", (1, "T", 6), {"s": ints(1, -1, 2, 3)}))
    proto = free_batch(model).proto
    assert proto is not None
    feeds = {"x": draw(3, 5, 6)}
    (found,) = run(open_session(proto.SerializeToString()), feeds)
    np.testing.assert_array_equal(found, feeds["x"].reshape(3, 5, 2, 3))


def test_wrong_readings_end(monkeypatch):
    """Each Reshape has two readings, and none of them leads to an output per sample."""
    monkeypatch.setattr(axis, "ATTEMPTS", 50)
    nodes = [("Transpose", "x", "h0", {"perm": [1, 0, 2]})]
    for i in range(40):
        nodes += [("Reshape", f"h{2 * i} s", f"h{2 * i + 1}")]
        nodes += [("Reshape", f"h{2 * i + 1} t", f"h{2 * i + 2}")]
    nodes += [("ReduceSum", "h80", "y")]
    model = model_of(nodes, TOKENS, {"s": ints(5, 8), "t": ints(5, 1, 8)})
    assert "works along the batch axis" in str(free_batch(model).reason)


def test_embedding_of_integers():
    nodes = [("Gather", "w x", "e"), ("Reshape", "e s", "y")]
    constants = {"w": draw(3, 4), "s": ints(1, 20)}
    inputs = {"x": (1, 5)}
    check_freed(model_of(nodes, inputs, constants, dtype=TensorProto.INT64))


def test_one_hot_of_integers():
    nodes = [("OneHot", "x d v", "h"), ("Cast", "h", "y", {"to": TensorProto.FLOAT})]
    constants = {"d": ints(3), "v": ints(0, 1)}
    check_freed(model_of(nodes, {"x": (1, 5)}, constants, dtype=TensorProto.INT64))


def test_a_body_is_refused(monkeypatch):
    body = [helper.make_node("Neg", ["x"], ["inner"])]
    result = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph(body, "body", [], [result])
    attributes = {"then_branch": branch, "else_branch": branch}
    model = model_of([("If", "c", "y", attributes)], ROWS, {"c": np.array(True)})
    assert "has a body" in str(proof(model, monkeypatch))


def test_stale_value_info_is_dropped():
    model = model_of([("Neg", "x", "h"), ("Exp", "h", "y")], ROWS)
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, 6]))
    before = model.SerializeToString()
    proto = check_freed(model)
    assert not proto.graph.value_info
    assert model.SerializeToString() == before


def test_names_that_are_taken():
    nodes = [("Concat", "x freed_batch", "h", {"axis": 1}), ("Neg", "h", "freed_batch_1")]
    model = model_of(nodes, ROWS, {"freed_batch": draw(1, 6)}, ["freed_batch_1"])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "batch"
    proto = free_batch(model).proto
    assert proto is not None
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch_1"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"x": ("N", 3)}, True),
        ({"x": (None, 3)}, True),
        ({"x": (1, 3)}, False),
        ({"x": ("N", 3), "state": (2, "N", 4)}, True),
        ({"x": ("N", 3), "state": (2, 1, 4)}, False),
        ({"x": ("N", 3), "rate": ()}, True),
        ({"rate": ()}, False),
    ],
)
def test_already_free(shapes, expected):
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph([], "g", infos, [])
    model = helper.make_model(graph)
    assert already_free(model) is expected
    if expected:
        freed = free_batch(model)
        assert freed.proto is model and freed.reason == "already free"


def test_the_second_lock(monkeypatch):
    """A rule that is wrong is caught by running both models."""
    monkeypatch.setitem(RULES, ("", "Softmax"), lambda node: node.batched(0))
    freed = free_batch(model_of(*one("Softmax", (1, 6), axis=0)))
    assert freed.proto is None
    assert freed.reason == "output 'y' differs between samples one by one and all at once"


def test_the_second_lock_catches_what_does_not_run(monkeypatch):
    monkeypatch.setitem(RULES, ("", "Reshape"), lambda node: node.batched(0))
    freed = free_batch(model_of(*one("Reshape", (1, 4, 6), {"s": ints(1, 24)})))
    assert freed.proto is None
    assert str(freed.reason).startswith("the model does not run with a free batch axis: ")


@pytest.mark.parametrize(
    "name",
    [
        "dtln_model_1",
        "mnist_cntk_wml",
        "ultraface_rfb320",
        "vnn21_cifar10_resnet_4b",
        "vnn23_nn4sys_pensieve_big_simple",
    ],
)
def test_real_models_freed(zoo, name):
    check_freed(upgraded(onnx.load(zoo / f"{name}.onnx")))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("silero_vad_v3", "inputs have first axes of different sizes"),
        ("vnn21_test_nano", "MatMul 'Ma_MatMul' sums over the batch axis"),
        ("vnn23_cctsdb_patch1", "takes a part of the batch"),
        ("vnn23_nn4sys_pensieve_mid_parallel", "Split '/Split' works along the batch axis"),
    ],
)
def test_real_models_refused(zoo, name, reason):
    freed = free_batch(upgraded(onnx.load(zoo / f"{name}.onnx")))
    assert freed.proto is None and reason in str(freed.reason)
