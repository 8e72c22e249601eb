"""Runs that go on where the last one stopped, while what lies between them fits into memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from ..graph.part import captured_names
from ..model.model import Model
from .samples import Samples
from .taps import Taps

__all__ = ["FRONTIER_BYTES", "advanced"]

#: Bytes of values that are kept between levels.
FRONTIER_BYTES = 2**29


def advanced(model: Model, samples: Samples, levels: Mapping[int, int], level: int) -> Samples:
    """The samples as the values that a model makes of them before a level.

    Whatever comes later is made from those values: earlier nodes need not run again, as their
    weights are final.

    Args:
        model: The model, final below `level`.
        samples: The samples, or what they were at a lower level.
        levels: Level of each node, by its position in the main graph.
        level: The next level to be repaired.

    Returns:
        The values at that level, or `samples` as they are where those would take too much memory
        or are no arrays.
    """
    names = _needed(model.proto, samples.batches[0], levels, level)
    if not names or set(names) <= samples.batches[0].keys():
        return samples
    taps = Taps(model, names, known=samples.batches[0])
    batches: list[dict[str, np.ndarray]] = []
    for feeds in samples.batches:
        parts = list(taps.batches(feeds))
        if len(parts) != 1 or not all(isinstance(v, np.ndarray) for v in parts[0].values()):
            return samples
        batches.append(parts[0])
        size = sum(array.nbytes for array in parts[0].values())
        if size * len(samples.batches) > FRONTIER_BYTES:
            return samples
    return replace(samples, batches=tuple(batches))


def _needed(
    proto: ModelProto, known: Mapping[str, np.ndarray], levels: Mapping[int, int], level: int
) -> list[str]:
    """Values that nodes from a level on read and that come from before it."""
    made = set(known)
    later: dict[str, None] = {}
    for position, node in enumerate(proto.graph.node):
        if levels[position] < level:
            made.update(name for name in node.output if name)
        else:
            later.update(dict.fromkeys((*node.input, *captured_names(node))))
    return [name for name in later if name in made]
