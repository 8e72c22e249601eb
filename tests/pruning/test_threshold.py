from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from onnxprune.pruning.mask import kept_counts
from onnxprune.pruning.statistics import layer_statistics
from onnxprune.pruning.threshold import quality_threshold, sparsity_thresholds
from onnxprune.pruning.weights import FloatWeights, QuantizedWeights, Weights
from tests.pruning.cut import CutPayload


def layer(seed: int, kind: str, size: int, coarse: bool) -> tuple[Weights, np.ndarray]:
    """Weights of some storage type and their values; coarse ones have many equal magnitudes."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(size)
    if coarse:
        values = np.round(values * 2) / 2
    if kind == "int8":
        codes = np.clip(np.round(values * 20), -127, 127).astype(np.int8)
        scale = np.array(0.04, np.float32)
        weights = QuantizedWeights(
            CutPayload(codes), TensorProto.INT8, (size,), np.zeros((), np.int8), scale
        )
        return weights, codes * np.float64(scale)
    dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    stored = values.astype(dtype)
    return FloatWeights(CutPayload(stored)), stored.astype(np.float64)


layers = st.lists(
    st.builds(
        layer,
        st.integers(0, 2**32),
        st.sampled_from(["float16", "bfloat16", "float32", "float64", "int8"]),
        st.integers(1, 60),
        st.booleans(),
    ),
    min_size=1,
    max_size=3,
)


def closest_share(magnitudes: np.ndarray, target: float) -> int:
    """How many weights are zero with the threshold that comes closest to the target."""
    reachable = {int(np.count_nonzero(magnitudes == 0)), magnitudes.size}
    reachable |= {int(np.count_nonzero(magnitudes < m)) for m in magnitudes if m}
    goal = target * magnitudes.size
    return min(sorted(reachable), key=lambda count: abs(count - goal))


@given(layers, st.floats(0, 1))
def test_a_shared_threshold_comes_closest_to_the_target(
    some: list[tuple[Weights, np.ndarray]], target: float
) -> None:
    weights = [one for one, _ in some]
    magnitudes = np.abs(np.concatenate([values for _, values in some]))
    thresholds = sparsity_thresholds(weights, target, workers=1)
    assert len(set(thresholds)) == 1
    kept = sum(counts[0] for counts in kept_counts(weights, [[t] for t in thresholds], workers=1))
    assert magnitudes.size - kept == closest_share(magnitudes, target)


@given(layers, st.sampled_from([0.1, 0.5, 0.75, 1.0]))
def test_each_layer_reaches_the_target_on_its_own(
    some: list[tuple[Weights, np.ndarray]], target: float
) -> None:
    weights = [one for one, _ in some]
    thresholds = sparsity_thresholds(weights, target, scope="layer", workers=1)
    counts = kept_counts(weights, [[t] for t in thresholds], workers=1)
    for (_, values), (kept,) in zip(some, counts, strict=True):
        assert values.size - kept == closest_share(np.abs(values), target)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_threshold_is_the_magnitude_of_that_rank(dtype: type) -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(dtype)
    [threshold] = sparsity_thresholds([FloatWeights(CutPayload(values, length=999))], 0.9)
    ranked = np.sort(np.abs(values).astype(np.float64))
    assert ranked[8999] < threshold <= ranked[9000]
    # The threshold has the type of the weights: comparing in that type gives the same count.
    assert np.count_nonzero(np.abs(values) < threshold) == 9000


def test_zeros_that_are_there_count_and_nothing_more_goes() -> None:
    values = np.array([0, -0.0, 0, 1, 2], np.float32)
    assert sparsity_thresholds([FloatWeights(CutPayload(values))], 0.5) == [0.0]
    assert sparsity_thresholds([FloatWeights(CutPayload(values))], 0.0) == [0.0]
    assert sparsity_thresholds([], 0.5) == []


def test_equal_magnitudes_stay_where_both_ways_are_as_close() -> None:
    weights = FloatWeights(CutPayload(np.array([1, -1, 1, 1], np.float32)))
    [stay], [go] = sparsity_thresholds([weights], 0.5), sparsity_thresholds([weights], 0.51)
    assert (stay, go) == (1.0, float(np.nextafter(np.float32(1), np.float32(2))))


def test_quality_is_in_standard_deviations() -> None:
    statistics = layer_statistics(FloatWeights(CutPayload(np.array([-3.0, 1.0, 0.0]))))
    assert quality_threshold(1.5, statistics) == 3.0
    assert quality_threshold(0.0, statistics) == 0.0
