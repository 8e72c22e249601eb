"""How to retrain what pruning left: validated once, shared by the command line and Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import UsageError
from .options import choice, derived, documented, glob, items, number, option, whole

if TYPE_CHECKING:
    from .training.builder import GraphBuilder

    LossFunction = Callable[[GraphBuilder, Mapping[str, str], Mapping[str, str]], str]

__all__ = [
    "BatchNormMode",
    "EngineName",
    "FineTune",
    "LossName",
    "Method",
    "OptimizerName",
    "RateSchedule",
    "RecipeName",
    "RoundsSchedule",
    "Saliency",
    "parse_class_weights",
]

RecipeName = Literal["han2015", "guo2016", "zhu2017"]
Method = Literal["iterative", "gradual", "splicing"]
Saliency = Literal["magnitude", "fisher"]
RoundsSchedule = Literal["cubic", "linear"]
RateSchedule = Literal["cosine", "step", "constant"]
OptimizerName = Literal["adamw", "sgd"]
LossName = Literal["auto", "cross-entropy", "binary-cross-entropy", "mse", "l1"]
BatchNormMode = Literal["frozen", "train"]
EngineName = Literal["onnxprune", "onnxruntime-training"]

#: Learning rates that are usual for training from the start.
USUAL_RATES: Mapping[str, float] = {"adamw": 1e-3, "sgd": 1e-2}
#: Han et al. 2015 retrain LeNets at a tenth of the original rate.
RETRAINING_SHARE = 10


@documented
@dataclass(frozen=True)
class FineTune:
    """How to retrain a pruned model; raises UsageError for a value that makes no sense."""

    recipe: RecipeName | None = derived(
        "Take the settings of a published method, each of which may be given beside it: han2015"
        " (rounds of sgd with L2), guo2016 (splicing) or zhu2017 (gradual)."
    )
    epochs: int = option(
        5, "Go through the training data this many times in every round. The default is 5."
    )
    method: Method = option(
        "iterative",
        "When weights go: iterative (the default: prune, retrain what is left, --rounds times),"
        " gradual (while the model is trained, and for good; Zhu & Gupta 2017) or splicing (while"
        " it is trained, and they come back when they grow: weights are trained beneath their"
        " masks, by sgd; Guo et al. 2016, Dynamic Network Surgery).",
    )
    ramp: float = option(
        0.5,
        "Share of a training by method gradual or splicing in which the threshold rises to its"
        " full height, 0 to 1. The default is 0.5; 0 starts at the full height.",
    )
    settle: float = option(
        0.25,
        "Share of such a training, at its end, in which masks stay as they are. The default is"
        " 0.25.",
    )
    saliency: Saliency = option(
        "magnitude",
        "Which weights a target share of zeros takes by method gradual: those of least magnitude"
        " (the default) or of least fisher, magnitude x root mean square of the gradient, which"
        " weighs layers against each other by what they do to the loss (Theis et al. 2018).",
    )
    rounds: int = option(
        1,
        "Prune and retrain this many times, with the threshold rising to its full height over the"
        " rounds; it counts in the standard deviations that layers had at the start. The default"
        " is 1.",
    )
    rounds_schedule: RoundsSchedule = option(
        "cubic",
        "How the threshold rises over the rounds, or over --ramp: cubic (the default: most of it at"
        " the beginning, after Zhu & Gupta 2017) or linear.",
    )
    lr: float | None = option(
        None,
        "Learning rate. The default is a tenth of what is usual for the optimizer, as in Han et al."
        " 2015: 0.0001 for adamw, 0.001 for sgd.",
    )
    lr_schedule: RateSchedule = option(
        "cosine", "How the learning rate falls: cosine (the default), step, or constant."
    )
    optimizer: OptimizerName = option(
        "adamw", "What updates the weights: adamw (the default) or sgd."
    )
    momentum: float = option(
        0.9, "Momentum of sgd, from 0 up to but not including 1. The default is 0.9."
    )
    nesterov: bool = option(False, "Use Nesterov's form of the momentum of sgd.")
    l2: float = option(
        1e-4,
        "Strength of the L2 penalty on weights: in the gradient for sgd, as in Han et al. 2015, and"
        " as decoupled weight decay for adamw. The default is 0.0001; 0 turns it off.",
    )
    batch_size: int = option(64, "Samples in one step. The default is 64.")
    clip_norm: float | None = option(
        None, "Scale all gradients down together where their L2 norm is larger than this."
    )
    seed: int = option(
        0, "Start of the random numbers for the order of samples and dropout. The default is 0."
    )
    train_layers: tuple[str, ...] = option(
        (),
        "Train only the weights whose own or whose node's name matches GLOB. Repeatable; the"
        " default is every weight that can be trained.",
    )
    patience: int | None = option(
        None,
        "End a round after this many epochs without a better metric on the validation data, which"
        " this needs. The best epoch is kept.",
    )
    checkpoint: Path | None = option(
        None,
        "Keep the state of the training in this folder: written after every epoch, and when the"
        " training is interrupted.",
    )
    resume: bool = option(False, "Go on where the checkpoint stopped, as if nothing had happened.")
    distill: bool = option(
        False,
        "Retrain towards the outputs of the unpruned model (the default without labels).",
    )
    distill_weight: float | None = option(
        None,
        "Share of distillation in the loss, 0 to 1, beside the labels'. The default is 0.5 where"
        " there are labels.",
    )
    temperature: float = option(
        4.0, "Divide class scores by this when distilling. The default is 4."
    )
    loss: LossName | LossFunction = option(
        "auto",
        "What to minimise: cross-entropy, binary-cross-entropy, mse or l1; auto (the default)"
        " chooses from the model's output and the labels.",
    )
    class_weights: tuple[float, ...] | None = option(
        None, "Weights of the classes in the loss, one for each class in order, as in 1,1,2.5."
    )
    label_smoothing: float = option(
        0.0,
        "Share of every label that goes to all classes alike, from 0 (the default) up to but not"
        " including 1.",
    )
    bn: BatchNormMode = option(
        "frozen",
        "Keep the running statistics of BatchNormalization (frozen, the default), or normalise by"
        " the batch and update them (train).",
    )
    engine: EngineName = option(
        "onnxprune",
        "What computes the steps: onnxprune (the default; runs on onnxruntime) or Microsoft's"
        " onnxruntime-training where that is installed.",
    )

    def __post_init__(self) -> None:
        """Validate every field, and give it its plain type."""
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                # The dataclass is frozen for everybody else.
                object.__setattr__(self, name, check(value, name.replace("_", "-")))
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise UsageError(
                "nesterov is a form of the momentum of sgd: choose the optimizer sgd with a"
                " momentum above 0, or leave it out"
            )
        if self.saliency != "magnitude":
            self._check_saliency()
        if self.method != "iterative":
            self._check_method()
        elif (self.ramp, self.settle) != (FineTune.ramp, FineTune.settle):
            raise UsageError(
                "ramp and settle are shares of a training that prunes: choose the method gradual"
                " or splicing, or leave them out"
            )
        if self.resume and self.checkpoint is None:
            raise UsageError("resume needs a checkpoint to go on from: name its folder")
        if self.distill_weight is not None and not self.distill:
            raise UsageError(
                "distill-weight mixes distillation with labels: ask for distill too, or leave it"
                " out"
            )

    def _check_method(self) -> None:
        """Refuse what has no sense with a method that prunes while it trains."""
        if self.rounds != 1:
            raise UsageError(
                f"method {self.method} prunes while it trains, once: leave out the rounds, or"
                " choose the method iterative"
            )
        if self.method == "splicing" and self.optimizer != "sgd":
            raise UsageError(
                f"{self.optimizer} moves masked weights as fast as others whatever their gradients,"
                " so method splicing would bring back the wrong ones: choose the optimizer sgd"
            )
        if self.patience is not None:
            raise UsageError(
                f"patience stops where the metric gets no better, and by method {self.method} it"
                " falls while weights go: leave out the patience"
            )
        if self.engine != "onnxprune":
            raise UsageError(
                f"the engine {self.engine} cannot change masks, as method {self.method} does:"
                " leave out the engine"
            )

    def _check_saliency(self) -> None:
        """Refuse what has no squared gradients when weights go."""
        if self.method != "gradual":
            raise UsageError(
                f"saliency {self.saliency} counts gradients of the training in which weights go:"
                " choose the method gradual, or leave it out"
            )
        if self.optimizer != "adamw":
            raise UsageError(
                f"saliency {self.saliency} takes the mean squared gradients that adamw keeps:"
                " choose that optimizer, or leave it out"
            )
        if not self.ramp:
            raise UsageError(
                f"saliency {self.saliency} knows no gradients before the first step, where a ramp"
                " of 0 prunes: give a longer ramp"
            )

    @property
    def rate(self) -> float:
        """The learning rate at the start: `lr`, or Han et al.'s tenth of what is usual."""
        if self.lr is not None:
            return self.lr
        return USUAL_RATES[self.optimizer] / RETRAINING_SHARE

    def quality_share(self, round: int) -> float:
        """Height of the threshold in a round, as a share of its full height.

        Rises from 0 before the first round to exactly 1 in the last: linearly, or as
        1 - (1 - r/R)^3 (Zhu & Gupta 2017, "To prune, or not to prune", equation 1).

        Args:
            round: 1 for the first, `rounds` for the last.
        """
        return self.height(round / self.rounds)

    def height(self, done: float) -> float:
        """Height of the threshold when a share of its rise is over, 0 to 1; see `quality_share`."""
        return done if self.rounds_schedule == "linear" else 1 - (1 - done) ** 3

    def check_validation(self, val: object) -> None:
        """Refuse a patience without validation data (None); raises UsageError."""
        if self.patience is not None and val is None:
            raise UsageError(
                "patience watches a metric on validation data: give val too, or leave it out"
            )


def parse_class_weights(texts: Sequence[str]) -> tuple[float, ...]:
    """Numbers from texts such as ``1,1,2.5``, all together; raises UsageError."""
    weights = []
    for part in ",".join(texts).split(","):
        try:
            weights.append(float(part))
        except ValueError:
            raise UsageError(
                f"class-weights has {part!r}, which is no number: write for example '1,1,2.5'"
            ) from None
    return tuple(weights)


_Check = Callable[[Any, str], Any]


def _whole(least: int) -> _Check:
    return lambda value, what: whole(value, what, least)


def _number(wanted: str, fits: Callable[[float], bool]) -> _Check:
    return lambda value, what: number(value, what, wanted, fits)


def _choice(literal: Any) -> _Check:
    def check(value: object, what: str) -> object:
        choice(value, what, literal)
        return value

    return check


def _positive(example: str) -> _Check:
    wanted = f"a number above 0 that float32 holds, such as {example}"
    return _number(wanted, lambda value: _SMALLEST <= value <= _LARGEST)


def _held(value: float) -> bool:
    """Whether float32, in which training computes, holds a number of at least 0."""
    return value == 0 or _SMALLEST <= value <= _LARGEST


def _globs(value: Any, what: str) -> tuple[str, ...]:
    return tuple(glob(item) for item in items(value, what))


def _folder(value: Any, what: str) -> Path:
    try:
        return Path(value)
    except TypeError:
        raise UsageError(f"{what} is {value!r}: give the path of a folder") from None


def _loss(value: Any, what: str) -> Any:
    if not callable(value):
        choice(value, what, LossName)
    return value


def _class_weights(value: Any, what: str) -> tuple[float, ...]:
    one = _number("numbers of at least 0 that float32 holds", _held)
    weights = tuple(one(item, f"a weight of {what}") for item in items(value, what))
    if not any(weights):
        raise UsageError(f"{what} weighs no class: give a number above 0 for at least one")
    return weights


#: The positive numbers of float32, those without full precision left out.
_SMALLEST, _LARGEST = 2.0**-126, 2.0**128 - 2.0**104

_FROM_ZERO = "from 0 up to but not including 1"

_CHECKS: Mapping[str, _Check] = {
    "epochs": _whole(1),
    "rounds": _whole(1),
    "method": _choice(Method),
    "saliency": _choice(Saliency),
    "ramp": _number("a share from 0 to 1", lambda value: 0 <= value <= 1),
    "settle": _number(f"a share {_FROM_ZERO}", lambda value: 0 <= value < 1),
    "rounds_schedule": _choice(RoundsSchedule),
    "lr": _positive("0.0001"),
    "lr_schedule": _choice(RateSchedule),
    "optimizer": _choice(OptimizerName),
    "momentum": _number(f"a number {_FROM_ZERO}", lambda value: 0 <= value < 1),
    "l2": _number("a number of at least 0 that float32 holds, such as 0.0001", _held),
    "batch_size": _whole(1),
    "clip_norm": _positive("1.0"),
    "seed": _whole(0),
    "train_layers": _globs,
    "patience": _whole(1),
    "checkpoint": _folder,
    "distill_weight": _number("a share from 0 to 1", lambda value: 0 <= value <= 1),
    # Its square, and what it divides, must stay numbers.
    "temperature": _number(
        "a number from 1e-6 to 1e6, such as 4", lambda value: 1e-6 <= value <= 1e6
    ),
    "loss": _loss,
    "class_weights": _class_weights,
    "label_smoothing": _number(f"a share {_FROM_ZERO}", lambda value: 0 <= value < 1),
    "bn": _choice(BatchNormMode),
    "engine": _choice(EngineName),
}
#: Fields in which None has a meaning of its own.
_OPTIONAL = frozenset(entry.name for entry in fields(FineTune) if entry.default is None)
