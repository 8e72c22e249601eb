"""From the metric that is asked for to the one that fits labels and outputs."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..errors import DataError, UsageError
from .automatic import (
    UNPRUNED,
    agreement_metric,
    choose_metric,
    class_axis,
    squares,
    valued,
    without_ones,
)
from .function import function_metric
from .metric import Metric
from .request import MetricRequest

__all__ = ["check_request", "resolve"]


def check_request(request: MetricRequest) -> None:
    """Import a function that is asked for, so that a bad one is refused before any work.

    Raises:
        DataError: It cannot be imported.
        UsageError: Nothing says which way is up.
    """
    if request.kind == "function":
        assert request.given is not None
        function_metric(request.given, request.better)


def resolve(
    request: MetricRequest,
    target: np.ndarray,
    output: np.ndarray,
    *,
    reference: bool,
    sigmoid: bool = False,
    targets: bool = False,
    place: str = "the data",
    other: str = UNPRUNED,
) -> Metric:
    """The metric of a model.

    Args:
        request: What is asked for.
        target: Labels of a batch, or the reference model's first output for it [N, ...].
        output: The model's first output for the batch [N, ...].
        reference: Whether `target` is from the reference model.
        sigmoid: Whether the model ends in a Sigmoid.
        targets: Whether whole-number labels may be values; see `choose_metric`.
        place: What messages call the data.
        other: What reports call the reference model.

    Raises:
        DataError: The metric does not fit labels or outputs.
        UsageError: It makes no sense for the model.
    """
    if request.kind == "function":
        assert request.given is not None
        return function_metric(request.given, request.better)
    if reference and target.shape != output.shape:
        raise DataError(
            f"the first output is of shape {output.shape} and that of {other} of shape "
            f"{target.shape}; outputs are compared only where their shapes are the same"
        )
    if request.kind == "cosine":
        return _cosine(output, other)
    if reference and request.kind == "mse":
        if output.dtype.kind != "f":
            raise _no_floats("mse", output)
        return Metric(f"mean squared error against {other}", "lower", False, squares)
    if reference:
        return agreement_metric(target, sigmoid=sigmoid, other=other)
    if request.kind == "mse":
        metric = valued(target, output)
        if metric is None:
            raise DataError(
                f"mse compares values, but 'labels' in {place} are {target.dtype} of shape "
                f"{target.shape} for a first output that is {output.dtype} of shape "
                f"{output.shape}; give values of that shape, or data without labels to compare "
                "with the unpruned model"
            )
        return metric
    chosen = choose_metric(target, output, sigmoid=sigmoid, targets=targets, place=place)
    return chosen if request.kind == "auto" else _top(request.k, chosen, target, output)


def _top(k: int, chosen: Metric, labels: np.ndarray, output: np.ndarray) -> Metric:
    """The top-k form of the accuracy that suits the data."""
    if not chosen.share:
        raise DataError(
            f"top{k} counts right classes, but the labels are values, not classes; use mse"
        )
    if k == 1:
        return chosen
    classes, axis = chosen.classes, class_axis(labels, output)
    if axis is None:
        axis = class_axis(without_ones(labels), output)
    if classes is None or (axis is None and output.size != len(output) * classes):
        raise UsageError(f"top{k} needs scores of classes, and the model gives none; use top1")
    if classes <= k:
        raise UsageError(
            f"top{k} is always right where there are {classes} classes; choose a smaller number"
        )
    name = f"top-{k} {chosen.name.removeprefix('top-1 ')}"
    return Metric(name, "higher", True, partial(_among_first, k=k, axis=axis), classes)


def _cosine(output: np.ndarray, other: str) -> Metric:
    if output.dtype.kind != "f":
        raise _no_floats("cosine", output)
    return Metric(f"cosine similarity with {other}", "higher", False, _cosines)


def _no_floats(name: str, output: np.ndarray) -> DataError:
    return DataError(
        f"{name} compares floats, and the model's first output is {output.dtype}; use agreement"
    )


# ---- values --------------------------------------------------------------------------------


def _among_first(output: np.ndarray, target: np.ndarray, *, k: int, axis: int | None) -> np.ndarray:
    """Whether the right class is among the k of highest score.

    Of equal scores the lower class comes first, as in argmax; a score that is not a number is
    never among them.
    """
    scores = output.reshape(len(output), -1) if axis is None else np.moveaxis(output, axis, -1)
    right = target.reshape(scores.shape[:-1])[..., None]
    own = np.take_along_axis(scores, right, axis=-1)
    # Whatever is not at most as high counts as ahead, so that NaN does.
    ahead = ~(scores <= own) | ((scores == own) & (np.arange(scores.shape[-1]) < right))
    return np.asarray(ahead.sum(axis=-1) < k)


def _cosines(output: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Cosine similarity of each sample, in float64; two zero vectors are alike."""
    a = output.reshape(len(output), -1).astype(np.float64)
    b = reference.reshape(len(reference), -1).astype(np.float64)
    lengths = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    products = (a * b).sum(axis=1)
    alike = (a == b).all(axis=1)
    return np.asarray(np.where(alike, 1.0, products / np.where(lengths > 0, lengths, 1.0)))
