"""Graph inputs of a loss: labels, and the values of a teacher."""

from __future__ import annotations

import numpy as np
from onnx import helper

from ..builder import GraphBuilder
from ..values import Shape
from .choice import Labels, agree

__all__ = ["LABELS", "TEACHER", "aligned", "as_type", "label_input", "teacher_input"]

#: Names of the graph inputs that a loss adds.
LABELS = "labels"
TEACHER = "teacher"


def label_input(b: GraphBuilder, labels: Labels, scores: Shape) -> str:
    """Add the input for labels, whose batch axis is that of the scores."""
    batch = scores[0] if scores and scores[0] is not None else "batch"
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(labels.dtype))
    return b.input(LABELS, dtype, (batch, *labels.shape))


def teacher_input(b: GraphBuilder, value: str, number: int = 0) -> str:
    """Add the input for a teacher's value, typed and shaped as the student's.

    Args:
        b: The builder.
        value: The student's value.
        number: 0 for the first output that is imitated, 1 for the second, and so on.
    """
    b.rank(value)  # raises where nothing is known of the shape
    name = f"{TEACHER}.{number}" if number else TEACHER
    return b.input(name, b.dtype(value), b.shape(value) or ())


def aligned(
    b: GraphBuilder, name: str, shape: tuple[int, ...], scores: Shape, axis: int | None
) -> str:
    """Labels with the axes of the scores.

    Args:
        b: The builder.
        name: The labels.
        shape: Their shape without the batch axis.
        scores: Sizes of the scores, the batch axis first.
        axis: The class axis of the scores, which labels that are classes get with size one;
            None where there is one label for each score.
    """
    places = [place for place in range(1, len(scores)) if place != axis]
    if agree(shape, [scores[place] for place in places]):
        return b.unsqueeze(name, [] if axis is None else [axis])
    bare = b.squeeze(name, [place + 1 for place, size in enumerate(shape) if size == 1])
    ones = [place for place, size in enumerate(scores) if place and (place == axis or size == 1)]
    return b.unsqueeze(bare, ones)


def as_type(b: GraphBuilder, name: str, dtype: int) -> str:
    """A value in an element type (TensorProto enum); itself where it has that."""
    return name if b.dtype(name) == dtype else b.op("Cast", name, to=dtype)
