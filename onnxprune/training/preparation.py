"""From a user's model to the forward graph that training starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from ..errors import ModelError
from ..model.inlining import inferred
from ..model.model import Model
from ..model.save import INLINE_LIMIT, serialised, to_proto
from ..model.tensors import TensorAddress, node_label, walk_graphs
from ..runtime import CannotRun, check_demand
from .batching.axis import free_batch
from .dropout import with_live_dropout
from .hoist import hoisted
from .precision import float32_copy
from .upgrading.upgrade import IR_VERSION, upgraded

__all__ = ["IR_VERSION", "SEED_INPUT", "BatchNormalizationMode", "Forward", "Statistic", "prepare"]

BatchNormalizationMode = Literal["frozen", "train"]

#: Graph input with the seed of a step's dropout masks.
SEED_INPUT = "onnxprune.seed"


@dataclass(frozen=True)
class Statistic:
    """A running statistic of BatchNormalization: its initializer, and what a step makes of it."""

    name: str
    updated: str


@dataclass(frozen=True)
class Forward:
    """A forward graph for training.

    Attributes:
        proto: Opset 23 or newer, float32 throughout, functions inlined, float constants of the main
            graph as initializers, no stored value information.
        inference: The same without dropout, and with frozen BatchNormalization.
        addresses: Where each float initializer is in the user's model.
        statistics: Running statistics that every step updates.
        dropouts: Number of Dropout nodes that are active.
        fixed_batch: The batch size that the graph insists on; None where any size does.
        notes: What was changed for training, as sentences for the report.
    """

    proto: ModelProto
    inference: ModelProto
    addresses: Mapping[str, TensorAddress]
    statistics: tuple[Statistic, ...]
    dropouts: int
    fixed_batch: int | None
    notes: tuple[str, ...]


def prepare(model: Model, *, bn: BatchNormalizationMode = "frozen") -> Forward:
    """Build the forward graph that training starts from; the model stays as it is.

    Args:
        model: The model.
        bn: Whether BatchNormalization keeps its statistics ("frozen") or normalizes with those of
            the batch and updates its own ("train"). As in ONNX, `momentum` is then the share of the
            old value (PyTorch's is that of the new one), and the variance that is averaged is
            the biased one (PyTorch multiplies it by n / (n - 1)).

    Raises:
        ModelError: The model is too large for a graph in memory, or has a node that cannot be
            written in the training opset.
    """
    if serialised(model.proto, model.payloads).size > INLINE_LIMIT:
        raise ModelError(
            "the model is larger than 2 GB, which training graphs in memory cannot be; prune it "
            "without --train, or split it"
        )
    proto = to_proto(model)
    try:
        check_demand(proto)
    except CannotRun as error:
        raise ModelError(f"training runs the model, and {error}") from error
    lifted = hoisted(proto)
    copy = float32_copy(upgraded(lifted.proto))
    notes = []
    if copy.replaced:
        notes.append(f"{' and '.join(copy.replaced)} weights are trained as float32 copies")
    forget_shapes(copy.proto)
    freed = free_batch(copy.proto)
    inference = freed.proto if freed.proto is not None else copy.proto
    fixed = None if freed.proto is not None else _batch_size(inference)
    if fixed is not None:
        notes.append(f"gradients are added up over batches of {fixed}: {freed.reason}")
    forward = ModelProto()
    forward.CopyFrom(inference)
    dropouts = with_live_dropout(forward, SEED_INPUT)
    statistics = _live_statistics(forward) if bn == "train" else ()
    stored = {tensor.name for tensor in forward.graph.initializer}
    addresses = {name: place for name, place in lifted.addresses.items() if name in stored}
    return Forward(forward, inference, addresses, statistics, dropouts, fixed, tuple(notes))


def forget_shapes(proto: ModelProto) -> None:
    """Drop stored value information and find it again: what files say of values may be stale.

    Outputs keep what inference cannot tell, except the size of their first axis.
    """
    for _, graph in walk_graphs(proto):
        if isinstance(graph, GraphProto):
            del graph.value_info[:]
    declared = [_copied(info.type) for info in proto.graph.output]
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        known = inferred(proto)
    except ModelError:
        known = proto
    found = {info.name: info.type for info in known.graph.output}
    for info, stored in zip(proto.graph.output, declared, strict=True):
        _restore_shape(info.type, stored, found[info.name])


def _restore_shape(kind: TypeProto, stored: TypeProto, found: TypeProto) -> None:
    """Give an output the shape that was found, completed by the one stored in the file."""
    if not stored.HasField("tensor_type") or not stored.tensor_type.HasField("shape"):
        if found.tensor_type.HasField("shape"):
            kind.CopyFrom(found)
        return
    known, old = found.tensor_type.shape.dim, stored.tensor_type.shape.dim
    if not found.tensor_type.HasField("shape") or len(known) != len(old):
        kind.CopyFrom(stored)
        return
    kind.tensor_type.shape.CopyFrom(found.tensor_type.shape)
    for axis, dim in enumerate(kind.tensor_type.shape.dim):
        if axis and not dim.HasField("dim_value"):
            dim.CopyFrom(old[axis])


def _copied(kind: TypeProto) -> TypeProto:
    copy = TypeProto()
    copy.CopyFrom(kind)
    return copy


def _batch_size(proto: ModelProto) -> int | None:
    """The common fixed first size of the inputs, None where there is none."""
    sizes = {
        info.type.tensor_type.shape.dim[0].dim_value
        for info in proto.graph.input
        if info.type.tensor_type.shape.dim
    }
    return sizes.pop() or None if len(sizes) == 1 else None


def _live_statistics(proto: ModelProto) -> tuple[Statistic, ...]:
    """Put every BatchNormalization of the main graph into training mode."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    found: dict[str, Statistic] = {}
    for index, node in enumerate(proto.graph.node):
        if node.op_type != "BatchNormalization" or node.domain:
            continue
        statistics = list(node.input[3:5])
        if not stored.issuperset(statistics) or found.keys() & set(statistics):
            raise ModelError(
                f"BatchNormalization '{node_label(node, index)}' has statistics that are computed "
                "or shared, so they cannot be updated; train with --bn frozen"
            )
        found.update(_train(node, statistics))
    return tuple(found.values())


def _train(node: NodeProto, statistics: list[str]) -> dict[str, Statistic]:
    kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute("training_mode", 1)])
    updated = [f"{name}.updated" for name in statistics]
    del node.output[1:]
    node.output.extend(updated)
    return {name: Statistic(name, new) for name, new in zip(statistics, updated, strict=True)}
