"""Metrics chosen from the right answers and the outputs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from onnx import ModelProto

from ..errors import DataError
from .metric import TOP_1, Metric, Values

__all__ = [
    "UNPRUNED",
    "agreement_metric",
    "choose_metric",
    "class_axis",
    "ends_in_sigmoid",
    "squares",
    "valued",
    "without_ones",
]

#: Operators between a Sigmoid and the output that change no number.
VIEWS = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
SIGMOIDS = ("Sigmoid", "HardSigmoid")
#: What reports call the model that others must agree with.
UNPRUNED = "the unpruned model"


def choose_metric(
    labels: np.ndarray,
    output: np.ndarray,
    *,
    sigmoid: bool = False,
    targets: bool = False,
    place: str = "the data",
) -> Metric:
    """The metric of a model on labelled data.

    ======================================  ==================================================
    labels (per sample), output             metric
    ======================================  ==================================================
    class, scores [C] or a class            top-1 accuracy
    class per position, scores [C, ...]     pixel accuracy (token accuracy on one axis); the
    or [..., C], or classes                 class axis is the first where both would fit
    0 or 1, one value                       accuracy at 0.5 after a Sigmoid, else at logit 0
    several 0 or 1, values of their shape   label accuracy at 0.5 or at logit 0
    floats of the output's shape            mean squared error
    ======================================  ==================================================

    Labels that fit in none of these ways are tried without their axes of size one.

    Args:
        labels: int64 classes or float32 targets of a batch [N, ...].
        output: What the model gives for the batch [N, ...].
        sigmoid: Whether the model ends in a Sigmoid; see `ends_in_sigmoid`.
        targets: Whether whole numbers of the shape of an output without Sigmoid are values.
        place: Where the labels are from, for messages.

    Raises:
        DataError: Labels and output fit in none of these ways.
    """
    found = _fitting(labels, output, sigmoid, targets)
    if found is None and 1 in labels.shape[1:]:
        bare = _fitting(without_ones(labels), output, sigmoid, targets)
        if bare is not None and bare.values is not None:
            found = replace(bare, values=partial(_on_bare, bare.values))
    if found is None:
        raise _unfit(labels, output, place)
    return found


def agreement_metric(
    reference: np.ndarray, *, sigmoid: bool = False, other: str = UNPRUNED
) -> Metric:
    """How near a model's outputs are to a reference model's on the same samples.

    Class scores [N, C] and classes: the share with the same top-1 class; other values that a
    Sigmoid gives: the share on the same side of 0.5; else mean squared error.

    Args:
        reference: What the reference model gives for a batch [N, ...].
        sigmoid: Whether the model ends in a Sigmoid; see `ends_in_sigmoid`.
        other: What reports call the reference model.

    Raises:
        DataError: The outputs are no numbers.
    """
    name = f"agreement with {other}"
    if reference.dtype.kind in "iu":
        return Metric(name, "higher", True, _equal)
    if reference.dtype.kind != "f":
        raise DataError(
            f"the model's first output is {reference.dtype} of shape {reference.shape}, which "
            f"cannot be compared with that of {other}; give data with labels"
        )
    if len(_core(reference)) == 1:
        return Metric(name, "higher", True, _same_class)
    if sigmoid:
        return Metric(name, "higher", True, _same_side)
    return Metric(f"mean squared error against {other}", "lower", False, squares)


def ends_in_sigmoid(proto: ModelProto) -> bool:
    """Whether the first output is what a Sigmoid gives, perhaps in another shape or type."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    node = makers.get(proto.graph.output[0].name) if proto.graph.output else None
    while node is not None and node.op_type in VIEWS:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in SIGMOIDS


# ---- choosing ------------------------------------------------------------------------------


def _fitting(labels: np.ndarray, output: np.ndarray, sigmoid: bool, targets: bool) -> Metric | None:
    if labels.dtype.kind != "i":
        return valued(labels, output)
    regression = valued(labels, output) if targets and not sigmoid else None
    return regression or _classified(output, labels) or _scored(labels, output, sigmoid)


def valued(labels: np.ndarray, output: np.ndarray) -> Metric | None:
    """The metric of labels that are values; None where their shape is not the output's."""
    if output.dtype.kind != "f" or _core(labels) != _core(output):
        return None
    return Metric("mean squared error", "lower", False, squares)


def _classified(output: np.ndarray, labels: np.ndarray) -> Metric | None:
    """The metric of a model that gives classes."""
    same = labels.shape == output.shape or (labels.ndim == 1 and output.size == len(output))
    if output.dtype.kind not in "iu" or not same:
        return None
    return Metric(_accuracy(labels), "higher", True, _equal)


def _scored(labels: np.ndarray, output: np.ndarray, sigmoid: bool) -> Metric | None:
    """The metric of a model that gives scores of classes."""
    if output.dtype.kind != "f":
        return None
    if _core(labels) == _core(output):
        return _binary(labels, 0.5 if sigmoid else 0.0, sigmoid)
    if labels.ndim == 1 and len(_core(output)) == 1:
        return Metric(TOP_1, "higher", True, _top1, output.size // len(output))
    axis = class_axis(labels, output)
    if axis is None:
        return None
    values = partial(_top_along, axis=axis)
    return Metric(_accuracy(labels), "higher", True, values, output.shape[axis])


def class_axis(labels: np.ndarray, output: np.ndarray) -> int | None:
    """The axis of an output [N, ...] that counts classes, for classes per position [N, ...].

    The first where both would fit; None where none does.
    """
    for axis in (1, output.ndim - 1):
        if output.ndim > 1 and output.shape[:axis] + output.shape[axis + 1 :] == labels.shape:
            return axis
    return None


def _binary(labels: np.ndarray, threshold: float, sigmoid: bool) -> Metric | None:
    """The metric of values that each say yes or no; None for labels that are one-hot rows."""
    several = bool(_core(labels))
    if several and not sigmoid and _one_hot(labels):
        return None
    place = f"{threshold:g}" if sigmoid else f"logit {threshold:g}"
    name = f"{'label accuracy' if several else 'accuracy'} at {place}"
    return Metric(name, "higher", True, partial(_side, threshold=threshold), 2)


def _one_hot(labels: np.ndarray) -> bool:
    rows = labels.reshape(len(labels), -1)
    return bool((rows.sum(axis=1) == 1).all() and rows.min() >= 0)


def _accuracy(labels: np.ndarray) -> str:
    return {1: TOP_1, 2: "token accuracy"}.get(labels.ndim, "pixel accuracy")


def _core(array: np.ndarray) -> tuple[int, ...]:
    """Shape per sample, less axes of size one."""
    return tuple(size for size in array.shape[1:] if size != 1)


def without_ones(array: np.ndarray) -> np.ndarray:
    """An array [N, ...] less its axes of size one, the first kept."""
    return array.reshape(len(array), *_core(array))


def _unfit(labels: np.ndarray, output: np.ndarray, place: str) -> DataError:
    kind = "whole numbers" if labels.dtype.kind == "i" else "floats"
    return DataError(
        f"'labels' in {place} are {kind} of shape {labels.shape} for a first output that is "
        f"{output.dtype} of shape {output.shape}; give whole-number classes, one for each sample "
        "or position, or floats of the output's shape"
    )


# ---- values --------------------------------------------------------------------------------


def _on_bare(values: Values, output: np.ndarray, target: np.ndarray) -> np.ndarray:
    return values(output, without_ones(target))


def _equal(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(output.reshape(-1) == target.reshape(-1))


def _top1(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.asarray(output.reshape(len(output), -1).argmax(axis=1) == target)


def _top_along(output: np.ndarray, target: np.ndarray, *, axis: int) -> np.ndarray:
    return np.asarray(output.argmax(axis=axis) == target)


def _side(output: np.ndarray, target: np.ndarray, *, threshold: float) -> np.ndarray:
    return np.asarray((output.reshape(-1) > threshold) == (target.reshape(-1) == 1))


def _same_class(output: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return _top1(output, reference.reshape(len(reference), -1).argmax(axis=1))


def _same_side(output: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.asarray((output > 0.5) == (reference > 0.5))


def squares(output: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared differences, in float64."""
    difference = output.reshape(-1).astype(np.float64) - target.reshape(-1)
    return np.asarray(difference * difference)
