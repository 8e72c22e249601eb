"""Writing a model of any opset in that of training graphs.

`onnx.version_converter` (of onnx 1.23) is not used: it changes what linear Upsample, Resize 10,
Hardmax and Selu compute, has nothing for the old forms of Cast, Tile, Pad, Split, LpPool, PRelu,
broadcasting, GroupNormalization and BatchNormalization per element, and fails at operators that
the standard dropped (ImageScaler, Crop, Affine).
"""

from __future__ import annotations

import math

import numpy as np
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TypeProto,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)

from ...errors import ModelError
from ...model.domain import plain_domain
from ...model.inlining import inlined
from ...model.tensors import node_label, subgraphs, walk_graphs, walk_tensors
from ..builder import TRAINING_OPSET
from .operators import CONVERSIONS
from .site import Knowledge, Site

__all__ = ["upgraded"]

#: Oldest version of the file format whose initializers need not be inputs, and that knows the
#: element types of the training opset.
IR_VERSION = 10
#: Elements of constants that conversions may look at.
CONSTANT_SIZE = 16


def upgraded(proto: ModelProto) -> ModelProto:
    """The model's forward graph for training, in opset `TRAINING_OPSET` or the model's newer one.

    Model-local functions are inlined. Names of inputs, outputs, nodes, initializers and all other
    values stay. Initializers that were listed as inputs too (and could be replaced by callers)
    are initializers only. Operators of other domains stay as they are.

    Args:
        proto: A model with its weights in memory; it stays as it is.

    Raises:
        ModelError: A node cannot be written in the new opset (the message names it), or the
            model does not say its opset.
    """
    if not proto.opset_import:
        raise ModelError(
            "the model does not say which opset its operators are of (no opset_import), so it "
            "cannot be trained; export it again"
        )
    model = ModelProto()
    model.CopyFrom(proto)
    _unlist_initializers(model)
    version = _version(model)
    mixed = any(_version(function) != version for function in model.functions)
    if model.functions and not mixed:
        model = _inlined(model)
    _convert(model)
    if mixed:
        model = _inlined(model)
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model


def _version(holder: ModelProto | FunctionProto) -> int:
    """Opset of the standard operators, that of training graphs where none is used."""
    versions = [entry.version for entry in holder.opset_import if not plain_domain(entry.domain)]
    return max(versions, default=TRAINING_OPSET)


def _unlist_initializers(model: ModelProto) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    stored.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    inputs = [info for info in model.graph.input if info.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    # Older files must list them, newer ones need not.
    model.ir_version = max(model.ir_version, 4)


def _inlined(model: ModelProto) -> ModelProto:
    """The model without functions, with the opsets that these used."""
    known = {entry.domain for entry in model.opset_import}
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain not in known:
                known.add(entry.domain)
                model.opset_import.append(entry)
    return inlined(model)


def _convert(model: ModelProto) -> None:
    """Convert all graphs and functions, in place."""
    holders: list[ModelProto | FunctionProto] = [model, *model.functions]
    target = max(TRAINING_OPSET, *(_version(holder) for holder in holders))
    known = _knowledge(model)
    for graph in _bodies_first(model.graph):
        _convert_graph(graph, _version(model), target, known)
    for function in model.functions:
        for graph in _bodies_first(function):
            _convert_graph(graph, _version(function), target, known)
    for holder in holders:
        others = [entry for entry in holder.opset_import if plain_domain(entry.domain)]
        del holder.opset_import[:]
        holder.opset_import.extend([helper.make_opsetid("", target), *others])


def _bodies_first(root: GraphProto | FunctionProto) -> list[GraphProto | FunctionProto]:
    """A graph behind all that it holds: nodes are copied when their graph is converted."""
    found: list[GraphProto | FunctionProto] = [root]
    for graph in found:
        for index, node in enumerate(graph.node):
            found.extend(body for _, body in subgraphs(node, index))
    return found[::-1]


def _convert_graph(
    graph: GraphProto | FunctionProto, version: int, target: int, known: Knowledge
) -> None:
    nodes: list[NodeProto] = []
    for index, node in enumerate(graph.node):
        if not plain_domain(node.domain):
            node.domain = ""
            if version < target:
                nodes += _converted(Site(node, node_label(node, index), version, known), target)
                continue
        nodes.append(node)
    converted = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(converted)


def _converted(site: Site, target: int) -> list[NodeProto]:
    """The nodes that replace a node, itself the last."""
    for version, conversion in CONVERSIONS.get(site.node.op_type, ()):
        if site.version < version:
            conversion(site)
    node = site.node
    if not defs.has(node.op_type, target, "") or _schema(node, target).deprecated:
        raise site.refusal(f"opset {target} has no such operator")
    schema = _schema(node, target)
    strange = [a.name for a in node.attribute if a.name not in schema.attributes]
    if strange:
        raise site.refusal(f"opset {target} knows no attribute '{strange[0]}' of it")
    if len(node.input) > schema.max_input or len(node.output) > schema.max_output:
        raise site.refusal(f"opset {target} knows fewer inputs or outputs of it")
    return [*site.before, node]


def _schema(node: NodeProto, version: int) -> defs.OpSchema:
    return defs.get_schema(node.op_type, version, "")


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _knowledge(model: ModelProto) -> Knowledge:
    """What conversions may ask, of all graphs together."""
    graphs = [graph for _, graph in walk_graphs(model)]
    nodes = [node for graph in graphs for node in graph.node]
    read = {name for node in nodes for name in node.input}
    taken = read | {name for node in nodes for name in (node.name, *node.output)}
    constants: dict[str, np.ndarray] = {}
    for graph in graphs:
        if isinstance(graph, FunctionProto):
            read.update(graph.output)
            continue
        read.update(info.name for info in graph.output)
        taken.update(info.name for info in (*graph.input, *graph.output, *graph.value_info))
        taken.update(tensor.name for tensor in graph.initializer)
    for address, _, tensor in walk_tensors(model):
        if math.prod(tensor.dims) <= CONSTANT_SIZE:
            constants[address.name] = numpy_helper.to_array(tensor)
    return Knowledge.of(_types(model), constants, read, taken)


def _types(model: ModelProto) -> dict[str, TypeProto]:
    """Inferred types; none where inference fails, which is for conversions to lament."""
    try:
        inferred = shape_inference.infer_shapes(model)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    found: dict[str, TypeProto] = {}
    twice: set[str] = set()
    for _, graph in walk_graphs(inferred):
        if isinstance(graph, FunctionProto):
            continue
        for info in (*graph.input, *graph.value_info, *graph.output):
            known = found.setdefault(info.name, info.type)
            if known != info.type:
                twice.add(info.name)  # of two bodies
        for tensor in graph.initializer:
            found[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return {name: known for name, known in found.items() if name not in twice}
