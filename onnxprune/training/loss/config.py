"""What a user asks of the loss, and what the loss is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from ...errors import UsageError
from ..builder import GraphBuilder
from .choice import LossName

__all__ = ["LossConfig", "LossFunction", "LossValues"]

#: Appends a loss: gets the builder, the values of all outputs by the outputs' names, and the
#: inputs "labels" and "teacher" as far as there are any; returns the name of a scalar.
LossFunction = Callable[[GraphBuilder, Mapping[str, str], Mapping[str, str]], str]

#: Share of distillation in the loss where there are labels too.
DEFAULT_SHARE = 0.5


@dataclass(frozen=True)
class LossConfig:
    """The loss that a user asks for.

    Attributes:
        name: A loss, or "auto" for the one that fits labels and output, or a function.
        class_weights: Weight of every class in cross-entropy.
        label_smoothing: Share of the target, in cross-entropy, that goes to all classes alike.
        distill: Whether the outputs of a teacher are imitated; always so without labels, unless
            the loss is a function.
        distill_weight: Share of distillation in the loss, over 0; all of it without labels and
            half of it with them where this is None.
        temperature: Divides logits in distillation. 4 is what most comparisons of distillation
            methods use; Hinton et al. found 2.5 to 20 useful, lower for small models.

    Raises:
        UsageError: A number without sense, or options that exclude each other.
    """

    name: LossName | LossFunction = "auto"
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    distill: bool = False
    distill_weight: float | None = None
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not callable(self.name) and self.name not in get_args(LossName):
            names = ", ".join(get_args(LossName))
            raise UsageError(f"there is no loss '{self.name}'; choose one of {names}")
        weights = self.class_weights
        if weights is not None and not (_all_usable(weights) and sum(weights) > 0):
            raise UsageError(
                f"class weights are {weights}; give one number of at least 0 for every class, "
                "not all 0"
            )
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label smoothing is {self.label_smoothing}; give 0 or more, under 1")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UsageError(f"the temperature is {self.temperature}; give a number over 0")
        if self.distill_weight is not None and not 0 < self.distill_weight <= 1:
            raise UsageError(
                f"the distillation weight is {self.distill_weight}; give a share over 0, up to 1"
            )
        if callable(self.name) and (self.reweighted or self.distill_weight is not None):
            raise UsageError(
                "class weights, label smoothing and distillation weight do not apply to a loss "
                "function; compute them in the function"
            )

    @property
    def reweighted(self) -> bool:
        """Whether options are set that only cross-entropy has."""
        return self.class_weights is not None or self.label_smoothing > 0

    def share(self, *, labelled: bool) -> float:
        """Share of distillation in the loss.

        Raises:
            UsageError: The weight leaves something to labels that are not there, or there is no
                distillation to weight.
        """
        weight = self.distill_weight
        if not labelled:
            if weight not in (None, 1):
                raise UsageError(
                    f"the distillation weight is {weight} and there are no labels for the rest of "
                    "the loss; give labels or leave the weight out"
                )
            return 1.0
        if self.distill:
            return DEFAULT_SHARE if weight is None else weight
        if weight is not None:
            raise UsageError("a distillation weight needs distillation; switch that on")
        return 0.0


def _all_usable(weights: tuple[float, ...]) -> bool:
    return all(weight >= 0 and math.isfinite(weight) for weight in weights)


@dataclass(frozen=True)
class LossValues:
    """The names of a loss's values, and what it is.

    Attributes:
        loss: A float32 scalar, the mean over the batch.
        correct: A float32 scalar, the number of samples whose best class is the label; None
            without class labels. Samples with labels at many positions (segmentation) count by
            the share of positions that are right.
        description: One phrase.
        classes: Labels are 0 to `classes` - 1; None where they are no class numbers, or where
            only the running model knows the number of classes.
        label_input: The graph input for labels.
        teachers: For every graph input that takes a teacher's value, which value of the forward
            graph that is.
        label_range: Lowest and highest allowed label, None without limits.
    """

    loss: str
    correct: str | None
    description: str
    classes: int | None
    label_input: str | None
    teachers: Mapping[str, str]
    label_range: tuple[float, float] | None = None
