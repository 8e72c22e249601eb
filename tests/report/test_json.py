"""The JSON form: stable keys, null for what is no number, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import OutputError
from onnxprune.report.json import check_json_target, to_dict, to_json, write_json
from onnxprune.report.report import InspectReport, Report

REPORT_KEYS = [
    *("schema", "kind", "version", "model", "output", "dry_run", "quality", "sparsity"),
    *("scope", "criterion", "pattern", "format", "readers", "layers", "unprunable", "dropouts"),
    *("parameters",),
    *(
        "sizes",
        "seconds",
        "accuracy",
        "repair",
        "search",
        "training",
        "latency",
        "structure",
        "parameters_output",
        "checks",
        "warnings",
        "notes",
    ),
    *("weights", "alive_before", "kept", "parameter_ratio", "parameters_kept", "total_ratio"),
    *("bytes_before", "bytes_after"),
]
LAYER_KEYS = [
    *("layer", "operators", "nodes", "shape", "dtype", "mean", "std", "quality", "threshold"),
    *("weights", "alive_before", "kept", "stored_as", "bytes_before", "bytes_after", "note"),
    *("shape_after", "kept_share", "ratio", "weights_after"),
]


def test_keys_are_stable(report: Report) -> None:
    data = to_dict(report)
    assert list(data) == REPORT_KEYS
    assert list(data["layers"][0]) == LAYER_KEYS
    assert (data["schema"], data["kind"]) == (1, "prune")


def test_facts_survive(report: Report) -> None:
    data = json.loads(to_json(report))
    assert data["kept"] == 37_330
    assert data["parameter_ratio"] == pytest.approx(405_500 / 37_330)
    assert data["parameters_kept"] == 37_910
    assert data["sizes"]["file_ratio"] == pytest.approx(1_624_500 / 248_310)
    assert data["layers"][0]["shape"] == [20, 1, 5, 5]
    assert data["layers"][2]["threshold"] is None
    assert data["checks"][2]["outcome"] == "skipped"
    assert data["dropouts"][0]["after"] == 0.1581
    assert data["latency"] is None
    assert data["training"] is None
    assert data["repair"] is None


def test_inspection(inspection: InspectReport) -> None:
    data = json.loads(to_json(inspection))
    assert data["kind"] == "inspect"
    assert data["facts"]["opsets"] == [["", 17], ["com.microsoft", 1]]
    assert data["layers"][0]["zero_shares"][2] == pytest.approx(0.7)
    assert data["kept"] == [320, 240, 120, 50, 10]


def test_no_nan_and_no_numpy(report: Report) -> None:
    odd: dict[str, Any] = {
        "mean": math.nan,
        "std": np.float32(math.inf),
        "kept": np.int64(3),
        "threshold": np.float64(0.5),
    }
    row = dataclasses.replace(report.layers[0], **odd)
    data = json.loads(to_json(dataclasses.replace(report, layers=(row,))))["layers"][0]
    assert (data["mean"], data["std"], data["kept"], data["threshold"]) == (None, None, 3, 0.5)


def test_hostile_text_is_ascii_json(report: Report) -> None:
    evil = "\x1b[2J\u202e\udcff\0"
    text = to_json(dataclasses.replace(report, model=evil))
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["model"] == evil


def test_written_whole_and_nothing_left_behind(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(report, path)
    assert path.read_text(encoding="ascii") == to_json(report)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_permissions_are_those_of_a_plain_file(report: Report, tmp_path: Path) -> None:
    path, plain = tmp_path / "report.json", tmp_path / "plain"
    plain.touch()
    write_json(report, path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    write_json(report, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_failed_write_leaves_the_old_file(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_json(report, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX links and devices")
def test_links_are_followed_and_devices_stay(report: Report, tmp_path: Path) -> None:
    target, link, device = tmp_path / "target", tmp_path / "link", tmp_path / "device"
    target.write_text("old")
    link.symlink_to(target)
    device.symlink_to("/dev/null")
    write_json(report, link)
    assert link.is_symlink()
    assert json.loads(target.read_text())["kind"] == "prune"
    check_json_target(device, overwrite=False, inputs=())
    write_json(report, device)
    assert stat.S_ISCHR(device.stat().st_mode)


def test_bad_targets_are_refused_before_the_work(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.touch()
    with pytest.raises(OutputError, match="is a folder"):
        check_json_target(tmp_path, overwrite=True, inputs=())
    with pytest.raises(OutputError, match="does not exist"):
        check_json_target(tmp_path / "no" / "a.json", overwrite=True, inputs=())
    with pytest.raises(OutputError, match="exists"):
        check_json_target(model, overwrite=False, inputs=())
    with pytest.raises(OutputError, match="replace the input"):
        check_json_target(tmp_path / "." / "model.onnx", overwrite=True, inputs=(model,))
    check_json_target(model, overwrite=True, inputs=())
    check_json_target(tmp_path / "new.json", overwrite=False, inputs=(model,))
