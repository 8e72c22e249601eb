"""What to prune and where to write it: validated once, shared by the command line and Python."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal

from .errors import UsageError
from .options import choice, documented, glob, items, number, option
from .pattern import BlockPattern, GroupPattern, parse_pattern

__all__ = [
    "DEFAULT_QUALITY",
    "Criterion",
    "Format",
    "OutputConfig",
    "PruneConfig",
    "Scope",
    "parse_layer_override",
    "unasked_quality",
    "weights_scope",
]

Format = Literal["sparse", "constant", "gaps", "dense"]
Scope = Literal["global", "layer"]
Criterion = Literal["magnitude", "wanda", "sparsegpt"]
DEFAULT_QUALITY = 1.0


@documented
@dataclass(frozen=True)
class PruneConfig:
    """What to prune and how to store it; raises UsageError for a value that makes no sense."""

    quality: float | None = option(
        None,
        "Remove the weights smaller in magnitude than Q x the standard deviation of their layer."
        f" The default is {DEFAULT_QUALITY}; 0 removes nothing.",
    )
    sparsity: float | None = option(
        None,
        "Instead of a quality: remove the smallest weights of all layers together until this share,"
        " from 0 up to but not including 1, of them is zero.",
    )
    scope: Scope = option(
        "global",
        "What meets the sparsity, and what loses channels: all layers together (global, the"
        " default), or every layer on its own (layer).",
    )
    criterion: Criterion | None = option(
        None,
        "Which weights go first: those of least magnitude (the default without --calibrate), wanda"
        " (of least magnitude x norm of their input; Sun et al. 2023) or sparsegpt (those whose"
        " loss the others make up for best, and do; Frantar & Alistarh 2023). The last two need"
        " --calibrate; with it and without a criterion, the samples decide.",
    )
    pattern: str | None = option(
        None,
        "Zeros follow a pattern: N:M keeps N of every M weights that follow each other along the"
        " input axis (2:4 is what TensorRT computes with) and needs no sparsity; ROWSxCOLUMNS, such"
        " as 4x1, removes blocks of outputs x inputs.",
    )
    layers: tuple[tuple[str, float | None], ...] = option(
        (),
        "Use quality Q for the layers whose weight or node name matches GLOB, or leave them alone"
        " where Q is 'off'. Repeatable; the last match counts.",
    )
    exclude: tuple[str, ...] = option(
        (), "Leave alone the layers whose weight or node name matches GLOB. Repeatable."
    )
    embeddings: bool = option(False, "Prune embedding tables (2-D tables read by Gather) too.")
    format: Format = option(
        "sparse",
        "How to store pruned weights where that saves bytes: sparse (the default, for onnxruntime),"
        " constant (for onnxruntime and OpenVINO), gaps (for every runtime, the smallest), or dense"
        " (plain tensors).",
    )
    check: bool = option(
        True,
        "Run the written model in onnxruntime on random inputs and compare its outputs (the"
        " default). It is read back, and passes the ONNX checker, in any case.",
    )
    allow_nonfinite: bool = option(
        False, "Leave alone layers that hold NaN or infinity, where they are an error otherwise."
    )

    def __post_init__(self) -> None:
        """Validate every field, and settle the default quality."""
        settle = object.__setattr__  # the dataclass is frozen for everybody else
        if self.quality is not None and self.sparsity is not None:
            raise UsageError(
                "quality and sparsity exclude each other: give a quality (a multiple of each"
                " layer's standard deviation) or a sparsity (a target share of zeros), not both"
            )
        choice(self.scope, "scope", Scope)
        if self.criterion is not None:
            choice(self.criterion, "criterion", Criterion)
        if self.pattern is not None:
            settle(self, "pattern", str(parse_pattern(self.pattern)))
        self._check_target()
        if self.sparsity is not None:
            settle(self, "sparsity", _sparsity(self.sparsity))
        elif self.groups is None:
            settle(self, "quality", _quality(self.quality, "quality"))
        settle(self, "layers", tuple(_override(item) for item in items(self.layers, "layers")))
        settle(self, "exclude", tuple(glob(item) for item in items(self.exclude, "exclude")))
        self._check_layers()
        choice(self.format, "format", Format)

    @property
    def groups(self) -> GroupPattern | None:
        """The pattern N:M, where it is one."""
        pattern = None if self.pattern is None else parse_pattern(self.pattern)
        return pattern if isinstance(pattern, GroupPattern) else None

    @property
    def blocks(self) -> BlockPattern | None:
        """The pattern of blocks, where it is one."""
        pattern = None if self.pattern is None else parse_pattern(self.pattern)
        return pattern if isinstance(pattern, BlockPattern) else None

    @property
    def needs_samples(self) -> bool:
        """Whether the criterion looks at what layers compute."""
        return self.criterion in ("wanda", "sparsegpt")

    def check_calibration(self, calibrate: object) -> None:
        """Refuse a criterion that needs calibration samples without any (None)."""
        if self.needs_samples and calibrate is None:
            raise UsageError(
                f"criterion {self.criterion} looks at the inputs of layers: give samples of the"
                " model's inputs as calibrate too (no labels needed), or choose magnitude"
            )

    def _check_target(self) -> None:
        """Refuse what has no say in how much goes."""
        given = "quality" if self.quality is not None else "sparsity"
        if self.groups is not None and (self.quality, self.sparsity) != (None, None):
            raise UsageError(
                f"pattern {self.pattern} keeps {self.groups.keep} of every {self.groups.of} weights"
                f" whatever the {given}: leave out the {given}, or the pattern"
            )
        if self.needs_samples and self.sparsity is None and self.groups is None:
            raise UsageError(
                f"criterion {self.criterion} ranks weights, and a quality is a threshold on"
                " magnitudes: give a sparsity, or a pattern such as 2:4"
            )
        if self.scope == "layer" and self.sparsity is None:
            raise UsageError(
                "scope layer says what meets a target sparsity, and a quality or a pattern N:M"
                " belongs to each layer anyway: give a sparsity too, or leave it out"
            )

    def _check_layers(self) -> None:
        """Refuse a quality for a layer whose pattern leaves nothing to decide."""
        own = next((name for name, quality in self.layers if quality is not None), None)
        if self.groups is not None and own is not None:
            raise UsageError(
                f"the layers '{own}' have a quality, and pattern {self.pattern} leaves nothing to"
                " it: switch layers off, or leave out the pattern"
            )


@documented
@dataclass(frozen=True)
class OutputConfig:
    """Where results go and what is said on the way; raises UsageError for paths that collide."""

    output: Path | None = option(
        None, "Write the pruned model here. The default is model.pruned.onnx beside the input."
    )
    overwrite: bool = option(
        False, "Replace an output file or --json file that exists; without it, that is an error."
    )
    dry_run: bool = option(
        False, "Print the summary and write no model; a --json report is still written."
    )
    json: Path | None = option(
        None, "Write the same facts as JSON; '-' prints them instead of the summary."
    )
    quiet: bool = option(False, "Print nothing but errors (and the JSON of '--json -').")
    val: str | None = option(
        None,
        "Measure accuracy before and after on these samples and labels: a .npz file, a folder of"
        " .npy files, or module:function. Without labels, it is agreement with the unpruned model.",
    )
    calibrate: str | None = option(
        None,
        "Repair the pruned model by what its layers compute on these samples, which need no labels:"
        " a .npz file, a folder of .npy files, or module:function. A few hundred are enough. With a"
        " sparsity they also decide which weights go.",
    )
    train: str | None = option(
        None,
        "Retrain the weights that are left on these samples, and labels if there are any: a .npz"
        " file, a folder of .npy files, or module:function, which gives batches.",
    )

    def __post_init__(self) -> None:
        """Refuse one path in two roles; data may be the same in both of its own."""
        written = [("the JSON report", self.json_file), ("the output", self.output)]
        read = [("val", self.val), ("calibrate", self.calibrate), ("train", self.train)]
        pairs = [*combinations(written, 2), *((one, other) for other in read for one in written)]
        for (what, path), (role, other) in pairs:
            if path is not None and other is not None and _same_path(path, Path(other)):
                raise UsageError(
                    f"{what} and {role} are both {str(other)!r}: give {what} another name"
                )
        for (role, data), (what, path) in product(read, written):
            if data is not None and path is not None and _is_array_of(path, Path(data)):
                raise UsageError(
                    f"{what} {str(path)!r} would be an array of {role}: give {what} another name"
                )

    @property
    def prints_json(self) -> bool:
        """True where the JSON goes to standard output."""
        return self.json is not None and str(self.json) == "-"

    @property
    def json_file(self) -> Path | None:
        """The file that the JSON goes to, None where there is none."""
        return None if self.prints_json else self.json


def unasked_quality(
    channels: bool, quality: float | None, sparsity: float | None, pattern: str | None
) -> float | None:
    """The quality where `channels` are removed and nothing is said of weights: none goes."""
    return 0.0 if channels and (quality, sparsity, pattern) == (None, None, None) else quality


def weights_scope(channels: bool, scope: Scope, sparsity: float | None) -> Scope:
    """The scope of weights: where only `channels` are removed, the scope is theirs alone."""
    return "global" if channels and sparsity is None else scope


def parse_layer_override(text: str) -> tuple[str, float | None]:
    """Split ``GLOB=Q`` at its last ``=``; a Q of ``off`` gives None. Raises UsageError."""
    name, separator, value = text.rpartition("=")
    if not separator or not name or not value:
        raise UsageError(
            f"layer override {text!r} is not of the form GLOB=Q: write for example 'conv*=0.5',"
            " or 'conv*=off' to leave those layers alone"
        )
    if value.strip().lower() == "off":
        return name, None
    try:
        quality = float(value)
    except ValueError:
        raise UsageError(
            f"layer override {text!r} has no quality after its last '=': give a number of at least"
            " 0, or 'off'"
        ) from None
    return name, _quality(quality, f"quality of layer override {text!r}")


def _quality(value: float | None, what: str) -> float:
    if value is None:
        return DEFAULT_QUALITY
    wanted = "a finite number of at least 0, such as 1.0"
    return number(value, what, wanted, lambda quality: 0 <= quality < math.inf)


def _sparsity(value: float) -> float:
    wanted = "a share from 0 up to but not including 1"
    return number(value, "sparsity", wanted, lambda share: 0 <= share < 1)


def _override(item: Any) -> tuple[str, float | None]:
    if isinstance(item, str) or not isinstance(item, Iterable) or len(pair := tuple(item)) != 2:
        raise UsageError(
            f"layers has the item {item!r}: give pairs of a glob and a quality or None"
        )
    name, quality = pair
    if quality is None:
        return glob(name), None
    return glob(name), _quality(quality, f"quality of layer override {name!r}")


def _is_array_of(path: Path, folder: Path) -> bool:
    """Whether a path is one of the .npy files of a data folder, or would be."""
    return path.suffix == ".npy" and folder.is_dir() and _same_path(path.parent, folder)


def _same_path(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
