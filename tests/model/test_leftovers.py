"""What killed runs leave is cleared away by the next, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxprune.model.leftovers import PREFIX, hidden_name, record, sweep
from tests.builders import mlp, saved


def folder_of(target: Path, name: str = "abcd1234") -> Path:
    folder = target.with_name(f"{hidden_name(target)}{PREFIX}{name}")
    folder.mkdir()
    return folder


def test_a_folder_of_the_same_target_goes(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    (folder_of(target) / "half").write_bytes(b"half a mod")
    others = [
        folder_of(tmp_path / "out.onnx2"),
        folder_of(target, "of.another.target"),
        tmp_path / ".out.onnx.abc123",
    ]
    others[2].mkdir()
    sweep(target)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_recorded_data_goes_unless_the_model_reads_it(tmp_path: Path) -> None:
    target = saved(mlp((40, 300, 10)), tmp_path / "out.onnx", external=True)
    used = tmp_path / "out.onnx.data"
    (tmp_path / "out.onnx.bin").rename(used)
    proto = onnx.load(target, load_external_data=False)
    for tensor in proto.graph.initializer:
        tensor.external_data[0].value = used.name
    onnx.save_model(proto, target)
    orphan, foreign = tmp_path / "out.onnx.1.data", tmp_path / "out.onnx.2.data"
    for path in (orphan, foreign):
        path.write_bytes(b"data")
    folder = folder_of(target)
    record(folder, [used, orphan, foreign])
    foreign.unlink()
    (tmp_path / "new").write_bytes(b"of somebody else")
    (tmp_path / "new").rename(foreign)
    sweep(target)
    assert used.exists() and foreign.exists()
    assert not orphan.exists() and not folder.exists()


def test_nothing_goes_beside_a_model_that_cannot_be_read(tmp_path: Path) -> None:
    target, data = tmp_path / "out.onnx", tmp_path / "out.onnx.data"
    target.write_bytes(b"not a model")
    data.write_bytes(b"data")
    record(folder_of(target), [data])
    sweep(target)
    assert data.exists()


def test_half_a_record_is_no_record(tmp_path: Path) -> None:
    target, data = tmp_path / "out.onnx", tmp_path / "out.onnx.data"
    data.write_bytes(b"data")
    folder = folder_of(target)
    record(folder, [data])
    (folder / "commit.json").write_text('{"out.onnx.da')
    sweep(target)
    assert data.exists() and not folder.exists()


def test_names_stay_short_and_differ(tmp_path: Path) -> None:
    names = {hidden_name(Path("ä" * 120 + end)) for end in ("a", "b")}
    assert len(names) == 2
    assert max(len(name.encode()) for name in names) < 100
