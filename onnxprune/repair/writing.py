"""Putting repaired numbers into a model, in the types in which they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from ..model.dtypes import pack
from ..model.housekeeping import INITIALIZERS_ALONE
from ..model.model import Model
from ..model.payload import ArrayPayload, Payload
from ..model.tensors import TensorAddress
from .seen import OUTSIDE
from .sites import Site

__all__ = [
    "Edits",
    "added_biases",
    "numbers",
    "rewritten",
    "rounded",
    "with_bias_inputs",
]


class Edits:
    """New numbers for weights and biases of one model, applied together."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._changed: dict[TensorAddress, np.ndarray] = {}
        self._added: dict[str, np.ndarray] = {}

    def alive(self, site: Site, address: TensorAddress) -> np.ndarray:
        """Which weights of a linear map may change: those of the layer that are not zero."""
        weights = numbers(self.model, address)
        alive: np.ndarray = (site.positions != OUTSIDE) & (weights[site.positions] != 0)
        return alive

    def weights(
        self,
        site: Site,
        address: TensorAddress,
        *,
        factor: np.ndarray | float,
        shift: np.ndarray | float,
    ) -> None:
        """Scale and shift the weights that are alive; zeros stay.

        Args:
            site: Where they are used.
            address: Where they are stored.
            factor: Broadcasts to [groups, outputs, inputs].
            shift: The same.
        """
        weights = numbers(self.model, address)
        alive = self.alive(site, address)
        positions = site.positions[alive]
        factors, shifts = (np.broadcast_to(each, alive.shape)[alive] for each in (factor, shift))
        weights[positions] = weights[positions] * factors + shifts
        kept = np.zeros(weights.shape, bool)
        kept[positions] = True
        self._changed[address] = rounded(weights, self._dtype(address), kept)

    def bias(
        self, site: Site, address: TensorAddress, factor: np.ndarray, shift: np.ndarray
    ) -> None:
        """Scale and shift the bias of a site that has one that may change.

        Args:
            site: Where it is used.
            address: Where the site's weights are stored: a new bias has their type.
            factor: What its share in the outputs is multiplied by [outputs].
            shift: What is added to the outputs [outputs].
        """
        bias = site.bias
        assert bias is not None
        node = self.model.proto.graph.node[site.node.index]
        if bias.address is None and len(node.input) < 3:
            self._added[site.output.name] = rounded(shift / bias.scale, self._dtype(address))
            return
        stored = bias.address or TensorAddress((), node.input[2])
        values = self._changed.get(stored, numbers(self.model, stored)).astype(np.float64)
        values[bias.positions] = values[bias.positions] * factor + shift / bias.scale
        self._changed[stored] = rounded(values, self._dtype(stored))

    def applied(self) -> Model:
        """The model with the new numbers."""
        return with_bias_inputs(rewritten(self.model, self._changed), self._added)

    def _dtype(self, address: TensorAddress) -> np.dtype:
        return self.model.payload(self.model.tensors[address]).dtype


def numbers(model: Model, address: TensorAddress) -> np.ndarray:
    """A stored float tensor, flat, as float64."""
    return model.array(model.tensors[address]).reshape(-1).astype(np.float64)


def rounded(values: np.ndarray, dtype: np.dtype, alive: np.ndarray | None = None) -> np.ndarray:
    """Values in a storage type, within its range; `alive` ones never round to zero.

    A weight that a report counts as kept must stay one: where a fit makes it smaller than the
    type can hold, it becomes the smallest normal number.
    """
    import ml_dtypes

    limits: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    top = float(limits.max)
    stored: np.ndarray = np.clip(values, -top, top).astype(dtype)
    if alive is not None:
        gone = alive & (stored == 0)
        stored[gone] = np.copysign(float(limits.smallest_normal), values[gone]).astype(dtype)
    return stored


def rewritten(model: Model, changed: Mapping[TensorAddress, np.ndarray]) -> Model:
    """The model with other numbers in some tensors.

    Args:
        model: The model; it stays as it is.
        changed: All elements of a tensor, flat, in its own type; small codes one by one.
    """
    payloads: dict[TensorAddress, Payload] = {
        address: ArrayPayload.of(pack(values, model.tensors[address].data_type))
        for address, values in changed.items()
    }
    return model.with_payloads(payloads) if payloads else model


def with_bias_inputs(model: Model, biases: Mapping[str, np.ndarray]) -> Model:
    """The model with a bias for nodes that had none.

    Args:
        model: The model; it stays as it is.
        biases: Numbers by the name of the node's output, in the type of its weights.
    """
    if not biases:
        return model
    copied = model.with_payloads({})
    graph = copied.proto.graph
    taken = {tensor.name for tensor in graph.initializer}
    taken.update(name for node in graph.node for name in (*node.input, *node.output))
    taken.update(info.name for info in graph.input)
    nodes = {node.output[0]: node for node in graph.node if node.output}
    for output, values in biases.items():
        node = nodes[output]
        name = _fresh(f"{node.input[1]}.bias", taken)
        tensor = numpy_helper.from_array(values, name)
        graph.initializer.append(tensor)
        if copied.proto.ir_version < INITIALIZERS_ALONE:
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        del node.input[2:]
        node.input.append(name)
    return copied


def added_biases(before: Model, after: Model) -> dict[str, np.ndarray]:
    """Biases that `with_bias_inputs` has added on the way from one model to another.

    Returns:
        Numbers by the name of the node's output, in the order in which they were added: adding
        them one by one again gives them the same names.
    """
    names = {tensor.name for tensor in before.proto.graph.initializer}
    outputs = {
        node.input[2]: node.output[0]
        for node in after.proto.graph.node
        if len(node.input) == 3 and node.output
    }
    return {
        outputs[tensor.name]: after.array(tensor)
        for tensor in after.proto.graph.initializer
        if tensor.name not in names and tensor.name in outputs
    }


def _fresh(stem: str, taken: set[str]) -> str:
    name, number = stem, 1
    while name in taken:
        name, number = f"{stem}.{number}", number + 1
    taken.add(name)
    return name
