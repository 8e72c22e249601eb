"""The flags of the command line: one for each field of a configuration class, with its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from .calibration import Calibration, RepairName
from .config import (
    Criterion,
    Format,
    OutputConfig,
    PruneConfig,
    Scope,
    parse_layer_override,
    unasked_quality,
    weights_scope,
)
from .errors import UsageError
from .finetune import (
    BatchNormMode,
    EngineName,
    FineTune,
    LossName,
    Method,
    OptimizerName,
    RateSchedule,
    RecipeName,
    RoundsSchedule,
    Saliency,
    parse_class_weights,
)
from .options import flag_help
from .recipes import recipe
from .search.goal import DropGoal, drop_goal
from .structure.config import ChannelConfig, Importance, StructureConfig

__all__ = [
    "CHECKING",
    "OTHER",
    "OUTPUT",
    "SELECTION",
    "STRUCTURE",
    "CalibrationFlags",
    "SearchFlags",
    "SelectionFlags",
    "StructureFlags",
    "TrainingFlags",
    "flag",
    "whole_flag",
    "worded_flag",
]

SELECTION = Group("What to prune", sort_key=1)
STRUCTURE = Group("What to remove from the graph", sort_key=2)
CALIBRATION = Group("How to repair", sort_key=3)
TRAINING = Group("How to retrain", sort_key=4)
OUTPUT = Group("What to write", sort_key=5)
CHECKING = Group("What to check", sort_key=6)
OTHER = Group("Other", sort_key=7)

#: cyclopts 4, the newest for Python 3.10, cannot name the values of flags in --help.
HAS_METAVAR = "metavar" in signature(Parameter).parameters


def flag(config: type, field: str, name: str, group: Group, **more: Any) -> Parameter:
    """Return the flag of one configuration field, with the field's own help."""
    return worded_flag(flag_help(config, field), name, group, **more)


def worded_flag(help_text: str, name: str, group: Group, **more: Any) -> Parameter:
    """Return a flag with a help of its own."""
    more = {"negative": "", "show_default": False, "show_choices": False, **more}
    if not HAS_METAVAR:
        more.pop("metavar", None)
    return Parameter(name=name, help=help_text, group=group, **more)


def _training(field: str, metavar: str = "", **more: Any) -> Parameter:
    more = {"metavar": metavar, **more} if metavar else more
    return flag(FineTune, field, _spelling(field), TRAINING, **more)


def whole_flag(config: type, field: str, name: str, group: Group) -> Parameter:
    """Return the flag of a field that holds a whole number."""
    return flag(config, field, name, group, metavar="N", converter=_whole)


def _count(field: str) -> Parameter:
    return _training(field, "N", converter=_whole)


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """A whole number as it is written; cyclopts by itself would round 1.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'unable to convert "{tokens[0].value}" into int') from None


def _spelling(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _selection(field: str, name: str, metavar: str = "", **more: Any) -> Parameter:
    more = {"metavar": metavar, **more} if metavar else more
    return flag(PruneConfig, field, name, SELECTION, **more)


@dataclass(frozen=True)
class SelectionFlags:
    """The flags that say what is pruned."""

    quality: Annotated[float | None, _selection("quality", "--quality", "Q", alias="-q")] = None
    sparsity: Annotated[float | None, _selection("sparsity", "--sparsity", "S")] = None
    scope: Annotated[Scope, _selection("scope", "--scope", "SCOPE")] = "global"
    criterion: Annotated[Criterion | None, _selection("criterion", "--criterion", "NAME")] = None
    pattern: Annotated[str | None, _selection("pattern", "--pattern", "P")] = None
    layer: Annotated[list[str] | None, _selection("layers", "--layer", "GLOB=Q")] = None
    exclude: Annotated[list[str] | None, _selection("exclude", "--exclude", "GLOB")] = None
    embeddings: Annotated[bool, _selection("embeddings", "--embeddings")] = False
    allow_nonfinite: Annotated[bool, _selection("allow_nonfinite", "--allow-nonfinite")] = False

    def config(self, storage: Format, *, check: bool, channels: bool) -> PruneConfig:
        """What to prune, and how to store and check it; raises UsageError.

        Args:
            storage: Storage format.
            check: Whether the written file is run.
            channels: Whether channels are removed before.
        """
        return PruneConfig(
            quality=unasked_quality(channels, self.quality, self.sparsity, self.pattern),
            sparsity=self.sparsity,
            scope=weights_scope(channels, self.scope, self.sparsity),
            criterion=self.criterion,
            pattern=self.pattern,
            layers=tuple(parse_layer_override(text) for text in self.layer or ()),
            exclude=tuple(self.exclude or ()),
            embeddings=self.embeddings,
            format=storage,
            check=check,
            allow_nonfinite=self.allow_nonfinite,
        )


@dataclass(frozen=True)
class CalibrationFlags:
    """The flags of the calibration samples and of every `Calibration` field; None is not given."""

    calibrate: Annotated[
        str | None, flag(OutputConfig, "calibrate", "--calibrate", CALIBRATION, metavar="DATA")
    ] = None
    repair: Annotated[
        RepairName | None, flag(Calibration, "repair", "--repair", CALIBRATION, metavar="METHOD")
    ] = None
    samples: Annotated[
        int | None,
        flag(Calibration, "samples", "--samples", CALIBRATION, metavar="N", converter=_whole),
    ] = None

    def calibration(self) -> Calibration | None:
        """How to repair; None without calibration samples.

        Raises:
            UsageError: A flag has a value without sense, or no effect.
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(Calibration)}
        given = {name: value for name, value in values.items() if value is not None}
        if self.calibrate is None:
            if given:
                raise UsageError(
                    f"{_spelling(next(iter(given)))} has no effect without --calibrate: name the"
                    " samples to repair by, or leave it out"
                )
            return None
        return Calibration(**given)


def _structure(field: str, metavar: str = "", **more: Any) -> Parameter:
    more = {"metavar": metavar, **more} if metavar else more
    config = StructureConfig if field in ("align", "latency", "shrink") else ChannelConfig
    return flag(config, field, _spelling(field), STRUCTURE, **more)


@dataclass(frozen=True)
class StructureFlags:
    """The flags of what is removed from the graph itself; None is not given."""

    channels: Annotated[float | None, _structure("channels", "S")] = None
    macs: Annotated[float | None, _structure("macs", "S")] = None
    speedup: Annotated[float | None, _structure("speedup", "X")] = None
    importance: Annotated[Importance | None, _structure("importance", "NAME")] = None
    align: Annotated[int | None, _structure("align", "N", converter=_whole)] = None
    shrink: Annotated[bool | None, _structure("shrink", negative="--no-shrink")] = None
    latency: Annotated[bool | None, _structure("latency", negative="--no-latency")] = None

    @property
    def chooses(self) -> bool:
        """Whether channels are chosen."""
        return any(value is not None for value in (self.channels, self.macs, self.speedup))

    def structure(self, scope: Scope) -> StructureConfig:
        """What to remove.

        Args:
            scope: Which channels compete.

        Raises:
            UsageError: A flag has a value without sense, or no effect.
        """
        given = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return StructureConfig.of(**given, scope=scope)


@dataclass(frozen=True)
class SearchFlags:
    """The flags of a search for the most pruning; None is not given."""

    max_drop: Annotated[
        float | None, flag(DropGoal, "max_drop", "--max-drop", SELECTION, metavar="P")
    ] = None
    trials: Annotated[int | None, whole_flag(DropGoal, "trials", "--trials", SELECTION)] = None

    def goal(self) -> DropGoal | None:
        """How much may be lost; None where nothing is searched. Raises UsageError."""
        return drop_goal(self.max_drop, self.trials)


@dataclass(frozen=True)
class TrainingFlags:
    """The flags of the training data and of every `FineTune` field; None or False is not given."""

    train: Annotated[
        str | None, flag(OutputConfig, "train", "--train", TRAINING, metavar="DATA")
    ] = None
    recipe: Annotated[RecipeName | None, _training("recipe", "NAME")] = None
    epochs: Annotated[int | None, _count("epochs")] = None
    method: Annotated[Method | None, _training("method", "NAME")] = None
    saliency: Annotated[Saliency | None, _training("saliency", "NAME")] = None
    rounds: Annotated[int | None, _count("rounds")] = None
    rounds_schedule: Annotated[RoundsSchedule | None, _training("rounds_schedule", "FORM")] = None
    ramp: Annotated[float | None, _training("ramp", "S")] = None
    settle: Annotated[float | None, _training("settle", "S")] = None
    lr: Annotated[float | None, _training("lr", "RATE")] = None
    lr_schedule: Annotated[RateSchedule | None, _training("lr_schedule", "FORM")] = None
    optimizer: Annotated[OptimizerName | None, _training("optimizer", "NAME")] = None
    momentum: Annotated[float | None, _training("momentum", "M")] = None
    nesterov: Annotated[bool, _training("nesterov")] = False
    l2: Annotated[float | None, _training("l2", "L")] = None
    batch_size: Annotated[int | None, _count("batch_size")] = None
    clip_norm: Annotated[float | None, _training("clip_norm", "NORM")] = None
    seed: Annotated[int | None, _count("seed")] = None
    train_layers: Annotated[list[str] | None, _training("train_layers", "GLOB")] = None
    patience: Annotated[int | None, _count("patience")] = None
    checkpoint: Annotated[Path | None, _training("checkpoint", "DIR")] = None
    resume: Annotated[bool, _training("resume")] = False
    distill: Annotated[bool, _training("distill")] = False
    distill_weight: Annotated[float | None, _training("distill_weight", "S")] = None
    temperature: Annotated[float | None, _training("temperature", "T")] = None
    loss: Annotated[LossName | None, _training("loss", "NAME")] = None
    class_weights: Annotated[list[str] | None, _training("class_weights", "W,W")] = None
    label_smoothing: Annotated[float | None, _training("label_smoothing", "S")] = None
    bn: Annotated[BatchNormMode | None, _training("bn", "MODE")] = None
    engine: Annotated[EngineName | None, _training("engine", "NAME")] = None

    def finetune(self, val: str | None) -> FineTune | None:
        """How to retrain; None without training data.

        Args:
            val: The validation data, None where there is none.

        Raises:
            UsageError: A flag has a value without sense, or no effect.
        """
        given = self._given()
        if self.train is None and given:
            raise UsageError(
                f"{_spelling(next(iter(given)))} has no effect without --train: name the data to"
                " retrain on, or leave it out"
            )
        if self.train is None:
            return None
        if self.class_weights is not None:
            given["class_weights"] = parse_class_weights(self.class_weights)
        name = given.pop("recipe", None)
        settings = FineTune(**given) if name is None else recipe(name, **given)
        if "momentum" in given and settings.optimizer != "sgd":
            raise UsageError("--momentum has no effect on adamw: add --optimizer sgd")
        settings.check_validation(val)
        return settings

    def _given(self) -> dict[str, Any]:
        """Values of the fine-tuning flags on the command line, by field."""
        values = ((entry.name, getattr(self, entry.name)) for entry in fields(FineTune))
        return {name: value for name, value in values if value is not None and value is not False}
