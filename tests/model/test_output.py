from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import OutputError
from onnxprune.model import save
from onnxprune.model.load import load
from onnxprune.model.output import stage_model
from onnxprune.model.save import to_proto
from onnxprune.model.staging import staging
from tests.builders import arrays, mlp, saved


def put(source: Path, target: Path, *, external: bool) -> int:
    with staging(target) as stage:
        staged = stage_model(load(source), stage, target, external=external)
        staged.commit()
    return staged.bytes


@pytest.mark.parametrize("external", [False, True])
def test_written_model_is_the_model_read(tmp_path: Path, external: bool) -> None:
    proto = mlp((40, 300, 10))
    source, target = saved(proto, tmp_path / "m.onnx"), tmp_path / "out.onnx"
    size = put(source, target, external=external)
    written = {p.name: p.stat().st_size for p in tmp_path.glob("out*")}
    assert sum(written.values()) == size
    assert ("out.onnx.data" in written) == external
    onnx.checker.check_model(str(target))
    if external:
        for name, values in arrays(onnx.load(target)).items():
            np.testing.assert_array_equal(values, arrays(proto)[name])
    else:
        assert onnx.load(target) == proto
    assert to_proto(load(target)) == proto


def test_external_tensors_start_at_pages(tmp_path: Path) -> None:
    put(saved(mlp((40, 300, 10)), tmp_path / "m.onnx"), tmp_path / "o.onnx", external=True)
    for tensor in onnx.load(tmp_path / "o.onnx", load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert int(entries.get("offset", 0)) % 4096 == 0


def test_a_new_pair_never_overwrites_the_old_data_before_the_model(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    first = saved(mlp((40, 300, 10), seed=1), tmp_path / "a.onnx")
    second = saved(mlp((40, 300, 10), seed=2), tmp_path / "b.onnx")
    put(first, target, external=True)
    with staging(target) as stage:
        staged = stage_model(load(second), stage, target, external=True)
        assert "out.onnx.data" not in staged.moved
        assert to_proto(load(target)) == mlp((40, 300, 10), seed=1)
        staged.commit()
    assert to_proto(load(target)) == mlp((40, 300, 10), seed=2)
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.onnx", "out.onnx.1.data"]


def test_the_same_output_twice_is_the_same_bytes(tmp_path: Path) -> None:
    source, target = saved(mlp((40, 300, 10)), tmp_path / "a.onnx"), tmp_path / "out.onnx"
    put(source, target, external=True)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("out*")}
    put(source, target, external=True)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("out*")} == before


def test_going_inline_removes_the_old_data_and_nothing_else(tmp_path: Path) -> None:
    source, target = saved(mlp((40, 300, 10)), tmp_path / "a.onnx"), tmp_path / "out.onnx"
    (tmp_path / "out.onnx.notes").write_text("mine")
    put(source, target, external=True)
    put(source, target, external=False)
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.onnx", "out.onnx.notes"]


def test_two_gigabytes_do_not_fit_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save, "INLINE_LIMIT", 10_000)
    source = saved(mlp((40, 300, 10)), tmp_path / "a.onnx")
    with pytest.raises(OutputError, match="external data"):
        put(source, tmp_path / "out.onnx", external=False)
    assert not (tmp_path / "out.onnx").exists()
