"""The facts of `sensitivity`: what each layer can spare, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .document import Document
from .format import ASCII, Glyphs
from .training import Better

__all__ = ["SensitivityPoint", "SensitivityReport", "SensitivityRow"]


@dataclass(frozen=True)
class SensitivityPoint:
    """One pruning of one layer alone."""

    setting: float
    """The share of zeros, or the quality, that was asked for."""
    zeros: float
    """Share of the layer's weights that are zero, 0 to 1."""
    metric: float
    drop: float
    """How much worse that is than the unpruned model; negative where it is better."""
    drop_error: float | None
    """Standard error of the drop as an estimate for other samples; None where unknown."""


@dataclass(frozen=True)
class SensitivityRow:
    """One layer."""

    layer: str
    """Name of the layer (that of its weight tensor)."""
    operators: tuple[str, ...]
    nodes: tuple[str, ...]
    """Labels of the nodes that use the weight."""
    shape: tuple[int, ...]
    weights: int
    """Number of weights, zeros included."""
    alive: int
    """Weights that are not zero in the unpruned model."""
    points: tuple[SensitivityPoint, ...]
    """One for each setting; empty where the layer was left alone."""
    note: str = ""
    """What else a reader should know, such as why the layer was left alone."""


@dataclass(frozen=True)
class SensitivityReport:
    """What each layer can spare; ``print(report)`` shows it as plain text."""

    KIND: ClassVar[str] = "sensitivity"
    DERIVED: ClassVar[tuple[str, ...]] = ("weights",)

    version: str
    model: str
    data: str
    """What the samples are."""
    samples: int
    """Samples that were measured on."""
    metric: str
    better: Better
    share: bool
    """True where the metric is a share from 0 to 1 and is shown as a percentage."""
    dense: float
    """The metric of the unpruned model on the same samples."""
    dense_error: float | None
    """Its standard error as an estimate for other samples; None where unknown."""
    by: Literal["sparsity", "quality"]
    """What the settings are."""
    settings: tuple[float, ...]
    layers: tuple[SensitivityRow, ...]
    jobs: int
    """How many prunings were measured at once."""
    seconds: float
    calibration: str | None = None
    """What each pruned layer was refitted on; None where it was not."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of all layers, zeros included."""
        return sum(row.weights for row in self.layers)

    def document(self, glyphs: Glyphs) -> Document:
        """The report as a document."""
        from .sensitivity_view import sensitivity_document

        return sensitivity_document(self, glyphs)

    def picture(self) -> str:
        """The report as a picture in SVG: a row a layer, a column a setting."""
        from .sensitivity_picture import sensitivity_svg

        return sensitivity_svg(self)

    def __str__(self) -> str:
        """Return the summary as plain text."""
        from .text import render_document

        return render_document(self.document(ASCII))
