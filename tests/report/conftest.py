"""A small report that shows every kind of fact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest

from onnxprune.report.report import (
    Accuracy,
    CheckResult,
    DropoutRow,
    InspectReport,
    InspectRow,
    LayerRow,
    ModelFacts,
    Report,
    Sizes,
    UnprunableRow,
)
from onnxprune.report.training import EpochRow, FrozenRow, RoundRow, Training


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 120 cells, whatever the one that runs the tests is like."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def layer_row() -> Callable[..., LayerRow]:
    """A factory of layer rows: name, shape and weights left, anything else by keyword."""

    def make(name: str, shape: tuple[int, ...] = (10, 10), kept: int = 40, **more: Any) -> LayerRow:
        weights = math.prod(shape)
        facts: dict[str, Any] = {
            "operators": ("Gemm",),
            "nodes": (f"{name}_node",),
            "dtype": "float32",
            "mean": 0.001,
            "std": 0.0131,
            "quality": 1.0,
            "threshold": 0.0131,
            "alive_before": weights,
            "stored_as": "sparse",
            "bytes_before": 4 * weights,
            "bytes_after": 7 * kept,
        }
        return LayerRow(layer=name, shape=shape, weights=weights, kept=kept, **{**facts, **more})

    return make


@pytest.fixture
def report(layer_row: Callable[..., LayerRow]) -> Report:
    """Three layers, a dropout, an accuracy, a skipped check, a warning."""
    return Report(
        version="1.2.3",
        model="lenet.onnx",
        output="lenet.pruned.onnx",
        dry_run=False,
        quality=1.0,
        sparsity=None,
        scope="global",
        criterion=None,
        pattern=None,
        format="sparse",
        readers="read by onnxruntime",
        layers=(
            layer_row("conv1.weight", (20, 1, 5, 5), 330, operators=("Conv",)),
            layer_row("fc1.weight", (500, 800), 32000, std=1.23456e-05, threshold=1.23456e-05),
            layer_row(
                "fc2.weight",
                (10, 500),
                5000,
                quality=None,
                threshold=None,
                stored_as="dense",
                bytes_after=20000,
                note="excluded",
            ),
        ),
        unprunable=(UnprunableRow("table", "Gather_1", "Gather", (7, 3), "an embedding table"),),
        dropouts=(
            DropoutRow("drop", 0.5, 0.1581),
            DropoutRow("last", 0.5, 0.5, "nothing feeds it"),
        ),
        parameters=406_080,
        sizes=Sizes(1_624_500, 248_310, 1_500_000, 201_000),
        seconds=0.4242,
        accuracy=Accuracy("accuracy", 0.9917, 0.9912, 10_000),
        checks=(
            CheckResult("ONNX checker", "passed"),
            CheckResult("weights read back", "passed"),
            CheckResult("onnxruntime outputs", "skipped", "custom operator my.domain:Foo"),
        ),
        warnings=("something to mind",),
        notes=("IR version 3 became 8",),
    )


@pytest.fixture
def inspection() -> InspectReport:
    """Two layers, one of which was not counted."""
    qualities = (0.25, 0.5, 1.0, 1.5, 2.0)
    facts = ModelFacts(8, (("", 17), ("com.microsoft", 1)), "pytorch 2.13", 450, 4, 2_345)
    return InspectReport(
        version="1.2.3",
        model="net.onnx",
        facts=facts,
        qualities=qualities,
        layers=(
            InspectRow(
                layer="fc.weight",
                operators=("Gemm",),
                nodes=("fc",),
                shape=(10, 40),
                dtype="float32",
                mean=0.0012,
                std=0.131,
                minimum=-0.52,
                maximum=0.49,
                weights=400,
                alive=380,
                kept=(320, 240, 120, 50, 10),
            ),
            InspectRow(
                layer="dead.weight",
                operators=("Conv", "Gemm"),
                nodes=("c", "g"),
                shape=(4, 10),
                dtype="float16",
                mean=None,
                std=None,
                minimum=0.0,
                maximum=0.0,
                weights=40,
                alive=0,
                kept=(),
                note="all weights are zero",
            ),
        ),
        unprunable=(UnprunableRow("w", "MatMul_3", "MatMul", None, "made at run time"),),
        dropouts=(DropoutRow("drop", 0.5, 0.5, ""),),
        seconds=0.1,
    )


@pytest.fixture
def training() -> Training:
    """Two rounds of three epochs, the last of which ended early; weights frozen for two reasons."""
    return Training(
        engine="onnxprune on onnxruntime 1.32.0",
        data="train.npz: 60,000 samples, labelled",
        loss="cross-entropy on the input of Softmax 'prob'",
        optimizer="adamw, weight decay 0.0001",
        rate=1e-4,
        schedule="cosine",
        epochs=3,
        batch_size=64,
        metric="top-1 accuracy",
        better="higher",
        trained_parameters=405_500,
        trained_tensors=3,
        frozen=(
            FrozenRow("lstm.W", "lstm", "LSTM", "LSTM has no gradient rule"),
            FrozenRow("lstm.R", "lstm", "LSTM", "LSTM has no gradient rule"),
            FrozenRow("table", "Gather_1", "Gather", "not matched by --train-layers"),
        ),
        rounds=(
            RoundRow(1, 0.875, None, 0.85, 0.95, 0.98, 3),
            RoundRow(2, 1.0, None, 0.9079, 0.9312, 0.9912, 2),
        ),
        epoch_rows=(
            EpochRow(1, 1, 1e-4, 0.231, 0.97, 60_000, 4.0),
            EpochRow(1, 2, 7.5e-5, 0.12, 0.975, 60_000, 4.0),
            EpochRow(1, 3, 2.5e-5, 0.0876, 0.98, 60_000, 4.0),
            EpochRow(2, 1, 1e-4, 0.1, 0.985, 60_000, 4.0),
            EpochRow(2, 2, 7.5e-5, 0.0452, 0.9912, 60_000, 4.0),
        ),
        steps=4_690,
        seconds=20.5,
        samples_per_second=16_234.5,
        stopped_early=True,
        notes=("float16 weights are trained as float32 copies",),
    )


@pytest.fixture
def retrained(report: Report, training: Training) -> Report:
    """The report of a run that retrained."""
    accuracy = Accuracy("top-1 accuracy", 0.9917, 0.9912, 10_000, pruned=0.9312)
    return dataclasses.replace(report, accuracy=accuracy, training=training)
