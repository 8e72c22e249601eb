"""Masks in bits, and the payloads that they make."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from onnxprune.model.payload import ArrayPayload
from onnxprune.pruning.keep import Keep
from onnxprune.pruning.mask import MaskedPayload
from onnxprune.pruning.weights import (
    Float8Weights,
    FloatWeights,
    QuantizedWeights,
    Weights,
    magnitudes,
)
from tests.pruning.cut import CutPayload


@given(st.integers(0, 70), st.data())
def test_parts(size: int, data: st.DataObject) -> None:
    kept = np.random.default_rng(size).random(size) < 0.5
    first = data.draw(st.integers(0, size))
    last = data.draw(st.integers(first, size))
    keep = Keep.of(kept)
    assert keep.size == size
    part = keep.part(first, last)
    assert part.dtype == bool
    assert np.array_equal(part, kept[first:last])


def codes(bits: int, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**bits, count).astype(np.uint8)


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    each = 8 // bits
    padded = np.concatenate([values, np.zeros(-values.size % each, np.uint8)])
    result = np.zeros(padded.size // each, np.uint8)
    for place in range(each):
        result |= padded[place::each] << (place * bits)
    return result


SIZE = 29
FLOATS = np.random.default_rng(1).standard_normal(SIZE)
ZERO, SCALE = np.array(3, np.int8), np.array(0.25, np.float32)
WEIGHTS: dict[str, Weights] = {
    **{
        np.dtype(kind).name: FloatWeights(CutPayload(FLOATS.astype(kind), 7))
        for kind in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)
    },
    "int8": QuantizedWeights(
        CutPayload(np.arange(-14, 15, dtype=np.int8), 7), TensorProto.INT8, (SIZE,), ZERO, SCALE
    ),
    "uint4": QuantizedWeights(
        CutPayload(packed(codes(4, SIZE), 4), 3),
        TensorProto.UINT4,
        (SIZE,),
        np.array(3, np.uint8),
        SCALE,
    ),
    "uint2": QuantizedWeights(
        CutPayload(packed(codes(2, SIZE), 2), 3),
        TensorProto.UINT2,
        (SIZE,),
        np.array(1, np.uint8),
        SCALE,
    ),
    "float8": Float8Weights(
        CutPayload(FLOATS.astype(ml_dtypes.float8_e4m3fn), 7),
        TensorProto.FLOAT8E4M3FN,
        (SIZE,),
        SCALE,
    ),
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_what_is_not_kept_is_zero_and_the_rest_is_as_it_was(weights: Weights) -> None:
    kept = np.random.default_rng(2).random(SIZE) < 0.5
    masked = MaskedPayload(weights, Keep.of(kept), workers=1)
    assert (masked.size, masked.nbytes) == (weights.payload.size, weights.payload.nbytes)
    array = masked.array()
    assert array.dtype == masked.dtype == weights.payload.dtype
    before = weights.payload.array()
    values = magnitudes(weights)
    assert values.size == SIZE and (values > 0).any()
    after = magnitudes(
        type(weights)(**{**vars_of(weights), "payload": ArrayPayload(array)})  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(after, np.where(kept, values, 0))
    if weights.payload.size == SIZE:
        assert np.array_equal(array[kept].view(np.uint8), before[kept].view(np.uint8))


def vars_of(weights: Weights) -> dict[str, object]:
    from dataclasses import fields

    return {f.name: getattr(weights, f.name) for f in fields(weights) if f.init}  # type: ignore[arg-type]
