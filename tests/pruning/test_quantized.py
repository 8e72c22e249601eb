from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from onnxprune.model.dtypes import logical_dtype, unpack
from onnxprune.pruning.quantized import Float8Weights, QuantizedWeights
from onnxprune.pruning.stream import slices
from tests.pruning.cut import CutPayload, pruned_in_slices

KINDS = ["INT8", "UINT8", "INT16", "UINT16", "INT32", "INT4", "UINT4"]
FLOAT8 = ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"]


def code_range(data_type: int) -> tuple[int, int]:
    info = ml_dtypes.iinfo(logical_dtype(data_type))
    return int(info.min), int(info.max)


def stored(codes: np.ndarray, data_type: int) -> np.ndarray:
    """Storage elements of whole-number codes; 4-bit ones two to a byte, 0xF filling the last."""
    if logical_dtype(data_type).itemsize > 1 or data_type in (TensorProto.INT8, TensorProto.UINT8):
        return codes.astype(logical_dtype(data_type)).reshape(-1)
    nibbles = np.append(codes.reshape(-1) & 0xF, [0xF] * (codes.size % 2)).astype(np.uint8)
    return nibbles[::2] | nibbles[1::2] << 4


def spread(parameter: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """The plain way to lay parameters over a tensor."""
    if parameter.size == 1:
        return np.broadcast_to(parameter.reshape(()), shape)
    if block:
        repeated = np.repeat(parameter, block, axis)
        return np.take(repeated, range(shape[axis]), axis)
    return np.broadcast_to(parameter.reshape([-1 if i == axis else 1 for i in range(3)]), shape)


@st.composite
def quantised(draw: st.DrawFn) -> tuple[QuantizedWeights, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, and their codes, zero points and values worked out the plain way."""
    data_type = getattr(TensorProto, draw(st.sampled_from(KINDS)))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=3, max_size=3)))
    axis, block = draw(st.integers(0, 2)), draw(st.sampled_from([0, 0, 1, 2, 3]))
    low, high = code_range(data_type)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def parameter() -> tuple[int, ...]:
        if draw(st.booleans()):
            return ()
        if not block:
            return (shape[axis],)
        return tuple(-(-n // block) if i == axis else n for i, n in enumerate(shape))

    codes = rng.integers(low, high, shape, endpoint=True)
    near_zero = rng.integers(max(low, -3), 3, shape, endpoint=True)
    codes = np.where(rng.random(shape) < 0.5, codes, near_zero)
    zero_point = rng.integers(max(low, -3), 3, parameter(), endpoint=True)
    scale = rng.choice([0.0, 0.1, 0.5, -0.25, 3e-5, 1.0], parameter())
    scale = None if draw(st.booleans()) else np.asarray(scale, np.float32)
    weights = QuantizedWeights(
        CutPayload(stored(codes, data_type)),
        data_type,
        shape,
        np.asarray(zero_point).astype(logical_dtype(data_type)),
        scale,
        axis,
        block,
    )
    zeros = spread(np.asarray(zero_point), shape, axis, block)
    factor = 1.0 if scale is None else spread(scale, shape, axis, block).astype(np.float64)
    return weights, codes.reshape(-1), zeros.reshape(-1), ((codes - zeros) * factor).reshape(-1)


def decoded(flat: np.ndarray, weights: QuantizedWeights) -> np.ndarray:
    return unpack(flat, weights.data_type, weights.size).astype(np.int64)


@given(quantised(), st.data())
def test_codes_below_the_threshold_become_the_zero_point(
    case: tuple[QuantizedWeights, np.ndarray, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    weights, codes, zeros, values = case
    pick = abs(float(values[data.draw(st.integers(0, values.size - 1))]))
    near = [pick, np.nextafter(pick, 0), np.nextafter(pick, np.inf), 0.2, 1e30, np.inf]
    threshold = float(data.draw(st.sampled_from(near)))
    below = np.abs(values) < threshold

    pruned = pruned_in_slices(weights, threshold)

    assert pruned.dtype == weights.payload.dtype
    np.testing.assert_array_equal(decoded(pruned, weights), np.where(below, zeros, codes))
    if weights.size % 2 and weights.payload.size != weights.size:
        assert pruned[-1] >> 4 == 0xF
    alive = np.count_nonzero(~below & (values != 0))
    chunks = list(slices(weights.payload))
    assert sum(weights.kept(*chunk, [threshold])[0] for chunk in chunks) == alive
    read = np.concatenate([weights.values(*chunk) for chunk in chunks])
    np.testing.assert_array_equal(read, values)
    present = np.concatenate([weights.alive(*chunk) for chunk in chunks])
    np.testing.assert_array_equal(present, values != 0)


def test_limits_are_those_of_the_rounded_product() -> None:
    # 3 * 0.1 in float64 is above 0.3: the quotient 0.3 / 0.1 rounds to just under 3.
    codes = np.array([-4, -3, -2, 2, 3, 4], np.int8)
    weights = QuantizedWeights(
        CutPayload(codes), TensorProto.INT8, (6,), np.array(0, np.int8), np.array(0.1)
    )
    np.testing.assert_array_equal(weights.prune(codes, 0, 0.3), [-4, -3, 0, 0, 3, 4])


def test_a_long_last_axis_takes_its_scales_without_a_pattern() -> None:
    length = 300_000
    scale = np.where(np.arange(length) % 3, 1.0, 100.0).astype(np.float32)
    codes = np.ones((2, length), np.int8).reshape(-1)
    weights = QuantizedWeights(
        CutPayload(codes, length=70_001), TensorProto.INT8, (2, length), np.int8(0), scale, 1
    )
    np.testing.assert_array_equal(
        pruned_in_slices(weights, 50.0).reshape(2, -1), [np.arange(length) % 3 == 0] * 2
    )


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_weights_of_a_nonfinite_scale_are_seen_and_stay(scale: float) -> None:
    codes = np.array([[1, 2], [3, 4]], np.int8)
    weights = QuantizedWeights(
        CutPayload(codes.reshape(-1)),
        TensorProto.INT8,
        codes.shape,
        np.array(0, np.int8),
        np.array([1.0, scale], np.float32),
        0,
    )
    np.testing.assert_array_equal(pruned_in_slices(weights, 10.0), [0, 0, 3, 4])
    assert not np.isfinite(weights.values(codes.reshape(-1), 0)[2:]).any()


@pytest.mark.parametrize("kind", FLOAT8)
@pytest.mark.parametrize("scale", [None, np.array([0.5, 3.0], np.float32)])
def test_float8_codes_compare_by_value(kind: str, scale: np.ndarray | None) -> None:
    data_type = getattr(TensorProto, kind)
    codes = np.tile(np.arange(256, dtype=np.uint8), 2)
    values = codes.view(logical_dtype(data_type)).astype(np.float64).reshape(2, 256)
    if scale is not None:
        values = values * scale[:, None]
    weights = Float8Weights(
        CutPayload(codes.view(logical_dtype(data_type)), length=100), data_type, (2, 256), scale, 0
    )
    for threshold in (0.1, 1.0, float(np.nanmax(values[np.isfinite(values)]))):
        below = (np.abs(values) < threshold).reshape(-1)
        pruned = pruned_in_slices(weights, threshold)
        np.testing.assert_array_equal(pruned.view(np.uint8), np.where(below, 0, codes))
        kept = np.count_nonzero(~below)
        assert weights.kept(weights.payload.array(), 0, [threshold]) == [kept]
    assert weights.prune(codes, 0, 0.0) is codes
