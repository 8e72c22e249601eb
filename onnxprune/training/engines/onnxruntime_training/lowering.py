"""Writing a forward graph in the operator set of onnxruntime-training 1.19.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from ....errors import UsageError
from ....model.tensors import node_label, walk_graphs
from ...builder import STANDARD, GraphBuilder
from ...contrib import DOMAIN
from ...gradients.registry import Node
from .limits import Path, check, reads
from .rewrites import REWRITES, keep
from .training_worker.artifacts import IR_VERSION

__all__ = ["OPSET", "Lowered", "lowered"]

#: Newest standard operator set of onnxruntime 1.19.
OPSET = 21
#: Start of the names of what is added.
PREFIX = "ort-training"


@dataclass(frozen=True)
class Lowered:
    """A graph for the worker.

    Attributes:
        model: Opset 21; its only output is the loss, and only what that needs is left.
        trained: The trainable weights that the loss depends on, in the order given.
    """

    model: ModelProto
    trained: tuple[str, ...]


def lowered(forward: ModelProto, loss: str, trainable: Sequence[str]) -> Lowered:
    """The graph that onnxruntime-training 1.19.2 is to differentiate.

    Args:
        forward: A graph of opset 23 or newer that ends in the loss; it stays as it is.
        loss: Name of a float32 scalar.
        trainable: Names of initializers.

    Raises:
        UsageError: A node cannot be run or trained there (the message names it), or the loss
            depends on none of the weights.
    """
    live = _needed(forward.graph.node, loss)
    model = _without_nodes(forward, live, loss)
    b = GraphBuilder(model, PREFIX)
    for name in trainable:
        b.values.forget_constant(name)
    for index, node in live:
        copy = NodeProto()
        copy.CopyFrom(node)
        label = node_label(node, index)
        copy.name = label
        with b.within(label):
            standard = node.domain in STANDARD
            rewrite = REWRITES.get(node.op_type, keep) if standard else keep
            rewrite(b, Node(copy, label, ()))
    path = Path.find(model.graph.node, trainable, loss)
    trained = tuple(name for name in trainable if name in path.carried)
    check(b, path)
    if not trained:
        raise UsageError("the loss depends on none of the weights that are to be trained")
    _declare_older(model)
    return Lowered(model, trained)


def _needed(nodes: Sequence[NodeProto], loss: str) -> list[tuple[int, NodeProto]]:
    """The nodes that the loss depends on, with their positions, in order."""
    needed, live = {loss}, []
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if not needed.isdisjoint(node.output):
            live.append((index, node))
            needed.update(reads(node, index))
    return live[::-1]


def _without_nodes(
    forward: ModelProto, live: Sequence[tuple[int, NodeProto]], loss: str
) -> ModelProto:
    """The model with the inputs and initializers that nodes read, and the loss as its output."""
    used = {name for index, node in live for name in reads(node, index)}
    graph = forward.graph
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    held = {tensor.name for tensor in tensors}
    model = ModelProto(ir_version=forward.ir_version)
    model.opset_import.extend(forward.opset_import)
    model.graph.name = graph.name or "graph"
    model.graph.initializer.extend(tensors)
    model.graph.input.extend(
        info for info in graph.input if info.name in used and info.name not in held
    )
    model.graph.output.append(helper.make_tensor_value_info(loss, TensorProto.FLOAT, []))
    return model


def _declare_older(model: ModelProto) -> None:
    """State opset 21, after a look at every node that has changed since."""
    newest = max(entry.version for entry in model.opset_import if entry.domain in STANDARD)
    for _, graph in walk_graphs(model):
        for index, node in enumerate(graph.node):
            reason = _newer(node, newest) if node.domain in STANDARD else None
            if reason:
                raise UsageError(
                    f"the engine onnxruntime-training cannot run {node.op_type} "
                    f"'{node_label(node, index)}': {reason}; use the default engine for this model"
                )
    for entry in model.opset_import:
        if entry.domain in STANDARD:
            entry.version = min(entry.version, OPSET)
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.ir_version = IR_VERSION


def _newer(node: NodeProto, version: int) -> str | None:
    """What a node of a newer opset has that opset 21 does not know, None where nothing."""
    new = defs.get_schema(node.op_type, version, "")
    try:
        old = defs.get_schema(node.op_type, OPSET, "")
    except defs.SchemaError:
        return f"the operator came with opset {_first(node.op_type)}, and it knows {OPSET}"
    if new.since_version == old.since_version:
        return None
    given = {attribute.name for attribute in node.attribute}
    if unknown := sorted(given - set(old.attributes)):
        return f"its attribute '{unknown[0]}' came after opset {OPSET}"
    if len(node.input) > old.max_input or len(node.output) > old.max_output:
        return f"it has more inputs or outputs than in opset {OPSET}"
    for name in set(old.attributes) & set(new.attributes) - given:
        if old.attributes[name].default_value != new.attributes[name].default_value:
            return f"the default of its attribute '{name}' is another in opset {OPSET}"
    return None


def _first(op_type: str) -> int:
    """The opset that brought an operator."""
    versions = [
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if schema.name == op_type and schema.domain == ""
    ]
    return int(min(versions))
