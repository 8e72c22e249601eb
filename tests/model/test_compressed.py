from __future__ import annotations

import gzip

import numpy as np
import pytest

from onnxprune.model.compressed import compressed_size, file_blocks


def test_small_streams_are_exact() -> None:
    data = np.random.default_rng(0).integers(0, 9, 100_000).astype(np.uint8).tobytes()
    size = compressed_size(file_blocks([memoryview(data)]), len(data))
    assert not size.estimated
    assert len(gzip.decompress(gzip.compress(data, 6))) == len(data)
    assert abs(size.bytes - len(gzip.compress(data, 6))) < 30


def test_large_streams_are_estimated_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.model.compressed.EXACT_LIMIT", 2**20)
    values = np.random.default_rng(0).standard_normal(2**21).astype(np.float32)
    values[np.random.default_rng(1).random(2**21) < 0.9] = 0
    data = values.tobytes()
    estimate = compressed_size(file_blocks([memoryview(data)]), len(data))
    assert estimate.estimated
    assert estimate.bytes == pytest.approx(len(gzip.compress(data, 6)), rel=0.03)
