"""Running small models: in float32 with onnxruntime, in float64 with whatever can."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.versions import has_older_runtime

Values = Mapping[str, np.ndarray]


def evaluate(model: ModelProto, feeds: Values) -> dict[str, np.ndarray]:
    """All outputs of a model, in onnxruntime."""
    return _session(model, dict(feeds))()


def evaluator64(model: ModelProto, values: Values) -> Callable[[Values], dict[str, np.ndarray]]:
    """A function from changed inputs to outputs: the model in float64 at `values`.

    Raises:
        AssertionError: Nothing computes the model in full float64 precision.
    """
    double = _in_float64(model)
    names = [info.name for info in double.graph.input]
    feeds = {name: _double(values[name]) for name in names}
    outputs = [info.name for info in double.graph.output]
    for make in (_onnxruntime, _reference):
        try:
            run = make(double, outputs)
            near, far = run(_scaled(feeds, 1 + 1e-9)), run(_scaled(feeds, 1 + 1e-3))
        except Exception:  # no float64 kernel
            continue
        if _is_double(near, far):
            return lambda changed, run=run: run({**feeds, **changed})
    if has_older_runtime():
        pytest.skip("nothing of this age computes this in float64")
    raise AssertionError("nothing computes this in float64: give the case a numpy `reference`")


def _session(
    model: ModelProto, feeds: dict[str, np.ndarray]
) -> Callable[[], dict[str, np.ndarray]]:
    outputs = [info.name for info in model.graph.output]
    kept = [info for info in model.graph.input if info.name in feeds]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    run = _onnxruntime(model, outputs)
    return lambda: run(feeds)


def _onnxruntime(
    model: ModelProto, outputs: list[str]
) -> Callable[[Values], dict[str, np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: dict(zip(outputs, session.run(outputs, dict(feeds)), strict=True))


def _reference(model: ModelProto, outputs: list[str]) -> Callable[[Values], dict[str, np.ndarray]]:
    evaluator = ReferenceEvaluator(model)
    return lambda feeds: dict(zip(outputs, evaluator.run(outputs, dict(feeds)), strict=True))


def _scaled(feeds: Values, factor: float) -> dict[str, np.ndarray]:
    return {
        name: value * factor if value.dtype.kind == "f" else value for name, value in feeds.items()
    }


def _is_double(near: Values, far: Values) -> bool:
    """Whether results are float64, and none that changes with the inputs is rounded to float32."""
    for name, result in near.items():
        if result.dtype.kind != "f":
            continue
        with np.errstate(over="ignore"):
            rounded = np.array_equal(result, result.astype(np.float32).astype(np.float64))
        constant = np.array_equal(result, far[name])
        if result.dtype != np.float64 or (rounded and not constant):
            return False
    return True


def _in_float64(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == 1:
                attribute.i = TensorProto.DOUBLE
    return copy


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
