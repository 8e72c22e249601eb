from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.model import occupancy, payload
from onnxprune.model.gaps import GapsPayload, GapValuesPayload, gap_code, refusal
from onnxprune.model.housekeeping import FreshNames
from onnxprune.model.model import Model
from onnxprune.model.occupancy import scan
from onnxprune.model.payload import ArrayPayload
from onnxprune.model.tensors import TensorAddress
from tests.model.inline import materialise

ADDRESS = TensorAddress((), "w")


def entries(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    source = ArrayPayload(flat)
    found = scan(source)
    gaps, values = GapsPayload(source, found), GapValuesPayload(source, found)
    for part in (gaps, values):
        streamed = b"".join(chunk.tobytes() for chunk in part.chunks())
        assert streamed == part.array().tobytes()
        assert len(streamed) == part.nbytes
    return gaps.array(), values.array()


def scattered(gaps: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    whole = np.zeros(size, values.dtype)
    whole[np.cumsum(gaps, dtype=np.int64)] = values
    return whole


def coded(weight: np.ndarray) -> Model:
    """A model whose output is a gap-coded weight."""
    tensor = numpy_helper.from_array(weight, "w")
    source = ArrayPayload.of(weight)
    graph = GraphProto(name="g")
    graph.output.append(helper.make_tensor_value_info("w", tensor.data_type, weight.shape))
    code = gap_code(tensor, ADDRESS, source, scan(source), FreshNames(graph), {})
    graph.node.extend(code.nodes)
    graph.initializer.extend(code.tensors)
    opsets = [helper.make_opsetid("", 21)]
    return Model(helper.make_model(graph, opset_imports=opsets, ir_version=9), code.payloads)


def run(proto: ModelProto) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    outputs: Any = ReferenceEvaluator(proto).run(None, {})
    return np.asarray(outputs[0])


@pytest.mark.parametrize(
    ("kept", "gaps"),
    [
        ([], [0]),
        ([0], [0]),
        ([0, 1, 2], [0, 1, 1]),
        ([255], [255]),
        ([256], [255, 1]),
        ([0, 255], [0, 255]),
        ([0, 256], [0, 255, 1]),
        ([510], [255, 255]),
        ([1, 511, 512], [1, 255, 255, 1]),
        ([999], [255, 255, 255, 234]),
    ],
)
def test_distances(kept: list[int], gaps: list[int]) -> None:
    flat = np.zeros(1000, np.float32)
    flat[kept] = 7
    found, values = entries(flat)
    assert found.tolist() == gaps
    np.testing.assert_array_equal(scattered(found, values, flat.size), flat)


BITS = hnp.arrays(np.uint16, st.integers(1, 1500), elements=st.sampled_from([0x3C00, 0x8000]))


@given(BITS, st.floats(0, 1), st.integers(1, 300), st.randoms(use_true_random=False))
def test_any_mask_over_any_chunks(
    bits: np.ndarray, share: float, size: int, random: Random
) -> None:
    flat = np.where([random.random() < share for _ in bits], 0, bits).view(np.float16)
    with pytest.MonkeyPatch.context() as patch:
        for module in (payload, occupancy):
            patch.setattr(module, "CHUNK", size)
        gaps, values = entries(flat)
    assert scattered(gaps, values, flat.size).tobytes() == flat.tobytes()
    assert (gaps[1:] > 0).all()


@settings(max_examples=20)
@given(hnp.arrays(np.float32, (3, 4, 60), elements=st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.5])))
def test_nodes_compute_the_weight_exactly(weight: np.ndarray) -> None:
    model = coded(weight)
    assert run(materialise(model)).tobytes() == weight.tobytes()


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int8, np.uint8, np.int64, np.bool_])
def test_element_types(kind: type) -> None:
    weight: np.ndarray = np.zeros((40, 50), kind)
    weight[3, ::7] = 1
    assert run(materialise(coded(weight))).tobytes() == weight.tobytes()


@pytest.mark.parametrize(
    ("data_type", "opset", "reason"),
    [
        (TensorProto.FLOAT, 11, None),
        (TensorProto.FLOAT, onnx.defs.onnx_opset_version(), None),
        (TensorProto.BFLOAT16, 20, None),
        (TensorProto.FLOAT, 10, "the gap code needs opset 11, here it is 10"),
        (TensorProto.BFLOAT16, 18, "ConstantOfShape of opset 18 has no bfloat16"),
        (TensorProto.FLOAT8E4M3FN, 21, "ScatterElements of opset 21 has no float8e4m3fn"),
        (TensorProto.INT4, 24, "ScatterElements of opset 24 has no int4"),
        (TensorProto.STRING, 13, "ConstantOfShape of opset 13 has no string"),
    ],
)
def test_types_that_the_operators_lack(data_type: int, opset: int, reason: str | None) -> None:
    assert refusal(data_type, opset) == reason


def test_an_opset_from_the_future() -> None:
    """Nobody knows whether the nodes mean there what they mean today."""
    newest = onnx.defs.onnx_opset_version()
    reason = refusal(TensorProto.FLOAT, newest + 1)
    assert reason == f"opset {newest + 1} is newer than the installed onnx package knows ({newest})"


def test_positions_beyond_int32_are_int64() -> None:
    class Huge(ArrayPayload):
        @property
        def size(self) -> int:
            return 2**31 + 1

    source = Huge(np.ones(1, np.float32))
    found = scan(ArrayPayload(source.flat))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[source.size])
    code = gap_code(tensor, ADDRESS, source, found, FreshNames(GraphProto()), {})
    assert code.nodes[0].attribute[0].i == TensorProto.INT64


def test_names_are_free_and_small_constants_shared() -> None:
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    source = ArrayPayload.of(np.ones(6, np.float32))
    fresh = FreshNames(GraphProto(input=[helper.make_empty_tensor_value_info("w_gaps")]))
    first = gap_code(tensor, ADDRESS, source, scan(source), fresh, {})
    second = gap_code(tensor, TensorAddress((), "v"), source, scan(source), fresh, first.constants)
    names = [item.name for item in first.tensors]
    assert names == ["w_gaps_1", "w_values", "gap_axis", "w_size", "w_shape"]
    assert [item.name for item in second.tensors] == ["v_gaps", "v_values"]
