from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import latency
from onnxprune.model import budget, save
from tests.builders import arrays, mlp, saved

SIZES = (40, 300, 200, 10)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that the model's sparse forms pass together, but not each alone."""
    monkeypatch.setattr(budget, "ROOM", 0)
    for module in (budget, latency, save):
        monkeypatch.setattr(module, "INLINE_LIMIT", 100_000)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("external", [False, True])
def test_the_largest_sparse_forms_stay_dense(external: bool, tmp_path: Path) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=external)
    result = onnxprune.prune(source, quality=1.0)
    report = result.save(tmp_path / "out.onnx")
    assert [row.stored_as for row in report.layers] == ["sparse", "dense", "sparse"]
    assert "past 2 GB" in report.layers[1].note
    assert (tmp_path / "out.onnx").stat().st_size <= 100_000
    assert any("too many for one file" in note for note in report.notes) != external
    again = onnxprune.prune(tmp_path / "out.onnx", quality=0.0).to_proto
    with pytest.raises(onnxprune.OutputError, match="over 2 GB"):
        again()


def test_within_the_limit_nothing_changes(tmp_path: Path) -> None:
    report = onnxprune.prune(mlp(SIZES), quality=1.0).save(tmp_path / "out.onnx")
    assert {row.stored_as for row in report.layers} == {"sparse"}
    assert not (tmp_path / "out.onnx.data").exists()
    assert report.notes == ()


@pytest.mark.usefixtures("small_limit")
def test_values_survive(tmp_path: Path) -> None:
    onnxprune.prune(mlp(SIZES), quality=1.0, format="dense").save(tmp_path / "dense.onnx")
    assert (tmp_path / "dense.onnx.data").exists()
    for name, values in arrays(onnx.load(tmp_path / "dense.onnx")).items():
        before = arrays(mlp(SIZES))[name].astype(np.float64)
        keep = np.abs(before) >= before.std() if name.endswith("weight") else np.ones_like(before)
        np.testing.assert_array_equal(values, np.where(keep, before, 0))
