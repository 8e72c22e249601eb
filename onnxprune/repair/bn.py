"""Statistics of BatchNormalization, measured again on the pruned model."""

from __future__ import annotations

import numpy as np

from ..graph.constants import Constants
from ..graph.index import ModelIndex, Node
from ..model.model import Model
from ..model.tensors import TensorAddress
from .levels import node_levels
from .match import Moments
from .samples import Samples, check_values
from .taps import Taps
from .writing import rewritten, rounded

__all__ = ["normalizations", "renormalized"]

#: Positions of mean and variance among the inputs of a BatchNormalization.
MEAN, VARIANCE = 3, 4


def normalizations(model: Model) -> tuple[list[tuple[Node, ...]], int]:
    """BatchNormalization nodes of the main graph, those of one level together, and how many
    others there are whose statistics cannot change (computed, shared, or inside a body)."""
    index = ModelIndex(model.proto)
    constants = Constants(model, index)
    every = [n for n in index.nodes() if n.op_type == "BatchNormalization" and not n.domain]
    found = [node for node in every if not node.graph and _own_statistics(constants, node)]
    levels = node_levels(index, {node.index: None for node in found})
    by_level: dict[int, list[Node]] = {}
    for node in found:
        by_level.setdefault(levels[node.index], []).append(node)
    ordered = [tuple(by_level[level]) for level in sorted(by_level)]
    return ordered, len(every) - len(found)


def _own_statistics(constants: Constants, node: Node) -> bool:
    """Whether mean and variance are stored for this node alone."""
    for position in (MEAN, VARIANCE):
        value = node.input(position)
        if value is None or value.graph or constants.stored(value) is None:
            return False
        if len(constants.index.readers.get(value, [])) != 1:
            return False
    return node.input(0) is not None and len(node.outputs) > 0


def renormalized(
    model: Model, nodes: tuple[Node, ...], samples: Samples
) -> tuple[Model, list[TensorAddress]]:
    """The model with mean and variance of these nodes' inputs as the samples make them.

    Returns:
        The model, and the tensors that changed.
    """
    names = [node.proto.input[0] for node in nodes]
    taps = Taps(model, names)
    moments = [Moments() for _ in nodes]
    for feeds in samples.batches:
        for values in taps.batches(feeds):
            for name, seen in zip(names, moments, strict=True):
                data = values[name]
                check_values(data, f"what makes '{name}'")
                # Channels are the second axis: rows of them, as one group.
                seen.add(np.moveaxis(data, 1, -1).reshape(1, -1, data.shape[1]))
    changed: dict[TensorAddress, np.ndarray] = {}
    for node, seen in zip(nodes, moments, strict=True):
        found = ((MEAN, seen.mean[0]), (VARIANCE, seen.std[0] ** 2))
        for position, numbers in found:
            address = TensorAddress((), node.proto.input[position])
            dtype = model.payload(model.tensors[address]).dtype
            changed[address] = rounded(numbers, dtype)
    return rewritten(model, changed), list(changed)
