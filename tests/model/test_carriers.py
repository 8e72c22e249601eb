from __future__ import annotations

from typing import Any, get_args

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.model.carriers import Form, Stored, readers, store
from onnxprune.model.load import parse
from onnxprune.model.model import Model
from onnxprune.model.save import to_proto
from onnxprune.model.tensors import TensorAddress, walk_tensors
from tests.model.inline import materialise

W = TensorAddress((), "w")
SPARSE_FORMS: tuple[Form, ...] = ("sparse", "constant", "gaps")
SHAPE = (40, 50)


def weights(kind: Any = np.float32, sparsity: float = 0.9, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.integers(1, 100, SHAPE).astype(kind)
    values[random.random(SHAPE) < sparsity] = 0
    return values


def model_of(
    weight: np.ndarray, *, constant: bool = False, opset: int = 21, ir_version: int = 10
) -> ModelProto:
    """y = x @ Cast(w), the weight an initializer or a Constant node."""
    tensor = numpy_helper.from_array(weight, "w")
    nodes = [helper.make_node("Constant", [], ["w"], "const", value=tensor)] if constant else []
    nodes.append(helper.make_node("Cast", ["w"], ["f"], "cast", to=TensorProto.FLOAT))
    nodes.append(helper.make_node("MatMul", ["x", "f"], ["y"], "product"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weight.shape[1]])],
        [] if constant else [tensor],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def parsed(proto: ModelProto) -> Model:
    return parse(memoryview(proto.SerializeToString()))


def run(proto: ModelProto, **feeds: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return np.asarray(session.run(None, feeds)[0])


X = np.random.default_rng(1).standard_normal((1, SHAPE[0])).astype(np.float32)


def checked(stored: Stored, *, full: bool = False) -> ModelProto:
    """The stored model as one message: valid, and the streaming writer writes the same."""
    proto = materialise(stored.model)
    assert to_proto(stored.model) == proto
    onnx.checker.check_model(proto, full_check=full)
    return proto


def read_back(proto: ModelProto, address: TensorAddress) -> np.ndarray:
    model = parsed(proto)
    return model.array(model.tensors[address])


# --- Round trips ---------------------------------------------------------------------------------

KINDS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int16, np.int32, np.bool_]
BYTE_KINDS = [np.int8, np.uint8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("kind", KINDS + BYTE_KINDS)
@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_gives_the_same_outputs(form: Form, kind: Any, sparsity: float) -> None:
    weight = weights(kind, sparsity)
    proto = model_of(weight)
    stored = store(parsed(proto), [W], form)
    written = checked(stored, full=stored.decisions[W].form not in ("sparse",))
    assert read_back(written, W).tobytes() == weight.tobytes()
    np.testing.assert_array_equal(run(written, x=X), run(proto, x=X))
    if sparsity >= 0.97 and weight.itemsize > 1:
        assert stored.decisions[W].form == form


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("form", get_args(Form))
def test_byte_counts_are_exact(form: Form, constant: bool, sparsity: float) -> None:
    proto = model_of(weights(sparsity=sparsity), constant=constant)
    stored = store(parsed(proto), [W], form)
    decision = stored.decisions[W]
    saved = len(proto.SerializeToString()) - len(checked(stored).SerializeToString())
    # Lengths of the enclosing messages may take a byte less.
    assert decision.dense_bytes - decision.stored_bytes <= saved
    assert saved <= decision.dense_bytes - decision.stored_bytes + 2


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([0.0] * 8 + [-0.0, 1.0, np.nan])),
    st.sampled_from(SPARSE_FORMS),
)
def test_random_masks_come_back_bit_for_bit(weight: np.ndarray, form: Form) -> None:
    stored = store(parsed(model_of(weight)), [W], form)
    assert read_back(materialise(stored.model), W).tobytes() == weight.tobytes()


def test_gap_code_in_the_reference_evaluator() -> None:
    proto = model_of(weights())
    written = checked(store(parsed(proto), [W], "gaps"), full=True)
    have, want = (evaluated(version) for version in (written, proto))
    np.testing.assert_array_equal(have, want)


def evaluated(proto: ModelProto) -> np.ndarray:
    outputs: Any = ReferenceEvaluator(proto).run(None, {"x": X})
    return np.asarray(outputs[0])


@pytest.mark.parametrize("form", ["constant", "gaps"])
def test_openvino_reads_what_it_is_said_to_read(form: Form) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    core = openvino.Core()
    for sparsity in (0.9, 1.0):
        proto = model_of(weights(sparsity=sparsity), opset=13, ir_version=8)
        written = checked(store(parsed(proto), [W], form))
        outputs = []
        for version in (proto, written):
            compiled = core.compile_model(core.read_model(version.SerializeToString()), "CPU")
            outputs.append(next(iter(compiled([X]).values())))
        np.testing.assert_array_equal(*outputs)


# --- Where it saves bytes ------------------------------------------------------------------------


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_a_dense_weight_stays_dense(form: Form) -> None:
    model = parsed(model_of(weights(sparsity=0.05)))
    stored = store(model, [W], form)
    decision = stored.decisions[W]
    assert (decision.form, decision.stored_bytes) == ("dense", decision.dense_bytes)
    assert decision.reason.startswith(f"{form} would take ")
    assert stored.model is model
    assert stored.notes == ()


def test_each_weight_on_its_own() -> None:
    proto = model_of(weights())
    proto.graph.initializer.append(numpy_helper.from_array(weights(sparsity=0), "v"))
    proto.graph.node.append(helper.make_node("Identity", ["v"], ["unused"]))
    stored = store(parsed(proto), [W, TensorAddress((), "v")], "sparse")
    assert [item.form for item in stored.decisions.values()] == ["sparse", "dense"]
    assert [tensor.name for tensor in checked(stored).graph.initializer] == ["v"]


def test_gap_coded_weights_share_constants() -> None:
    proto = model_of(weights())
    proto.graph.initializer.append(numpy_helper.from_array(weights(seed=1), "v"))
    proto.graph.node.append(helper.make_node("Identity", ["v"], ["unused"]))
    other = TensorAddress((), "v")
    stored = store(parsed(proto), [W, other], "gaps")
    written = checked(stored, full=True)
    assert len(written.graph.initializer) == 7
    assert stored.decisions[other].stored_bytes < stored.decisions[W].stored_bytes
    assert read_back(written, other).tobytes() == weights(seed=1).tobytes()


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_the_input_model_stays_as_it_is(form: Form) -> None:
    model = parsed(model_of(weights()))
    before = model.proto.SerializeToString(), dict(model.payloads)
    store(model, [W], form)
    assert (model.proto.SerializeToString(), model.payloads) == before


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_documentation_stays_on_the_values(form: Form) -> None:
    proto = model_of(weights())
    proto.graph.initializer[0].doc_string = "learned"
    assert b"learned" in checked(store(parsed(proto), [W], form)).SerializeToString()


def test_a_sparse_initializer_as_the_notes_want_it() -> None:
    proto = model_of(weights())
    proto.graph.node[0].output[0] = "w_indices"  # takes the name that the indices would get
    proto.graph.node[1].input[1] = "w_indices"
    (tensor,) = checked(store(parsed(proto), [W], "sparse")).graph.sparse_initializer
    assert (tensor.values.name, tensor.indices.name) == ("w", "w_indices_1")
    assert tensor.indices.data_type == TensorProto.INT64
    assert not tensor.indices.HasField("raw_data")
    positions = list(tensor.indices.int64_data)
    assert positions == np.flatnonzero(weights()).tolist()


# --- Where it cannot be --------------------------------------------------------------------------


def refused(proto: ModelProto, form: Form) -> str:
    decision = store(parsed(proto), [W], form).decisions[W]
    assert decision.form == "dense"
    return decision.reason


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_a_scalar_stays_dense(form: Form) -> None:
    proto = model_of(weights())
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(0, np.float32), "w"))
    assert refused(proto, form) == "a single number"


@pytest.mark.parametrize("form", ["sparse", "constant"])
def test_a_graph_output_stays_dense(form: Form) -> None:
    proto = model_of(weights())
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, SHAPE))
    assert "output of its graph" in refused(proto, form)


def test_a_graph_output_can_be_gap_coded() -> None:
    proto = model_of(weights())
    proto.graph.output.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, SHAPE))
    written = checked(store(parsed(proto), [W], "gaps"), full=True)
    np.testing.assert_array_equal(run(written, x=X), weights())


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_four_bits_stay_dense(form: Form) -> None:
    proto = model_of(weights())
    weight = numpy_helper.from_array(np.zeros(SHAPE, ml_dtypes.int4), "w")
    proto.graph.initializer[0].CopyFrom(weight)
    assert "int4" in refused(proto, form)


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_what_training_writes_to_stays_dense(form: Form) -> None:
    proto = model_of(weights())
    proto.training_info.add().update_binding.add(key="w", value="new_w")
    assert "training information" in refused(proto, form)


@pytest.mark.parametrize("form", ["constant", "gaps"])
def test_old_opsets_stay_dense(form: Form) -> None:
    assert "needs opset 11, here it is 9" in refused(model_of(weights(), opset=9), form)


# --- Housekeeping --------------------------------------------------------------------------------


def listed(ir_version: int) -> ModelProto:
    """A model whose two initializers are graph inputs."""
    proto = model_of(weights(), opset=11, ir_version=ir_version)
    proto.graph.node.add(op_type="Add", input=["y", "b"], output=["z"])
    proto.graph.output[0].name = "z"
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(SHAPE[1], np.float32), "b"))
    for tensor in proto.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(value)
    return proto


@pytest.mark.parametrize(("form", "version"), [("sparse", 6), ("constant", 6), ("gaps", 4)])
def test_old_ir_versions_are_raised(form: Form, version: int) -> None:
    proto = listed(3)
    stored = store(parsed(proto), [W], form)
    written = checked(stored)
    assert written.ir_version == version
    assert [value.name for value in written.graph.input] == ["x"]
    assert stored.notes[0] == f"IR version raised from 3 to {version}"
    assert stored.notes[1].endswith(": 'w', 'b'")
    assert stored.notes[1].startswith("no longer listed as graph inputs, as they are constants")
    np.testing.assert_array_equal(run(written, x=X), run(proto, x=X))


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_leaving_the_inputs_is_all_that_can_change_rounding(form: Form) -> None:
    # onnxruntime fuses constants but not inputs: outputs equal those of the same model with the
    # weight as a plain constant, bit for bit.
    proto = listed(8)
    written = checked(store(parsed(proto), [W], form))
    del proto.graph.input[1]
    np.testing.assert_array_equal(run(written, x=X), run(proto, x=X))


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_only_sparse_weights_leave_the_inputs_of_newer_models(form: Form) -> None:
    stored = store(parsed(listed(8)), [W], form)
    written = checked(stored)
    assert [value.name for value in written.graph.input] == ["x", "b"]
    assert stored.notes == (
        "no longer listed as graph inputs, as a sparse weight cannot be one: 'w'",
    )


# --- Constant nodes, bodies, functions -----------------------------------------------------------


@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize("opset", [9, 21])
def test_constant_nodes(form: Form, opset: int) -> None:
    proto = model_of(weights(), constant=True, opset=opset)
    stored = store(parsed(proto), [W], form)
    written = checked(stored)
    want = {9: {"sparse": "sparse"}, 21: {"sparse": "constant", "constant": "constant",
                                          "gaps": "gaps"}}[opset].get(form, "dense")  # fmt: skip
    assert stored.decisions[W].form == want
    assert read_back(written, W).tobytes() == weights().tobytes()
    np.testing.assert_array_equal(run(written, x=X), run(proto, x=X))
    if want == "constant":
        assert written.graph.node[0].name == "const"


def with_bodies(opset: int = 21) -> ModelProto:
    """An unnamed If; one branch has the weight as initializer, the other as a Constant node."""
    weight = numpy_helper.from_array(weights(), "w")
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SHAPE[1]])]
    taken = helper.make_graph([product], "taken", [], result, [weight])
    other = numpy_helper.from_array(weights(seed=1), "v")
    sum_of = [
        helper.make_node("Constant", [], ["v"], value=other),
        helper.make_node("Add", ["v", "outer"], ["s"]),
        helper.make_node("MatMul", ["x", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Not", ["c"], ["d"]),
            helper.make_node(
                "If", ["d"], ["z"], then_branch=taken, else_branch=helper.make_graph(
                    sum_of, "other", [], result
                )
            ),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SHAPE[0]]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, SHAPE[1]])],
        [numpy_helper.from_array(weights(seed=2), "outer")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_bodies(form: Form) -> None:
    proto = with_bodies()
    model = parsed(proto)
    addresses = [address for address, _, _ in walk_tensors(model.proto)]
    assert {address.scope for address in addresses} == {
        (), ("If_1.then_branch",), ("If_1.else_branch",)
    }  # fmt: skip
    stored = store(model, addresses, form)
    inside = "constant" if form == "sparse" else form
    assert [stored.decisions[address].form for address in addresses] == [form, inside, inside]
    written = checked(stored, full=form != "sparse")
    for address in addresses:
        want = model.array(model.tensors[address])
        assert read_back(written, address).tobytes() == want.tobytes()
    for condition in (True, False):
        feeds = {"x": X, "c": np.array(condition)}
        np.testing.assert_array_equal(run(written, **feeds), run(proto, **feeds))


def test_the_default_of_a_body_input_stays_dense() -> None:
    proto = with_bodies()
    branch = next(a.g for a in proto.graph.node[1].attribute if a.name == "then_branch")
    branch.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, SHAPE))
    address = TensorAddress(("If_1.then_branch",), "w")
    decision = store(parsed(proto), [address], "constant").decisions[address]
    assert decision.reason == "it is the default of an input of its body"


def test_bodies_of_old_opsets_stay_dense() -> None:
    model = parsed(with_bodies(opset=9))
    address = TensorAddress(("If_1.then_branch",), "w")
    decision = store(model, [address], "sparse").decisions[address]
    assert decision.reason == "a sparse Constant needs opset 11, here it is 9"


@pytest.mark.parametrize("form", SPARSE_FORMS)
def test_functions(form: Form) -> None:
    proto = model_of(weights(), constant=True)
    opsets = list(proto.opset_import)
    function = helper.make_function("my", "F", ["x"], ["y"], proto.graph.node, opsets)
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("F", ["x"], ["y"], domain="my"))
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("my", 1))
    address = TensorAddress(("function my:F",), "w")
    stored = store(parsed(proto), [address], form)
    assert stored.decisions[address].form == ("constant" if form == "sparse" else form)
    written = checked(stored, full=True)
    assert read_back(written, address).tobytes() == weights().tobytes()
    np.testing.assert_array_equal(run(written, x=X), run(proto, x=X))
    assert [len(written.graph.node), len(written.graph.initializer)] == [1, 0]


def test_a_stored_model_stores_again() -> None:
    proto = model_of(weights())
    forms: tuple[Form, ...] = ("sparse", "constant", "dense")
    for form in forms:
        proto = checked(store(parsed(proto), [W], form))
    assert read_back(proto, W).tobytes() == weights().tobytes()


@pytest.mark.parametrize("form", get_args(Form))
def test_readers_are_one_line(form: Form) -> None:
    assert readers(form)
    assert "\n" not in readers(form)
