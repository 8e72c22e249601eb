"""Dropout nodes: their ratios, the layers they belong to, and the ratios they get after pruning.

A pruned layer has less capacity to overfit, so its Dropout should drop less: with C the number of
connections (weights that are not zero) of the layer whose outputs are dropped,
``ratio_after = ratio_before * sqrt(C_after / C_before)`` (Han et al., 2015, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..model.model import Model
from ..model.tensors import Scope, TensorAddress, walk_graphs
from .dropout_rewrite import rewrite_ratios
from .feeding import LayerWalk
from .index import Node, Value
from .layer import Layer
from .ratio import RATIO_INPUTS, read_ratio
from .weights import WeightSearch

__all__ = ["DropoutSite", "find_dropouts", "rewrite_dropouts", "rewritten_ratio"]


@dataclass(frozen=True)
class DropoutSite:
    """One Dropout node.

    Attributes:
        node: label, qualified with its scope outside the main graph.
        scope: the graph that holds it.
        index: its position there.
        ratio: the ratio it has; the operator's default where the graph states none.
        feeding: weights whose connections count; empty where the ratio stays.
        reason: why the ratio stays; None where `feeding` decides.
    """

    node: str
    scope: Scope
    index: int
    ratio: float
    feeding: tuple[TensorAddress, ...]
    reason: str | None


def find_dropouts(model: Model, layers: Sequence[Layer]) -> tuple[DropoutSite, ...]:
    """Find every Dropout in the main graph, bodies and functions, in graph order.

    Args:
        model: the model.
        layers: what `find_layers` found there; connections of other weights do not count.
    """
    if not any(True for _ in _dropout_protos(model)):
        return ()
    tables = {"Gather", "EmbedLayerNormalization", "TorchEmbedding"}
    embeddings = any(use.op_type in tables for layer in layers for use in layer.uses)
    search = WeightSearch(model, embeddings=embeddings)
    walk = LayerWalk(search, [layer.address for layer in layers])
    nodes = (node for node in search.index.nodes() if (node.domain, node.op_type) in RATIO_INPUTS)
    return tuple(_site(search, walk, node) for node in nodes)


def _dropout_protos(model: Model) -> Iterator[object]:
    names = {op_type for _, op_type in RATIO_INPUTS}
    for _, graph in walk_graphs(model.proto):
        yield from (node for node in graph.node if node.op_type in names)


def _site(search: WeightSearch, walk: LayerWalk, node: Node) -> DropoutSite:
    ratio = read_ratio(search.index, search.constants, node)
    feeding: tuple[TensorAddress, ...] = ()
    reason = ratio.reason
    if reason is None:
        feeding, reason = _feeding(walk, node)
    scope = search.index.graphs[node.graph].scope
    label = search.index.label(node)
    return DropoutSite(label, scope, node.index, ratio.value, feeding, reason)


def _feeding(walk: LayerWalk, node: Node) -> tuple[tuple[TensorAddress, ...], str | None]:
    """Weights that decide a Dropout's ratio, or why there are none."""
    data = node.input(0)
    if data is None:
        return (), "it has no input"
    above = walk.above(data)
    if above.layers:
        return tuple(above.layers), None
    if above.fixed:
        return (), f"the weight of {above.fixed[0]}, which feeds it, is not pruned"
    if above.stops:
        return (), f"what feeds it comes through {above.stops[0]}, which is not followed"
    output = node.outputs[0] if node.outputs else ""
    below = walk.below(Value(node.graph, output))
    if below.layers:
        return tuple(below.layers), None
    if below.fixed:
        return (), f"the weight of {below.fixed[0]}, which it feeds, is not pruned"
    return (), "no layer feeds it or follows it"


def rewritten_ratio(ratio: float, before: int, after: int) -> float:
    """Ratio after pruning: ``ratio * sqrt(after / before)``; unchanged without connections before.

    Args:
        ratio: the ratio before.
        before: connections of the feeding layers before pruning.
        after: connections after.
    """
    return ratio * math.sqrt(after / before) if before > 0 else ratio


def rewrite_dropouts(model: Model, ratios: Mapping[DropoutSite, float]) -> Model:
    """A model with other ratios; the very same model where none differs from what it was.

    Below opset 12 the attribute is set. From 12 on the ratio is an input: a constant that nothing
    else reads is changed in place, a shared one is left to the others and a new one takes its
    place, and a missing one is added. A new constant inside a function is a Constant node right
    before the Dropout, so positions of the function's later nodes move by one.

    Args:
        model: the model in which `find_dropouts` found the sites.
        ratios: new ratio by site.
    """
    changed = {
        (site.scope, site.index): ratio for site, ratio in ratios.items() if ratio != site.ratio
    }
    return rewrite_ratios(model, changed) if changed else model
