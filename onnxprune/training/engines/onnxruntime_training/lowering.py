"""Writing a forward graph in the operator set of onnxruntime-training 1.19.2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, helper

from ....errors import UsageError
from ....model.domain import plain_domain
from ....model.tensors import node_label
from ...backward import reads
from ...builder import GraphBuilder
from ...contrib import DOMAIN
from ...gradients.registry import Node
from ...upgrading.older_opset import declare_older, newer_nodes
from .limits import Path, check
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
            standard = not plain_domain(node.domain)
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
    for label, op_type, reason in newer_nodes(model, OPSET):
        raise UsageError(
            f"the engine onnxruntime-training cannot run {op_type} '{label}': {reason}; use the "
            "default engine for this model"
        )
    declare_older(model, OPSET)
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.ir_version = IR_VERSION
