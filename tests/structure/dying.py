"""Networks with dead neurons, and what must hold of them before and after these are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure.analysis import analyse
from onnxprune.structure.constants.known import Known
from onnxprune.structure.constants.trace import find_constants
from onnxprune.structure.dead import Shrunk, shrink, shrink_once
from onnxprune.structure.sizes import constant_tensors
from tests.builders import arrays
from tests.structure.graphs import Case, built, feed
from tests.structure.proof import Feeds, Via, as_it_is, free_inputs, run, valid

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
RANDOM = np.random.default_rng(11)
PADDED = "h = Conv(x, w, b)\ng = Sigmoid(h)\n"


def zeroed(values: tuple[int, ...] | np.ndarray, *, axis: int, at: tuple[int, ...]) -> np.ndarray:
    """Weights, random where a shape is given, with zeros at whole indices of an axis."""
    shaped = isinstance(values, tuple)
    array = RANDOM.standard_normal(values).astype(np.float32) if shaped else values.copy()
    array[(slice(None),) * axis + (list(at),)] = 0
    return array


def damaged(model: ModelProto, seed: int, rate: float) -> ModelProto:
    """A copy in which rows, columns, channels and elements of weights are zero at random.

    Args:
        model: Any model.
        seed: Of the choice.
        rate: Share of the indices of each axis of each matrix or kernel that are zeroed.
    """
    copy, random = ModelProto(), np.random.default_rng(seed)
    copy.CopyFrom(model)
    scales = {name for node in model.graph.node if node.op_type == "Resize" for name in node.input}
    for tensor in copy.graph.initializer:
        if tensor.data_type not in FLOATS or not tensor.dims or tensor.name in scales:
            continue
        array = numpy_helper.to_array(tensor).copy()
        for axis in [axis for axis in range(array.ndim) if axis < 2 or axis >= array.ndim - 2]:
            if array.ndim > 1 and array.shape[axis] > 1:
                gone = np.flatnonzero(random.random(array.shape[axis]) < rate)
                array[(slice(None),) * axis + (gone,)] = 0
        array *= random.random(array.shape) >= rate / 4
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def unshrunk(model: ModelProto, feeds: Sequence[Feeds]) -> list[list[np.ndarray]]:
    return [run(model, feed) for feed in feeds]


def prove_equal(
    model: ModelProto, smaller: ModelProto, feeds: Sequence[Feeds], tolerance: float = 1e-5
) -> None:
    """Outputs are those of the larger model, relative to the largest of them."""
    if valid(model):
        onnx.checker.check_model(smaller, full_check=True)
    assert free_inputs(smaller) == free_inputs(model)
    for one in feeds:
        for expected, found in zip(run(model, one), run(smaller, one), strict=True):
            assert expected.shape == found.shape and expected.dtype == found.dtype
            if expected.dtype.kind != "f":
                np.testing.assert_array_equal(found, expected)
                continue
            wide = expected.astype(np.float64)
            scale = max(1.0, float(np.abs(wide).max(initial=0)))
            np.testing.assert_allclose(
                found.astype(np.float64), wide, atol=tolerance * scale, rtol=tolerance
            )


def prove_constants(
    model: ModelProto, feeds: Sequence[Feeds], *, via: Via = as_it_is
) -> Mapping[str, Known]:
    """Every constant that is found holds in onnxruntime, whatever is fed."""
    coupling = analyse(model)
    facts = find_constants(coupling)
    proto = ModelProto()
    proto.CopyFrom(coupling.prepared.proto)
    types = coupling.prepared.sizes.one.types
    outputs = {info.name for info in proto.graph.output}
    made = [
        name
        for node in proto.graph.node
        for name in node.output
        if name in facts and node.op_type != "Constant"
    ]
    names = [name for name in made if name not in outputs]
    for name in names:
        proto.graph.output.append(helper.make_tensor_value_info(name, types[name], None))
    places = {info.name: index for index, info in enumerate(proto.graph.output)}
    for one in feeds:
        results = run(via(proto), one)
        for name in made:
            result, fact = results[places[name]], facts[name]
            assert fact.mask.ndim == result.ndim, name
            mask = np.broadcast_to(fact.mask, result.shape)
            values = np.broadcast_to(fact.values, result.shape)
            np.testing.assert_allclose(
                result[mask].astype(np.float64), values[mask].astype(np.float64),
                rtol=1e-4, atol=1e-5, err_msg=name,
            )  # fmt: skip
    return facts


def prove_shrunk(
    model: ModelProto, feeds: Sequence[Feeds], tolerance: float = 1e-5, align: int = 1
) -> Shrunk:
    """Shrink a model: outputs are equal, it is valid, and nothing more is dead in it."""
    before = model.SerializeToString()
    done = shrink(read(model), align=align)
    assert model.SerializeToString() == before
    smaller = to_proto(done.model)
    if done.reason:
        assert not done.rows and smaller.SerializeToString() == before
        return done
    assert count(smaller) < count(model)
    prove_equal(model, smaller, feeds, tolerance)
    assert not shrink_once(smaller, align).rows
    return done


def count(model: ModelProto) -> int:
    """Elements of all constant tensors that are no sizes."""
    return sum(
        int(np.prod(t.dims))
        for _, t in constant_tensors(model.graph)
        if len(t.dims) and t.data_type in (*FLOATS, TensorProto.BFLOAT16, TensorProto.INT8)
    )


def shrunk(case: Case, align: int = 1, tolerance: float = 1e-5) -> tuple[Shrunk, ModelProto]:
    model = built(case)
    done = prove_shrunk(model, [feed(case, 1), feed(case, 3)], tolerance, align)
    return done, to_proto(done.model)


def shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays(model).items()}
