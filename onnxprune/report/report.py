"""The facts of a run: what was pruned, stored, measured and checked, as frozen dataclasses.

Nothing here formats anything: `text`, `console` and `json` show the same facts three ways. Names
and messages are kept as they came from the model; whoever shows them makes them safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

from .groups import Coupled
from .repair import Repair
from .search import Search
from .structure import Structure
from .training import Better, Training

__all__ = [
    "Accuracy",
    "CheckResult",
    "DropoutRow",
    "InspectReport",
    "InspectRow",
    "Latency",
    "LayerRow",
    "ModelFacts",
    "Outcome",
    "Report",
    "Sizes",
    "UnprunableRow",
    "tool_version",
]

Outcome = Literal["passed", "skipped", "failed"]


def tool_version() -> str:
    """Version of the installed package, or ``0+unknown`` in a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxprune")
    except PackageNotFoundError:
        return "0+unknown"


def _ratio(before: int | None, after: int | None) -> float | None:
    """How many times smaller: before / after, or None where one is unknown or nothing is left."""
    return before / after if before is not None and after else None


@dataclass(frozen=True)
class LayerRow:
    """One prunable weight tensor: what it was and what became of it."""

    DERIVED: ClassVar[tuple[str, ...]] = ("kept_share", "ratio", "weights_after")

    layer: str
    """Name of the layer (that of its weight tensor)."""
    operators: tuple[str, ...]
    """Operator types that use the weight, each once, in graph order."""
    nodes: tuple[str, ...]
    """Labels of the nodes that use the weight."""
    shape: tuple[int, ...]
    """Shape of the stored tensor before."""
    dtype: str
    """Element type as ONNX calls it, in lower case, such as ``float32``."""
    mean: float | None
    """Mean of the weights alive before; None where it was not measured."""
    std: float | None
    """Population standard deviation of the weights alive before; None where it was not measured.
    Both are over the weights that were pruned: those of channels removed before that are out."""
    quality: float | None
    """The layer's q; None where the layer was left alone or the threshold came from a sparsity."""
    threshold: float | None
    """Weights of smaller magnitude went; None where the layer was left alone."""
    weights: int
    """Number of weights, zeros included."""
    alive_before: int
    """Weights that were not zero before pruning."""
    kept: int
    """Weights that are not zero after pruning."""
    stored_as: str
    """How the output stores it: ``sparse``, ``constant``, ``gaps`` or ``dense``."""
    bytes_before: int
    """Bytes the weight took in the input file."""
    bytes_after: int
    """Bytes it takes in the output file, indices included."""
    note: str = ""
    """What else a reader should know, such as why the layer was left alone."""
    shape_after: tuple[int, ...] | None = None
    """Shape of the stored tensor where channels went; None where it is as before."""

    @property
    def kept_share(self) -> float | None:
        """Share of the layer's weights that are left, 0 to 1; None for an empty layer."""
        return self.kept / self.weights if self.weights else None

    @property
    def ratio(self) -> float | None:
        """Weights before / weights left; None where none is left."""
        return _ratio(self.weights, self.kept)

    @property
    def weights_after(self) -> int:
        """Number of weights in the output, zeros included."""
        return self.weights if self.shape_after is None else prod(self.shape_after)


@dataclass(frozen=True)
class UnprunableRow:
    """One weight that cannot be pruned, and why."""

    name: str
    node: str
    operator: str
    shape: tuple[int, ...] | None
    reason: str


@dataclass(frozen=True)
class DropoutRow:
    """One Dropout node: its ratio before and after (None where it is not known)."""

    node: str
    before: float | None
    after: float | None
    note: str = ""


@dataclass(frozen=True)
class Sizes:
    """Bytes of the model (external data included) as files and as gzip would store them."""

    DERIVED: ClassVar[tuple[str, ...]] = ("file_ratio", "gzip_ratio")

    file_input: int | None
    """Bytes of the input; None where the model came from memory."""
    file_output: int | None
    """Bytes of the output (what they would be, in a dry run); None where it was not determined."""
    gzip_input: int | None = None
    gzip_output: int | None = None
    gzip_estimated: bool = False
    """True where the gzip bytes come from samples of a large file, not from all of it."""

    @property
    def file_ratio(self) -> float | None:
        """How many times smaller the file is."""
        return _ratio(self.file_input, self.file_output)

    @property
    def gzip_ratio(self) -> float | None:
        """How many times smaller the gzipped file is."""
        return _ratio(self.gzip_input, self.gzip_output)


@dataclass(frozen=True)
class Accuracy:
    """A metric of the model before and after, on the same samples."""

    metric: str
    before: float
    """Of the model as it came."""
    after: float
    """Of the model as it goes: pruned, and retrained where that was asked for."""
    samples: int
    share: bool = True
    """True where the metric is a share from 0 to 1 and is shown as a percentage."""
    pruned: float | None = None
    """After pruning to the full and before retraining; None where nothing was retrained."""
    better: Better = "higher"
    """Whether higher or lower values are better."""


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one run before and after, in the same runtime."""

    before_ms: float
    after_ms: float
    runtime: str
    threads: int = 1
    """Threads of a run; 0 for all cores."""
    speed: float | None = None
    """How many times as fast: the ratio of the two."""
    open_size: int | None = None
    """Size that open axes other than batches were given; None where there are none."""


@dataclass(frozen=True)
class CheckResult:
    """One check of the written file; the detail says why it was skipped or what differs."""

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Report:
    """Everything the summary of a pruning run says; ``print(report)`` shows it as plain text."""

    DERIVED: ClassVar[tuple[str, ...]] = (
        "weights",
        "alive_before",
        "kept",
        "parameter_ratio",
        "parameters_kept",
        "total_ratio",
        "bytes_before",
        "bytes_after",
    )

    version: str
    """Version of onnxprune."""
    model: str
    """Path of the input, or the name of a model that came from memory."""
    output: str | None
    """Path of the file written; None where none was written."""
    dry_run: bool
    quality: float | None
    """The q asked for; None in a run for a target sparsity or a pattern N:M."""
    sparsity: float | None
    """The share of zeros asked for; None in a run by quality or a pattern N:M."""
    scope: str
    """What meets the sparsity: ``global`` (all layers together) or ``layer`` (each of them)."""
    criterion: str | None
    """The criterion asked for: ``magnitude``, ``wanda`` or ``sparsegpt``; None: the default."""
    pattern: str | None
    """What zeros follow: ``N:M``, or blocks such as ``4x1``; None: nothing."""
    format: str
    """The format asked for; each row says how its layer is stored."""
    readers: str
    """Which runtimes read the output's form, as one phrase."""
    layers: tuple[LayerRow, ...]
    unprunable: tuple[UnprunableRow, ...]
    dropouts: tuple[DropoutRow, ...]
    parameters: int
    """Elements of all weights and other constants of the model, layers or not."""
    sizes: Sizes
    seconds: float
    accuracy: Accuracy | None = None
    repair: Repair | None = None
    search: Search | None = None
    training: Training | None = None
    latency: Latency | None = None
    structure: Structure | None = None
    """What went of the graph itself; None where nothing was looked for."""
    parameters_output: int | None = None
    """Elements of all constants of the output, zeros included; None: as many as before."""
    checks: tuple[CheckResult, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of all prunable layers, zeros included."""
        return sum(row.weights for row in self.layers)

    @property
    def alive_before(self) -> int:
        """Weights of all prunable layers that were not zero before."""
        return sum(row.alive_before for row in self.layers)

    @property
    def kept(self) -> int:
        """Weights of all prunable layers that are left."""
        return sum(row.kept for row in self.layers)

    @property
    def parameter_ratio(self) -> float | None:
        """Weights of the prunable layers / those left (Han et al. 2015's compression ratio)."""
        return _ratio(self.weights, self.kept)

    @property
    def parameters_kept(self) -> int:
        """Parameters of the output less the weights of its layers that are zero."""
        total = self.parameters if self.parameters_output is None else self.parameters_output
        return total - sum(row.weights_after for row in self.layers) + self.kept

    @property
    def total_ratio(self) -> float | None:
        """Parameters of the whole model / those left."""
        return _ratio(self.parameters, self.parameters_kept)

    @property
    def bytes_before(self) -> int:
        """Bytes of all prunable layers in the input."""
        return sum(row.bytes_before for row in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of all prunable layers in the output."""
        return sum(row.bytes_after for row in self.layers)

    @property
    def failed(self) -> bool:
        """True where a check of the written file failed."""
        return any(check.outcome == "failed" for check in self.checks)

    def __str__(self) -> str:
        """Return the summary as plain text."""
        from .text import render

        return render(self)


@dataclass(frozen=True)
class InspectRow:
    """One prunable weight tensor as it is, and what each of a few q would leave of it."""

    DERIVED: ClassVar[tuple[str, ...]] = ("zero_share", "zero_shares")

    layer: str
    operators: tuple[str, ...]
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    weights: int
    alive: int
    """Weights that are not zero."""
    kept: tuple[int, ...]
    """Weights left at each of the report's qualities; empty where they were not counted."""
    note: str = ""

    @property
    def zero_share(self) -> float | None:
        """Share of the weights that are zero now, 0 to 1; None for an empty layer."""
        return 1 - self.alive / self.weights if self.weights else None

    @property
    def zero_shares(self) -> tuple[float | None, ...]:
        """Share of the weights that would be zero at each of the report's qualities."""
        return tuple(1 - kept / self.weights if self.weights else None for kept in self.kept)


@dataclass(frozen=True)
class ModelFacts:
    """What the model file says about itself."""

    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    """Operator sets as (domain, version); the empty domain is the ONNX standard's."""
    producer: str
    """Name and version of what made the file, possibly empty."""
    parameters: int
    nodes: int
    file_bytes: int | None
    """Bytes of the file and its external data; None where the model came from memory."""
    external: bool = False
    """True where the weights lie in files of their own."""


@dataclass(frozen=True)
class InspectReport:
    """Everything `inspect` says; ``print(report)`` shows it as plain text."""

    DERIVED: ClassVar[tuple[str, ...]] = ("weights", "alive", "kept")

    version: str
    model: str
    facts: ModelFacts
    qualities: tuple[float, ...]
    layers: tuple[InspectRow, ...]
    unprunable: tuple[UnprunableRow, ...]
    dropouts: tuple[DropoutRow, ...]
    seconds: float
    coupled: Coupled | None = None
    """Which channels go together; None where it was not asked for."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of all prunable layers, zeros included."""
        return sum(row.weights for row in self.layers)

    @property
    def alive(self) -> int:
        """Weights of all prunable layers that are not zero."""
        return sum(row.alive for row in self.layers)

    @property
    def kept(self) -> tuple[int, ...]:
        """Weights of all layers left at each quality; a layer that was not counted stays whole."""
        return tuple(_left(self.layers, index) for index in range(len(self.qualities)))

    def __str__(self) -> str:
        """Return the summary as plain text."""
        from .text import render_inspect

        return render_inspect(self)


def _left(rows: Sequence[InspectRow], index: int) -> int:
    return sum(row.kept[index] if row.kept else row.alive for row in rows)
