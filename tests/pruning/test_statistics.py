from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto

from onnxprune.model.payload import ArrayPayload
from onnxprune.pruning import stream
from onnxprune.pruning.statistics import LayerStatistics, layer_statistics, prunability
from onnxprune.pruning.weights import FloatWeights, QuantizedWeights
from tests.pruning.cut import CutPayload


def statistics(values: np.ndarray, length: int = 7, workers: int = 1) -> LayerStatistics:
    return layer_statistics(FloatWeights(CutPayload(values, length=length)), workers=workers)


def weights_of_any_kind() -> st.SearchStrategy[np.ndarray]:
    """Random layers: any offset against their spread, any share of zeros, in every float type."""

    def make(seed: int, dtype: type, offset: float, zeros: float, size: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        values = (rng.standard_normal(size) * 0.1 + offset).astype(dtype)
        values[rng.random(size) < zeros] = 0
        return values

    return st.builds(
        make,
        st.integers(0, 2**32),
        st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64]),
        st.sampled_from([0.0, 0.01, -1.0, 100.0, 3000.0]),
        st.sampled_from([0.0, 0.0, 0.3, 0.95]),
        st.integers(1, 200),
    )


@given(weights_of_any_kind(), st.integers(1, 80))
def test_statistics_are_those_of_the_weights_alive(values: np.ndarray, length: int) -> None:
    found = statistics(values, length)
    alive = values.astype(np.float64)
    alive = alive[alive != 0]
    assert (found.size, found.alive, found.nonfinite) == (values.size, alive.size, 0)
    assert found.sparsity == 1 - alive.size / values.size
    if not alive.size:
        assert (found.mean, found.std, found.minimum, found.maximum) == (0, 0, 0, 0)
        return
    assert (found.minimum, found.maximum) == (alive.min(), alive.max())
    scale = np.abs(alive).max()
    assert found.mean == pytest.approx(alive.mean(), rel=1e-13, abs=1e-15 * scale)
    assert found.std == pytest.approx(np.std(alive), rel=1e-11, abs=1e-15 * scale)


@given(
    hnp.arrays(
        np.float64,
        st.integers(2, 30),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=64),
    )
)
def test_no_finite_weights_overflow_or_vanish(values: np.ndarray) -> None:
    found = statistics(values)
    alive = values[values != 0]
    assert found.alive == alive.size
    if alive.size and np.abs(alive).max() < 1e307:
        peak = np.abs(alive).max()
        scaled = alive.astype(np.longdouble) / peak
        assert found.std == pytest.approx(float(np.std(scaled) * peak), rel=1e-9, abs=1e-12 * peak)


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 1000)
    values = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    values[::3] = 0
    assert len({statistics(values, 3000, workers) for workers in (1, 2, 3, 4)}) == 1


def test_nonfinite_weights_are_counted_and_left_out() -> None:
    values = np.array([1, np.nan, -3, np.inf, 0, -np.inf, np.nan] * 3, np.float32)
    found = statistics(values, 5)
    assert found == LayerStatistics(21, 18, pytest.approx(-1.0), pytest.approx(2.0), -3.0, 1.0, 12)
    assert statistics(np.full(4, np.nan, np.float16)) == LayerStatistics(4, 4, 0, 0, 0, 0, 4)


def test_quantised_weights_have_statistics_of_their_values() -> None:
    codes = np.array([[10, 12, 11], [0, 3, 5]], np.uint8)
    weights = QuantizedWeights(
        ArrayPayload.of(codes),
        TensorProto.UINT8,
        codes.shape,
        np.array([10, 3], np.uint8),
        np.array([0.5, 2.0], np.float32),
        0,
    )
    alive = np.array([1.0, 0.5, -6.0, 4.0])
    found = layer_statistics(weights)
    assert (found.size, found.alive) == (6, 4)
    assert found.std == pytest.approx(alive.std())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "empty"),
        ([0.0, -0.0], "all weights are zero"),
        ([3.0], "a single weight"),
        ([0.0, 3.0], "a single weight that is not zero"),
        ([0.0, 0.1, 0.1, 0.1], "constant: every weight that is not zero is 0.1"),
        ([1e-320, 1.5e-320], None),
        ([0.1, np.nextafter(0.1, 1)], None),
        ([-2.0, 2.0], None),
    ],
)
def test_layers_that_no_threshold_fits_say_why(values: list[float], reason: str | None) -> None:
    found = statistics(np.array(values, np.float64))
    assert prunability(found) == reason
    if reason and reason.startswith("constant"):
        assert (found.mean, found.std) == (0.1, 0.0)


@given(st.floats(2**-10, 1024, width=32), st.integers(1, 2000), st.booleans())
def test_the_deviation_never_exceeds_the_largest_magnitude(
    level: float, count: int, with_zeros: bool
) -> None:
    row = [level, -level, 0.0] if with_zeros else [level, -level]
    found = layer_statistics(FloatWeights(ArrayPayload(np.tile(np.array(row, np.float32), count))))
    assert found.std <= np.float32(level)
