"""The table and the picture of a sensitivity scan."""

from __future__ import annotations

import dataclasses
import math
import re
from xml.etree import ElementTree

import pytest

from onnxprune.report.format import display_width
from onnxprune.report.json import to_dict
from onnxprune.report.sensitivity import (
    SensitivityPoint,
    SensitivityReport,
    SensitivityRow,
)
from onnxprune.report.sensitivity_picture import RAMP
from onnxprune.report.show import show
from tests.report.terminal import Terminal

pytestmark = pytest.mark.usefixtures("plain_environment")
SVG = "{http://www.w3.org/2000/svg}"


def point(
    setting: float, metric: float, drop: float, error: float | None = 0.01
) -> SensitivityPoint:
    return SensitivityPoint(setting, setting, metric, drop, error)


@pytest.fixture
def report() -> SensitivityReport:
    """Three layers, one of which was left alone."""
    return SensitivityReport(
        version="1.2.3",
        model="folder/lenet.onnx",
        data="val.npz: 10,000 samples, labelled",
        samples=512,
        metric="top-1 accuracy",
        better="higher",
        share=True,
        dense=0.99,
        dense_error=0.004,
        by="sparsity",
        settings=(0.5, 0.95),
        layers=(
            SensitivityRow(
                "conv1.weight",
                ("Conv",),
                ("conv1",),
                (20, 1, 5, 5),
                500,
                500,
                (point(0.5, 0.98, 0.01), point(0.95, 0.19, 0.8)),
            ),
            SensitivityRow(
                "fc1 <&> \x1b[2J",
                ("Gemm",),
                ("fc1",),
                (500, 800),
                400_000,
                399_000,
                (point(0.5, 0.99, 0.0), point(0.95, 0.985, 0.005)),
            ),
            SensitivityRow("fc2", ("Gemm",), ("fc2",), (10, 500), 5000, 5000, (), "excluded"),
        ),
        jobs=2,
        seconds=3.2,
    )


def test_plain_text(report: SensitivityReport) -> None:
    text = str(report)
    lines = text.splitlines()
    assert lines[:2] == ["onnxprune 1.2.3", "folder/lenet.onnx"]
    assert lines[3].split() == ["layer", "operator", "shape", "weights", "of", "all", "50%", "95%"]
    assert lines[5].split()[-3:] == ["0.1%", "98.00%", "19.00%"]
    assert lines[7].split()[-2:] == ["-", "-"]
    facts = {line.split("  ")[0]: " ".join(line.split("  ")[1:]).strip() for line in lines[10:]}
    assert facts["unpruned"] == (
        "top-1 accuracy 99.00% on 512 samples (standard error 0.40 points)"
    )
    assert facts["costs most"] == "conv1.weight at 95%: 80.00 points worse"
    assert facts["costs nothing"] == r"fc1 <&> \x1b[2J at 95%, as far as the samples tell"
    assert facts["note"] == "fc2: excluded"
    assert facts["time"] == "3.20 s, 2 at once"
    assert text.isascii()


def test_qualities_and_other_metrics(report: SensitivityReport) -> None:
    other = dataclasses.replace(
        report, by="quality", metric="mse", better="lower", share=False, dense=0.5, dense_error=None
    )
    text = str(other)
    assert "q=0.5" in text
    assert "mse 0.5, lower is better on 512 samples" in text
    assert "costs most" in text
    assert "0.8 worse" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_of_any_width(
    width: int, report: SensitivityReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    show(report, stream)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert "\x1b" not in shown
    assert all(display_width(line) <= width for line in shown.splitlines())
    assert "98.00%" in shown
    assert "19.00%" in shown


def test_json(report: SensitivityReport) -> None:
    facts = to_dict(report)
    assert (facts["kind"], facts["weights"], facts["dense"]) == ("sensitivity", 405_500, 0.99)
    assert facts["layers"][0]["points"][1]["drop"] == 0.8


def cells(picture: str) -> list[tuple[str, str]]:
    """Colour and hint of every rectangle that has a hint."""
    rects = ElementTree.fromstring(picture).iter(f"{SVG}rect")
    return [
        (rect.get("fill", ""), str(title.text))
        for rect in rects
        if (title := rect.find(f"{SVG}title")) is not None
    ]


def test_the_picture_is_svg_with_every_number(report: SensitivityReport) -> None:
    root = ElementTree.fromstring(report.picture())
    texts = [text.text or (text[0].tail if len(text) else "") for text in root.iter(f"{SVG}text")]
    for wanted in ("98.00%", "19.00%", "99.00%", "98.50%", "50%", "95%", "excluded"):
        assert wanted in texts
    assert "Sensitivity of lenet.onnx" in texts
    assert any("99.00% unpruned, on 512 samples" in (text or "") for text in texts)
    assert "\x1b" not in report.picture()
    assert r"fc1 &lt;&amp;&gt; \x1b[2J" in report.picture()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for rect in list(root.iter(f"{SVG}rect"))[1:]:
        x, y, w, h = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height


def test_darker_is_worse(report: SensitivityReport) -> None:
    found = [entry for entry in cells(report.picture()) if " lost" in entry[1]]
    light, dark = ("#{:02x}{:02x}{:02x}".format(*RAMP[at]) for at in (0, -1))
    fills = [fill for fill, _ in found]
    assert fills[1] == dark
    assert fills[2] == light

    def brightness(fill: str) -> int:
        return sum(int(fill[at : at + 2], 16) for at in (1, 3, 5))

    assert brightness(fills[1]) < brightness(fills[0]) < brightness(fills[3]) < brightness(fills[2])
    assert found[1][1] == "conv1.weight: 80 points lost, 95.0% zeros"


def test_nothing_lost_and_numbers_that_are_none(report: SensitivityReport) -> None:
    nothing = dataclasses.replace(
        report,
        layers=(
            dataclasses.replace(
                report.layers[0],
                points=(point(0.5, 1.0, -0.01), point(0.95, math.nan, math.nan, None)),
            ),
        ),
    )
    fills = [fill for fill, hint in cells(nothing.picture()) if " lost" in hint]
    assert fills == ["#{:02x}{:02x}{:02x}".format(*RAMP[0]), "#dddddd"]
    assert str(nothing)
    assert dataclasses.replace(report, layers=()).picture().endswith("</svg>\n")


def test_long_names_are_shortened_and_told(report: SensitivityReport) -> None:
    name = "encoder." * 20 + "weight"
    longer = dataclasses.replace(
        report, layers=(dataclasses.replace(report.layers[0], layer=name),)
    )
    root = ElementTree.fromstring(longer.picture())
    assert any(title.text == name for title in root.iter(f"{SVG}title"))
    assert float(root.get("width", 0)) < 900
