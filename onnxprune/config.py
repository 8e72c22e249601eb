"""What to prune and where to write it: validated once, shared by the command line and Python.

One field is one flag is one docstring: a field's ``help`` metadata is what ``onnxprune --help``
prints for its flag and what the class's own docstring says about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from .errors import UsageError

__all__ = [
    "DEFAULT_QUALITY",
    "Format",
    "OutputConfig",
    "PruneConfig",
    "flag_help",
    "parse_layer_override",
]

Format = Literal["sparse", "constant", "gaps", "dense"]
DEFAULT_QUALITY = 1.0

_Config = TypeVar("_Config")


def _option(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


def flag_help(config: type, name: str) -> str:
    """Return the docstring of one field of a configuration class."""
    return next(str(entry.metadata["help"]) for entry in fields(config) if entry.name == name)


def _documented(config: type[_Config]) -> type[_Config]:
    """Append what each field's help says to the class's docstring."""
    lines = [f"    {entry.name}: {entry.metadata['help']}" for entry in fields(config)]  # type: ignore[arg-type]
    config.__doc__ = "\n".join([config.__doc__ or "", "", "Attributes:", *lines])
    return config


@_documented
@dataclass(frozen=True)
class PruneConfig:
    """What to prune and how to store it; raises UsageError for a value that makes no sense."""

    quality: float | None = _option(
        None,
        "Remove the weights smaller in magnitude than Q x the standard deviation of their layer."
        f" The default is {DEFAULT_QUALITY}; 0 removes nothing.",
    )
    sparsity: float | None = _option(
        None,
        "Instead of a quality: remove the smallest weights of all layers together until this share,"
        " from 0 up to but not including 1, of them is zero.",
    )
    per_layer: bool = _option(False, "Let every layer meet the sparsity on its own.")
    layers: tuple[tuple[str, float | None], ...] = _option(
        (),
        "Use quality Q for the layers whose weight or node name matches GLOB, or leave them alone"
        " where Q is 'off'. Repeatable; the last match counts.",
    )
    exclude: tuple[str, ...] = _option(
        (), "Leave alone the layers whose weight or node name matches GLOB. Repeatable."
    )
    embeddings: bool = _option(False, "Prune embedding tables (2-D tables read by Gather) too.")
    format: Format = _option(
        "sparse",
        "How to store pruned weights where that saves bytes: sparse (the default, for onnxruntime),"
        " constant (for onnxruntime and OpenVINO), gaps (for every runtime, the smallest), or dense"
        " (plain tensors).",
    )
    check: bool = _option(
        True,
        "Run the written model in onnxruntime on random inputs and compare its outputs (the"
        " default). It is read back, and passes the ONNX checker, in any case.",
    )
    allow_nonfinite: bool = _option(
        False, "Leave alone layers that hold NaN or infinity, where they are an error otherwise."
    )

    def __post_init__(self) -> None:
        """Validate every field, and settle the default quality."""
        if self.quality is not None and self.sparsity is not None:
            raise UsageError(
                "quality and sparsity exclude each other: give a quality (a multiple of each"
                " layer's standard deviation) or a sparsity (a target share of zeros), not both"
            )
        if self.per_layer and self.sparsity is None:
            raise UsageError(
                "per-layer applies to a target sparsity only: give a sparsity too, or leave it out"
            )
        settle = object.__setattr__  # the dataclass is frozen for everybody else
        if self.sparsity is None:
            settle(self, "quality", _quality(self.quality, "quality"))
        else:
            settle(self, "sparsity", _sparsity(self.sparsity))
        settle(self, "layers", tuple(_override(item) for item in _items(self.layers, "layers")))
        settle(self, "exclude", tuple(_glob(item) for item in _items(self.exclude, "exclude")))
        if self.format not in get_args(Format):
            raise UsageError(
                f"format {self.format!r} is unknown: choose one of {', '.join(get_args(Format))}"
            )


@_documented
@dataclass(frozen=True)
class OutputConfig:
    """Where results go and what is said on the way; raises UsageError for paths that collide."""

    output: Path | None = _option(
        None, "Write the pruned model here. The default is model.pruned.onnx beside the input."
    )
    overwrite: bool = _option(
        False, "Replace an output file or --json file that exists; without it, that is an error."
    )
    dry_run: bool = _option(
        False, "Print the summary and write no model; a --json report is still written."
    )
    json: Path | None = _option(
        None, "Write the same facts as JSON; '-' prints them instead of the summary."
    )
    quiet: bool = _option(False, "Print nothing but errors (and the JSON of '--json -').")
    val: Path | None = _option(
        None,
        "Measure accuracy before and after on the samples and labels of this .npz file.",
    )

    def __post_init__(self) -> None:
        """Refuse one path in two roles."""
        if self.json is None or self.prints_json:
            return
        for role, other in (("output", self.output), ("val", self.val)):
            if other is not None and _same_path(self.json, other):
                raise UsageError(
                    f"the JSON report and {role} are both {str(other)!r}: give the report"
                    " another name"
                )

    @property
    def prints_json(self) -> bool:
        """True where the JSON goes to standard output."""
        return self.json is not None and str(self.json) == "-"

    @property
    def json_file(self) -> Path | None:
        """The file that the JSON goes to, None where there is none."""
        return None if self.prints_json else self.json


def parse_layer_override(text: str) -> tuple[str, float | None]:
    """Split ``GLOB=Q`` at its last ``=``; a Q of ``off`` gives None. Raises UsageError."""
    glob, separator, value = text.rpartition("=")
    if not separator or not glob or not value:
        raise UsageError(
            f"layer override {text!r} is not of the form GLOB=Q: write for example 'conv*=0.5',"
            " or 'conv*=off' to leave those layers alone"
        )
    if value.strip().lower() == "off":
        return glob, None
    try:
        quality = float(value)
    except ValueError:
        raise UsageError(
            f"layer override {text!r} has no quality after its last '=': give a number of at least"
            " 0, or 'off'"
        ) from None
    return glob, _quality(quality, f"quality of layer override {text!r}")


def _quality(value: float | None, what: str) -> float:
    if value is None:
        return DEFAULT_QUALITY
    return _number(value, what, "a finite number of at least 0, such as 1.0", below=math.inf)


def _sparsity(value: float) -> float:
    return _number(value, "sparsity", "a share from 0 up to but not including 1", below=1.0)


def _number(value: object, what: str, wanted: str, *, below: float) -> float:
    """Return `value` as a float in [0, below); numpy scalars pass, text and bools do not."""
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < below:  # NaN fails this too
        shown = repr(value) if isinstance(value, str) else str(value)
        raise UsageError(f"{what} is {shown}: give {wanted}")
    return number + 0.0  # -0.0 becomes 0.0


def _items(value: Iterable[Any], what: str) -> tuple[Any, ...]:
    """Return the items of a sequence; a lone string would fall apart into letters."""
    if isinstance(value, (str, bytes)):
        raise UsageError(f"{what} is the single text {value!r}: give a sequence, even of one")
    return tuple(value)


def _override(item: Any) -> tuple[str, float | None]:
    if isinstance(item, str) or not isinstance(item, Iterable) or len(pair := tuple(item)) != 2:
        raise UsageError(
            f"layers has the item {item!r}: give pairs of a glob and a quality or None"
        )
    glob, quality = pair
    if quality is None:
        return _glob(glob), None
    return _glob(glob), _quality(quality, f"quality of layer override {glob!r}")


def _glob(item: Any) -> str:
    if not isinstance(item, str) or not item:
        raise UsageError(f"{item!r} is no glob: give a name or a pattern such as 'conv*'")
    return item


def _same_path(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
