"""Losses that a user's function builds."""

from __future__ import annotations

from onnx import TensorProto

from ...errors import UsageError
from ..builder import GraphBuilder
from ..values import FLOATS
from .choice import Labels
from .config import LossConfig, LossFunction, LossValues
from .inputs import LABELS, TEACHER, as_type, label_input, teacher_input
from .logits import chosen_output, find_scores

__all__ = ["append_function"]


def append_function(
    b: GraphBuilder,
    function: LossFunction,
    config: LossConfig,
    labels: Labels | None,
    output: str | None,
) -> LossValues:
    """Call a user's loss function and check what it returns.

    Raises:
        UsageError: The function returned something that is no float scalar.
    """
    scores = find_scores(b, output) if config.distill else None
    values = {info.name: info.name for info in b.graph.output}
    targets: dict[str, str] = {}
    if labels is not None:
        targets[LABELS] = label_input(b, labels, b.shape(chosen_output(b, output)) or ())
    if scores is not None:
        targets[TEACHER] = teacher_input(b, scores.logits)
    title = getattr(function, "__name__", type(function).__name__)
    return LossValues(
        _as_scalar(b, function(b, values, targets), title),
        None,
        f"loss function '{title}'",
        None,
        targets.get(LABELS),
        {targets[TEACHER]: scores.logits} if scores is not None else {},
    )


def _as_scalar(b: GraphBuilder, name: object, title: str) -> str:
    """A user's loss as float32 scalar."""
    if not isinstance(name, str) or b.values.dtype(name) not in FLOATS:
        raise UsageError(
            f"loss function '{title}' returned {name!r}, which is not the name of a float value "
            "of the graph; return what the last builder.op(...) gave"
        )
    shape = b.shape(name)
    if shape is None or any(size != 1 for size in shape):
        known = "unknown shape" if shape is None else f"shape {list(shape)}"
        raise UsageError(
            f"loss function '{title}' returned '{name}' of {known} and a loss is one number; "
            "end with builder.op('ReduceMean', value, keepdims=0)"
        )
    return as_type(b, b.reshape(name, ()), TensorProto.FLOAT)
