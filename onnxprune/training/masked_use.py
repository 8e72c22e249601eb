"""Graphs of training in which masks may change: what the model sees is weight times mask.

The gradient is that of the product, and the update gives it to the weight beneath, pruned or not
(Guo et al. 2016, "Dynamic Network Surgery for Efficient DNNs", equation 4): a weight that is masked
goes on learning, and may come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx import GraphProto, TensorProto, helper

from .graph_edits import copied, prepend
from .graphs import StepGraphs, mask_name

__all__ = ["with_masked_use"]


def with_masked_use(graphs: StepGraphs, names: Sequence[str]) -> StepGraphs:
    """Graphs in which these parameters are multiplied by their masks wherever they are used.

    Args:
        graphs: Graphs as `build_graphs` makes them. Where their update masks a gradient too, the
            weight beneath a mask does not learn.
        names: Trained parameters.
    """
    training = copied(graphs.training)
    graph = training.graph
    seen = {name: f"{name}.masked" for name in names}
    _redirect(graph, seen)
    products = [helper.make_node("Mul", [name, mask_name(name)], [seen[name]]) for name in names]
    prepend(training, products)
    graph.input.extend(
        helper.make_tensor_value_info(
            mask_name(name), TensorProto.FLOAT, graphs.initial[name].shape
        )
        for name in names
    )
    return replace(
        graphs,
        training=training,
        masked=tuple(dict.fromkeys([*graphs.masked, *names])),
        spliced=tuple(names),
    )


def _redirect(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Have nodes, those in bodies too, read other values; no body may redefine an outer name."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _redirect(body, names)
