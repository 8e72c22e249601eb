from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxprune.model.payload import ArrayPayload, MappedPayload
from onnxprune.pruning import stream
from onnxprune.pruning.floating import SMALLEST, FloatWeights, threshold_bits

DTYPES = [np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)]


def bits_of(dtype: np.dtype, elements: int = 40) -> st.SearchStrategy[np.ndarray]:
    """Arrays of any bit patterns: zeros of both signs, subnormals, huge values, infinity, NaN."""
    integer = np.dtype(f"u{dtype.itemsize}")
    top = 1 << (8 * dtype.itemsize - 1)
    inf = int(np.array([np.inf]).astype(dtype).view(integer)[0])
    special = [0, top, 1, top | 1, inf, inf | top, inf - 1, inf + 1, top - 1]
    element = st.sampled_from(special) | st.integers(0, 2 * top - 1)
    return hnp.arrays(integer, st.integers(1, elements), elements=element)


def as_float64(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return values.astype(np.float64)


@st.composite
def weights_and_threshold(draw: st.DrawFn) -> tuple[np.ndarray, float]:
    """Stored values, and a threshold at, just below or just above one of them, or anywhere."""
    dtype = draw(st.sampled_from(DTYPES))
    values = draw(bits_of(dtype)).view(dtype)
    pick = float(np.abs(as_float64(values))[draw(st.integers(0, values.size - 1))])
    anywhere = draw(st.floats(0, allow_nan=False))
    if math.isnan(pick):
        return values, anywhere
    near = [pick, math.nextafter(pick, 0) if pick else 0.0, math.nextafter(pick, math.inf)]
    return values, draw(st.sampled_from([*near, anywhere]))


@given(weights_and_threshold())
def test_pruning_compares_as_real_numbers_and_keeps_other_bits(
    case: tuple[np.ndarray, float],
) -> None:
    values, threshold = case
    weights = FloatWeights(ArrayPayload(values))
    below = np.abs(as_float64(values)) < threshold
    expected = np.where(below, 0, values.view(f"u{values.itemsize}"))

    pruned = weights.prune(values, 0, threshold)

    assert pruned.dtype == values.dtype
    np.testing.assert_array_equal(pruned.view(expected.dtype), expected)
    alive = np.count_nonzero(~below & (as_float64(values) != 0))
    assert weights.kept(values, 0, [threshold, 0.0]) == [
        alive,
        np.count_nonzero(as_float64(values) != 0),
    ]
    np.testing.assert_array_equal(weights.alive(values, 0), as_float64(values) != 0)
    np.testing.assert_array_equal(as_float64(weights.values(values, 0)), as_float64(values))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(threshold=st.floats(0, allow_nan=False))
def test_threshold_bits_are_those_of_the_smallest_value_not_below(
    dtype: np.dtype, threshold: float
) -> None:
    bits = threshold_bits(threshold, dtype)
    integer = f"u{dtype.itemsize}"
    value, before = as_float64(np.array([bits, max(bits - 1, 0)], integer).view(dtype))
    assert value >= threshold
    assert bits == 0 or before < threshold


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_threshold_above_all_finite_values_leaves_only_infinity_and_nan(dtype: np.dtype) -> None:
    values = np.array([1.0, float(ml_dtypes.finfo(dtype).max), np.inf, -np.inf, np.nan], dtype)
    above = math.inf if dtype == np.float64 else float(ml_dtypes.finfo(dtype).max) * 1.0001
    weights = FloatWeights(ArrayPayload(values))
    for threshold in (above, math.inf):
        pruned = as_float64(weights.prune(values, 0, threshold))
        np.testing.assert_array_equal(pruned, [0, 0, np.inf, -np.inf, np.nan])


def test_zeros_of_either_sign_stay_at_threshold_zero_and_become_plus_zero_above() -> None:
    values = np.array([-0.0, 0.0, -1e-45, 2.0], np.float32)
    weights = FloatWeights(ArrayPayload(values))
    assert weights.prune(values, 0, 0.0) is values
    np.testing.assert_array_equal(np.signbit(weights.prune(values, 0, SMALLEST)), [0, 0, 1, 0])


def test_blocks_and_unaligned_payloads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    whole = FloatWeights(ArrayPayload(values)).prune(values, 0, 0.7)
    monkeypatch.setattr(stream, "BLOCK", 64)
    payload = MappedPayload(memoryview(b"x" + values.tobytes()), 1, values.dtype, values.size)
    chunk = next(payload.chunks())
    np.testing.assert_array_equal(FloatWeights(payload).prune(chunk, 0, 0.7), whole)
    assert FloatWeights(payload).kept(chunk, 0, [0.7]) == [np.count_nonzero(whole)]
