"""Which loss fits a model's scores and the labels of its samples: decisions without a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ...errors import DataError, OnnxPruneError, UsageError
from ..values import Dim, Shape
from .logits import Link

__all__ = [
    "Choice",
    "Kind",
    "Labels",
    "Layout",
    "LossName",
    "agree",
    "choose",
    "default_axis",
    "fits",
]

LossName = Literal["auto", "cross-entropy", "binary-cross-entropy", "mse", "l1"]
Kind = Literal["cross-entropy", "binary-cross-entropy", "mse", "l1"]

#: How names of unknown sizes start that `Values` and ONNX shape inference make up.
_MADE_UP = ("?", "unk__", "None")


@dataclass(frozen=True)
class Labels:
    """Element type and shape of the labels, the shape per sample (without the batch axis)."""

    dtype: np.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """What a choice depends on: the scores' link and shape, and their class axis where known.

    Attributes:
        link: What makes the scores of logits.
        shape: Sizes of the scores, the batch axis first.
        axis: The class axis, where a softmax says it.
        where: What messages call the scores.
    """

    link: Link
    shape: Shape
    axis: int | None
    where: str


@dataclass(frozen=True)
class Choice:
    """A loss.

    Attributes:
        kind: The formula.
        axis: The class axis, None where elements are compared one by one.
        classes: The number of classes, None where there are none or only names of sizes.
        classed: Labels are class numbers along `axis`, rather than one value per score.
    """

    kind: Kind
    axis: int | None = None
    classes: int | None = None
    classed: bool = False


def choose(name: LossName, labels: Labels, layout: Layout) -> Choice:
    """The loss for labels.

    Args:
        name: What the user asked for; "auto" leaves it to labels and scores.
        labels: Whole numbers (booleans included) or floats.
        layout: The scores.

    Raises:
        DataError: The labels do not fit the scores.
        UsageError: The loss that was asked for does not fit the model.
    """
    case = _Case(labels, layout)
    if labels.dtype.kind not in "iubf":
        raise case.refusal("labels are whole numbers or floats")
    return _CHOICES[_automatic(case) if name == "auto" else name](case)


def fits(shape: Sequence[int], sizes: Shape) -> bool:
    """Whether labels of this shape go with scores of these sizes, but for axes of size one."""
    return agree(shape, sizes) or agree(_without_ones(shape), _without_ones(sizes))


def agree(shape: Sequence[Dim], sizes: Sequence[Dim]) -> bool:
    """Whether sizes agree as far as they are known."""
    return len(shape) == len(sizes) and all(
        not isinstance(size, int) or size == own for own, size in zip(shape, sizes, strict=True)
    )


def default_axis(shape: Shape) -> int | None:
    """The class axis of scores without softmax: the first behind the batch; None if there is none.

    Of two that are possible, one whose size is known comes first.
    """
    return next(iter(_candidates(shape)), None)


def _candidates(shape: Shape) -> list[int]:
    """Possible class axes, the likeliest first."""
    axes = list(dict.fromkeys((1, len(shape) - 1))) if len(shape) > 1 else []
    return sorted(axes, key=lambda axis: not isinstance(shape[axis], int))


class _Case:
    """Labels and scores, with what the rules ask of them."""

    def __init__(self, labels: Labels, layout: Layout) -> None:
        self.labels, self.layout = labels, layout
        self.whole = labels.dtype.kind in "iub"
        self.like_scores = fits(labels.shape, layout.shape[1:])
        self.axis = self._class_axis() if self.whole else None
        size = None if self.axis is None else layout.shape[self.axis]
        self.classes = size if isinstance(size, int) else None
        #: Whole numbers, one for every row of at least two class scores.
        self.classed = self.axis is not None and self.classes != 1

    def _class_axis(self) -> int | None:
        """The axis without which the scores are shaped as the labels."""
        shape = self.layout.shape
        known = self.layout.axis
        for axis in _candidates(shape) if known is None else [known]:
            if axis > 0 and fits(self.labels.shape, shape[1:axis] + shape[axis + 1 :]):
                return axis
        return None

    def refusal(self, why: str, error: type[OnnxPruneError] = DataError) -> OnnxPruneError:
        """An error that names scores and labels."""
        return error(
            f"labels of type {self.labels.dtype} and shape {_written(('N', *self.labels.shape))} "
            f"do not fit {self.layout.where} of shape {_written(self.layout.shape)}: {why}"
        )


# ---- rules ---------------------------------------------------------------------------------


def _automatic(case: _Case) -> Kind:
    link = case.layout.link
    if link == "sigmoid":
        return "binary-cross-entropy"
    if link != "none" or case.classed:
        return "cross-entropy"
    if case.whole and case.like_scores:
        raise case.refusal(
            "whole numbers that are no classes; choose the loss 'mse', 'l1' or "
            "'binary-cross-entropy', or give float labels"
        )
    if case.whole:
        raise case.refusal("class labels need one row of class scores for each label")
    return "mse"


def _cross_entropy(case: _Case) -> Choice:
    shape = case.layout.shape
    if case.classed:
        return Choice("cross-entropy", case.axis, case.classes, classed=True)
    axis = default_axis(shape) if case.layout.axis is None else case.layout.axis
    if axis == 0:
        raise case.refusal("its softmax goes over samples, not over classes", UsageError)
    if axis is None or shape[axis] == 1:
        raise case.refusal(
            "one score is no choice between classes; choose the loss 'binary-cross-entropy'",
            UsageError,
        )
    if case.like_scores:
        return Choice("cross-entropy", axis)
    if not case.whole and case.labels.dtype.kind == "f":
        raise case.refusal("class labels are integers, and float labels one share for each class")
    raise case.refusal("cross-entropy takes one class number for each row of scores")


def _binary(case: _Case) -> Choice:
    if case.layout.link in ("softmax", "log-softmax"):
        raise case.refusal(
            "its scores are shares of a whole; choose the loss 'cross-entropy'", UsageError
        )
    if case.like_scores:
        return Choice("binary-cross-entropy", classes=2 if case.whole else None)
    if case.classed:
        return Choice("binary-cross-entropy", case.axis, case.classes, classed=True)
    raise case.refusal("binary cross-entropy takes one label, 0 to 1, for each score")


def _difference(kind: Literal["mse", "l1"]) -> Callable[[_Case], Choice]:
    def rule(case: _Case) -> Choice:
        if not case.like_scores:
            raise case.refusal(f"the loss '{kind}' takes one value for each score")
        return Choice(kind)

    return rule


_CHOICES: dict[str, Callable[[_Case], Choice]] = {
    "binary-cross-entropy": _binary,
    "cross-entropy": _cross_entropy,
    "l1": _difference("l1"),
    "mse": _difference("mse"),
}
assert set(_CHOICES) == set(get_args(Kind))


# ---- shapes --------------------------------------------------------------------------------


def _without_ones(sizes: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(size for size in sizes if size != 1)


def _written(sizes: Sequence[Dim]) -> str:
    """[N, 3, ?]: names that were made up for unknown sizes are of no use to a reader."""
    names = [str(size) for size in sizes]
    shown = ("?" if name.startswith(_MADE_UP) else name for name in names)
    return f"[{', '.join(shown)}]"
