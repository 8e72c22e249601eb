"""Along which stored axes the outputs and inputs of a layer run, for patterns of zeros."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.layer import Layer, WeightUse
from ..pattern import GroupPattern, Pattern

__all__ = ["Axes", "axes_of", "misfit"]

#: Operators that look rows up instead of multiplying.
TABLES = frozenset(("Gather", "EmbedLayerNormalization", "TorchEmbedding"))


@dataclass(frozen=True)
class Axes:
    """Positions of axes of a stored tensor.

    Attributes:
        inputs: The axis that products are summed over.
        outputs: The axis of outputs; None where a weight has a single one.
    """

    inputs: int
    outputs: int | None


def axes_of(layer: Layer) -> Axes | str:
    """The axes of a layer's stored tensor, or why a pattern has none to follow."""
    uses = [use for use in layer.uses if use.op_type not in TABLES]
    if not uses:
        return "its rows are looked up, not multiplied"
    found = [_axes(use) for use in uses]
    first = found[0]
    if isinstance(first, str):
        return first
    return first if all(axes == first for axes in found) else "its users sum over different axes"


def _axes(use: WeightUse) -> Axes | str:
    if "unknown" in use.roles:
        return "a view hides along which axis its inputs run"
    inputs = [axis for axis, role in enumerate(use.roles) if role == "input"]
    outputs = [axis for axis, role in enumerate(use.roles) if role == "output"]
    if len(inputs) != 1 or len(outputs) > 1:
        return "its inputs or outputs run along several axes"
    return Axes(inputs[0], outputs[0] if outputs else None)


def misfit(layer: Layer, pattern: Pattern) -> str | None:
    """Why the zeros of a layer cannot follow a pattern; None where they can.

    N:M wants whole groups: hardware that computes with them wants them too.
    """
    axes = axes_of(layer)
    if isinstance(axes, str):
        return f"{axes} (pattern {pattern})"
    inputs = layer.shape[axes.inputs]
    if isinstance(pattern, GroupPattern) and inputs % pattern.of:
        return f"its input axis of {inputs} is no multiple of {pattern.of} (pattern {pattern})"
    if not isinstance(pattern, GroupPattern) and axes.outputs is None and pattern.rows > 1:
        return f"it has a single output (pattern {pattern})"
    return None
