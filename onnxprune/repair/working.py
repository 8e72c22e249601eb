"""A model in the form in which it is quickest to run again and again, and the way back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto

from ..errors import OutputError
from ..model.housekeeping import INITIALIZERS_ALONE
from ..model.model import Model
from ..model.save import to_proto
from ..model.tensors import TensorAddress
from ..training.batching.axis import already_free, free_batch
from .writing import rewritten, with_bias_inputs

__all__ = ["carried_back", "working_form"]


def working_form(model: Model) -> Model:
    """The same model with its batch axis freed where that is possible, so that samples share runs.

    Tensors keep their addresses and values their names; nodes may be more.
    """
    if already_free(_without_known_inputs(model.proto)):
        return model
    try:
        proto = _without_known_inputs(to_proto(model))
    except OutputError:
        return model
    freed = free_batch(proto).proto
    return model if freed is None else Model(freed, {}, model.origin)


def _without_known_inputs(proto: ModelProto) -> ModelProto:
    """Inputs that initializers have values for are none that samples feed."""
    known = {tensor.name for tensor in proto.graph.initializer}
    if not any(info.name in known for info in proto.graph.input):
        return proto
    copied = ModelProto()
    copied.CopyFrom(proto)
    fed = [info for info in proto.graph.input if info.name not in known]
    del copied.graph.input[:]
    copied.graph.input.extend(fed)
    copied.ir_version = max(copied.ir_version, INITIALIZERS_ALONE)
    return copied


def carried_back(model: Model, worked: Model, addresses: Iterable[TensorAddress]) -> Model:
    """The model with the numbers of its working form.

    Args:
        model: The model that the working form was made of.
        worked: The working form, repaired.
        addresses: Tensors that a repair may have changed; those that it added come along anyway.
    """
    changed: dict[TensorAddress, np.ndarray] = {}
    for address in addresses:
        if address not in model.tensors:
            continue
        new = worked.array(worked.tensors[address]).reshape(-1)
        old = model.array(model.tensors[address]).reshape(-1)
        if new.tobytes() != old.tobytes():
            changed[address] = new
    nodes = {node.output[0]: node for node in worked.proto.graph.node if node.output}
    added: dict[str, np.ndarray] = {}
    for node in model.proto.graph.node:
        other = nodes.get(node.output[0]) if node.output else None
        if other is not None and len(other.input) == len(node.input) + 1 == 3:
            tensor = worked.tensors[TensorAddress((), other.input[2])]
            added[node.output[0]] = worked.array(tensor)
    return with_bias_inputs(rewritten(model, changed), added)
