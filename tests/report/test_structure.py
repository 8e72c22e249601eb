"""The lines and tables about channels and dead neurons."""

from __future__ import annotations

import dataclasses
import json

import pytest

from onnxprune.report.format import ASCII
from onnxprune.report.json import to_json
from onnxprune.report.report import Latency, Report
from onnxprune.report.structure import ChannelRow, DeadRow, Structure
from onnxprune.report.structure_facts import structure_facts

NOTHING = Structure("", (), (), (), (), "")
STRUCTURE = Structure(
    request="channels 0.5",
    channels=(ChannelRow("conv1 out = conv2 in", 64, 32, 5), ChannelRow("fc1 out", 1000, 500, 3)),
    dead=(
        DeadRow("conv1 out = conv2 in", 32, 26, 3, 2, 1, 4),
        DeadRow("fc1", 500, 499, 1, 0, 0, 0),
    ),
    biases=("conv2",),
    new_biases=("fc2", "fc3"),
    reason="",
    channels_found=1100,
    refitted=512,
    macs_before=1_820_000_000,
    macs_after=455_000_000,
    macs_unknown=1,
)


def lines(structure: Structure) -> list[str]:
    return [f"{fact.label}: {fact.text}" for fact in structure_facts(structure, ASCII)]


def test_everything_that_happened() -> None:
    assert (STRUCTURE.channels_removed, STRUCTURE.dead_removed) == (532, 7)
    assert lines(STRUCTURE) == [
        "channels: 532 of 1,100 removed, in 2 groups (channels 0.5); what stays refitted by least"
        " squares on 512 samples",
        "dead: 7 channels removed after pruning (4 unread, 2 constant, 1 merged), outputs are the"
        " same; 4 more stay, as convolutions want round numbers",
        "dead: constants went into the biases of conv2",
        "dead: constants became biases of fc2, fc3",
        "operations: 1.82 G -> 455 M multiplications a sample: 4.00x fewer, those of 1 node not"
        " counted",
    ]


def test_nothing_happened() -> None:
    assert lines(NOTHING) == []
    assert not NOTHING.changed
    assert lines(dataclasses.replace(NOTHING, reason="none is dead")) == ["dead: none is dead"]
    unknown = dataclasses.replace(NOTHING, macs_unknown=2)
    assert lines(unknown) == ["operations: not known: shapes of 2 nodes are not"]
    asked = dataclasses.replace(NOTHING, request="macs 0.9")
    assert lines(asked) == ["channels: none removed (macs 0.9)"]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (900, 900, "900 -> 900 multiplications a sample: as many"),
        (0, 0, "0 -> 0"),
        (10, 0, "10 -> 0"),
    ],
)
def test_operations(before: int, after: int, text: str) -> None:
    found = lines(dataclasses.replace(NOTHING, macs_before=before, macs_after=after))
    assert found[0].startswith(f"operations: {text}")


def test_the_summary_shows_groups_and_new_shapes(report: Report) -> None:
    first = dataclasses.replace(report.layers[0], shape_after=(16, 1, 5, 5))
    changed = dataclasses.replace(
        report,
        layers=(first, *report.layers[1:]),
        structure=STRUCTURE,
        latency=Latency(1.5, 0.5, "onnxruntime 1.32.0 on the CPU", 1, 2.98),
        parameters_output=300_000,
    )
    text = str(changed)
    assert "(channels 0.5, quality 1)" in text
    assert "shape     now" in text and "20x1x5x5  16x1x5x5  float32" in text
    assert "conv1 out = conv2 in        64    32        5" in text
    assert "conv1 out = conv2 in        32    26       3         2       1" in text
    assert (
        "latency       1.5 -> 0.5 ms a run: 2.98x as fast (onnxruntime 1.32.0 on the CPU, 1 thread)"
        in (text)
    )
    open_axes = dataclasses.replace(changed.latency, open_size=64)
    text = str(dataclasses.replace(changed, latency=open_axes))
    assert "1 thread, open axes of size 64)" in text
    assert "\nspeed" not in text
    assert changed.parameters_kept == 300_000 - (400 + 400_000 + 5_000) + changed.kept
    unmeasured = str(dataclasses.replace(changed, latency=None))
    assert "speed         not measured: fewer channels are less work" in unmeasured
    facts = json.loads(to_json(changed))
    assert facts["structure"]["dead"][0]["left"] == 4
    assert facts["structure"]["channels_removed"] == 532
    assert facts["layers"][0]["shape_after"] == [16, 1, 5, 5]
    assert facts["layers"][0]["weights_after"] == 400
