"""What the command line says and does about structure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import OutputError
from onnxprune.structure.config import ChannelConfig, StructureConfig
from tests.builders import mlp, saved
from tests.structure.layered import SIZES, dying

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, report_of: Any) -> Callable[[str], dict[str, Any]]:
    from onnxprune import api

    calls: list[dict[str, Any]] = []

    def prune_file(*arguments: Any, **options: Any) -> onnxprune.Report:
        calls.append({"config": arguments[2], **options})
        return report_of

    monkeypatch.setattr(api, "prune_file", prune_file)

    def ask(line: str) -> dict[str, Any]:
        assert main(["m.onnx", *line.split()]) == 0
        return calls[-1]

    return ask


@pytest.fixture
def report_of() -> onnxprune.Report:
    return onnxprune.prune(mlp(), quality=0).report


def test_flags_are_settings(asked: Callable[[str], dict[str, Any]]) -> None:
    assert asked("")["structure"] == StructureConfig()
    assert asked("--shrink --latency")["structure"] == StructureConfig(shrink=True, latency=True)
    declined = asked("--no-shrink --no-latency")["structure"]
    assert declined == StructureConfig(shrink=False, latency=False)
    call = asked("--channels 0.5 --importance l2 --align 4 --scope layer")
    channels = ChannelConfig(0.5, importance="l2", align=4, scope="layer")
    assert call["structure"] == StructureConfig(channels, align=4)
    assert (call["config"].quality, call["config"].scope) == (0.0, "global")
    assert asked("--macs 0.4")["structure"].channels == ChannelConfig(macs=0.4)
    call = asked("--speedup 2 --sparsity 0.5 --scope layer")
    assert call["structure"].channels == ChannelConfig(speedup=2.0, scope="layer")
    assert (call["config"].sparsity, call["config"].scope) == (0.5, "layer")
    assert asked("--channels 0.5 -q 1.5")["config"].quality == 1.5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--importance l2", "importance chooses channels"),
        ("--align 4 --no-shrink", "align says how many channels stay"),
        ("--channels 0.5 --speedup 2", "channels and speedup exclude each other"),
        ("--channels 2", "channels is 2.0: give a share"),
        ("--align 1.5", 'unable to convert "1.5" into int'),
        ("--scope layer", "scope layer says what meets a target sparsity"),
    ],
)
def test_the_command_refuses(line: str, words: str, capsys: Capture) -> None:
    assert main(["m.onnx", *line.split()]) == 2
    assert words in capsys.readouterr().err


def test_the_summary_has_a_row_for_each_group(tmp_path: Path, capsys: Capture) -> None:
    source = saved(dying(), tmp_path / "m.onnx")
    line = [str(source), "--channels", "0.25", "-q", "0.3", "--json", f"{tmp_path / 'r.json'}"]
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "fc0.weight out = fc1.weight in" in text and "now" in text.splitlines()[3]
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["structure"]["channels"][0]["after"] == 48
    assert facts["layers"][0]["shape_after"][0] <= 48
    assert facts["latency"]["threads"] == 1


def test_a_dry_run_says_the_same(tmp_path: Path) -> None:
    source = saved(dying(), tmp_path / "m.onnx")
    dry = onnxprune.prune(source, channels=0.5, quality=0.3, latency=False).report
    wet = onnxprune.prune(source, channels=0.5, quality=0.3, latency=False).save(
        tmp_path / "model.onnx"
    )
    assert dry.layers == wet.layers and dry.structure == wet.structure
    assert dry.sizes.file_output == wet.sizes.file_output


def test_groups_and_barriers_are_listed(tmp_path: Path, capsys: Capture) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx")
    coupled = onnxprune.inspect(source, groups=True).coupled
    assert [(group.name, group.channels, group.tensors) for group in coupled.groups] == [
        ("fc0.weight out = fc1.weight in", 64, 3),
        ("fc1.weight out = fc2.weight in", 48, 3),
    ]
    members = coupled.groups[0].members
    assert {(m.tensor, m.axis, m.role, m.size, m.repeats) for m in members} == {
        ("fc0.weight", 0, "out", 64, 1), ("fc1.weight", 1, "in", 64, 1), ("fc0.bias", 0, "", 64, 1),
    }  # fmt: skip
    assert ("fc2.weight out", 10, "y", "output") in {
        (row.axis, row.kept, row.node, row.operator) for row in coupled.barriers
    }
    assert main(["inspect", str(source), "--groups"]) == 0
    text = capsys.readouterr().out
    assert "112 channels in 2 groups can be removed" in text
    assert "fc0.weight out = fc1.weight in" in text and "is an output of the model" in text
    assert main(["inspect", str(source), "--groups", "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["coupled"]["groups"][1]["channels"] == 48
    assert main(["inspect", str(source), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["coupled"] is None


def test_groups_of_a_model_over_2_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import grouping

    def refuse(_: object) -> ModelProto:
        raise OutputError("too large")

    monkeypatch.setattr(grouping, "to_proto", refuse)
    report = onnxprune.inspect(mlp(), groups=True)
    assert not report.coupled.groups
    assert "none: not looked for, as the model is over 2 GB" in str(report)
