from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from onnxprune.errors import OutputError
from onnxprune.model.staging import check_target, staging


def test_file_appears_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with staging(tmp_path / "a.json") as stage:
        (stage.folder / "a.json").write_text("new")
        stage.commit(["a.json"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_text("old")
    with pytest.raises(OutputError, match="No space left"), staging(target) as stage:
        (stage.folder / "m.onnx").write_text("half")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_commit_moves_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(Path(b).name), real(a, b)))
    with staging(tmp_path / "m.onnx") as stage:
        for name in ("m.onnx", "m.onnx.data"):
            (stage.folder / name).write_text(name)
        stage.commit(["m.onnx.data", "m.onnx"])
    assert moved == ["m.onnx.data", "m.onnx"]


def test_target_rules(tmp_path: Path) -> None:
    source, old = tmp_path / "m.onnx", tmp_path / "old.onnx"
    source.write_text("model")
    old.write_text("old")
    link = tmp_path / "link.onnx"
    link.symlink_to(source)

    def refused(output: Path, match: str, *, overwrite: bool = True) -> None:
        with pytest.raises(OutputError, match=match):
            check_target(output, overwrite=overwrite, inputs=(source,))

    refused(source, "input file")
    refused(link, "input file")
    refused(tmp_path, "is a folder")
    refused(tmp_path / "no" / "m.onnx", "does not exist")
    refused(old, "--overwrite", overwrite=False)
    refused(Path("/dev/null"), "not a regular file")
    assert check_target(old, overwrite=True, inputs=(source,)) == old


def test_a_link_is_written_through(tmp_path: Path) -> None:
    old, link = tmp_path / "old.onnx", tmp_path / "link.onnx"
    old.write_text("old")
    link.symlink_to(old)
    assert check_target(link, overwrite=True, inputs=()) == Path(os.path.realpath(old))


def test_a_failure_on_the_way_to_the_disk_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems report it to the first fsync alone, which is the one in the background."""
    target, calls = tmp_path / "m.onnx", []
    target.write_text("old")

    def fails_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(OutputError, match="No space left"), staging(target) as stage:
        stage.write("m.onnx", [memoryview(b"new")])
        for thread in stage.flushes:
            thread.join()
        stage.commit(["m.onnx"])
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_second_run_waits_and_says_so(tmp_path: Path) -> None:
    target, said = tmp_path / "m.onnx", []

    def second() -> None:
        with staging(target, waiting=lambda: said.append("waiting")) as stage:
            (stage.folder / "m.onnx").write_text("second")
            stage.commit(["m.onnx"])

    thread = threading.Thread(target=second)
    with staging(target) as stage:
        thread.start()
        while not said:
            time.sleep(0.001)
        (stage.folder / "m.onnx").write_text("first")
        stage.commit(["m.onnx"])
        assert target.read_text() == "first"
    thread.join()
    assert target.read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
