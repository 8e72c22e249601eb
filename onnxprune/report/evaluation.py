"""The facts of `evaluate`: models side by side, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .document import Document
from .format import ASCII, Glyphs
from .training import Better

__all__ = ["Conditions", "EvaluatedModel", "EvaluationReport", "MetricFacts", "Timing"]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of single runs."""

    median_ms: float
    p90_ms: float
    """Nine of ten runs took no longer."""
    speed: float
    """How many times as fast as the first model: the median over runs that followed each other."""


@dataclass(frozen=True)
class Conditions:
    """Under which conditions runs were timed."""

    runtime: str
    """The runtime and what it ran on, such as ``onnxruntime 1.32.0 on the CPU``."""
    threads: int
    """Threads of a run; 0 for all cores."""
    batch: int
    """Samples of a run."""
    runs: int
    """Runs of each model, after a warm-up."""
    inputs: str
    """What was fed: the data, or random numbers."""


@dataclass(frozen=True)
class MetricFacts:
    """One metric of all models on the same samples."""

    name: str
    better: Better
    share: bool
    """True where values lie from 0 to 1 and are shown as percentages."""
    values: tuple[float | None, ...]
    """One for each model; None where it has none."""
    errors: tuple[float | None, ...]
    """Standard errors of the values as estimates for other samples; None where unknown."""


@dataclass(frozen=True)
class EvaluatedModel:
    """What one model is made of."""

    DERIVED: ClassVar[tuple[str, ...]] = ("kept_share",)

    model: str
    """Its path, or the name of a model that came from memory."""
    file_bytes: int
    """Bytes of the file, external data included; of a model from memory, what they would be."""
    gzip_bytes: int
    """The same, compressed by gzip."""
    gzip_estimated: bool
    """True where that comes from samples of a large file."""
    weights: int
    """Weights of the prunable layers, zeros included."""
    kept: int
    """Those that are not zero."""
    parameters: int
    """Elements of all weights and other constants, zeros included."""
    latency: Timing | None = None
    """None where it was not measured."""

    @property
    def kept_share(self) -> float | None:
        """Share of the weights that are not zero, 0 to 1; None where there are none."""
        return self.kept / self.weights if self.weights else None


@dataclass(frozen=True)
class EvaluationReport:
    """Models side by side; ``print(report)`` shows them as plain text."""

    KIND: ClassVar[str] = "evaluate"

    version: str
    models: tuple[EvaluatedModel, ...]
    data: str | None
    """What the samples are; None without validation data."""
    samples: int
    metric: MetricFacts | None
    """What was measured on the samples; None where nothing was."""
    agreement: MetricFacts | None
    """How near each model is to the first; None where that was not measured, or is the metric."""
    conditions: Conditions | None
    """How latency was measured; None where it was not."""
    seconds: float
    notes: tuple[str, ...] = ()

    def document(self, glyphs: Glyphs) -> Document:
        """The report as a document."""
        from .evaluation_view import evaluation_document

        return evaluation_document(self, glyphs)

    def __str__(self) -> str:
        """Return the summary as plain text."""
        from .text import render_document

        return render_document(self.document(ASCII))
