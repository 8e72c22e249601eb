"""Where the weights of a layer are used, and as which linear map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ..graph.attributes import find_attribute, integer, integers, text
from ..graph.constants import Constants
from ..graph.index import ModelIndex, Node, Value
from ..graph.layer import Layer, WeightUse
from ..model.model import Model
from ..pruning.floating import FLOAT_DTYPES
from .biases import Bias, find_bias
from .seen import OUTSIDE, stored_positions
from .unfold import ConvUnfolding, MatrixUnfolding, Unfolding

__all__ = ["Site", "SiteFinder"]


@dataclass(frozen=True, eq=False)
class Site:
    """One use of a layer's weights.

    Attributes:
        node: The node.
        data: The value that the weights multiply.
        output: The node's output: the pre-activation.
        positions: Flat index of the stored weight behind each weight of the linear map [groups,
            outputs, inputs]; `OUTSIDE` where it is not the layer's.
        unfolding: How data and output are rows of the map.
        bias: The bias of its outputs, where it can change.
    """

    node: Node
    data: Value
    output: Value
    positions: np.ndarray
    unfolding: Unfolding
    bias: Bias | None


#: A node with the position of its weight and what it sees there: indices [groups, outputs,
#: inputs] and the unfolding, or why there is none.
Mapping = Callable[[Node, int, np.ndarray], "tuple[np.ndarray, Unfolding] | str"]


class SiteFinder:
    """Finds the sites of layers; the model is indexed once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.index = ModelIndex(model.proto)
        self.constants = Constants(model, self.index)
        self._nodes: dict[tuple[str, str], list[Node]] = {}
        for node in self.index.graphs[0].nodes:
            self._nodes.setdefault((self.index.label(node), node.op_type), []).append(node)

    def sites(self, layer: Layer) -> tuple[Site, ...] | str:
        """Every use of a layer, or why it cannot be repaired."""
        dtype = self.model.payload(self.model.tensors[layer.address]).dtype
        if layer.quantization is not None or dtype not in FLOAT_DTYPES:
            return "its weights are quantised"
        if layer.address.scope:
            return "its weights are inside a body or a function"
        found: list[Site] = []
        for use in layer.uses:
            site = self._site(layer, use)
            if isinstance(site, str):
                return site
            found += site
        first = found[0].positions
        if any(not np.array_equal(site.positions, first) for site in found[1:]):
            return "its users read the weights in different orders"
        return tuple(_without_shared_bias(found))

    def _site(self, layer: Layer, use: WeightUse) -> list[Site] | str:
        nodes = self._nodes.get((use.node, use.op_type))
        if not nodes:
            return "it is used inside a body or a function"
        mapping = None if use.domain else _MAPPINGS.get(use.op_type)
        if mapping is None:
            return f"{use.op_type} cannot be repaired"
        sites: list[Site] = []
        for node in nodes:
            value, data = node.input(use.input_index), node.input(_data_input(node, use))
            if value is None or data is None or data.graph:
                return f"the inputs of {use.op_type} '{use.node}' cannot be followed"
            seen = stored_positions(self.constants, value, layer.address)
            if isinstance(seen, str):
                return seen
            if (seen == OUTSIDE).all():
                continue  # another node of the same name
            mapped = mapping(node, use.input_index, seen)
            if isinstance(mapped, str):
                return mapped
            positions, unfolding = mapped
            own = positions[positions != OUTSIDE]
            if np.bincount(own).max() > 1:
                return "a weight is used more than once by one node"
            left = isinstance(unfolding, MatrixUnfolding) and unfolding.left
            outputs = positions.shape[0] * positions.shape[1]
            bias = None
            if not isinstance(unfolding, MatrixUnfolding) or not unfolding.batch:
                bias = find_bias(self.constants, node, outputs, left=left)
            output = Value(0, node.outputs[0])
            sites.append(Site(node, data, output, positions, unfolding, bias))
        return sites or f"{use.op_type} '{use.node}' cannot be found again"


def _data_input(node: Node, use: WeightUse) -> int:
    return 1 - use.input_index if use.op_type in ("Gemm", "MatMul") else 0


def _without_shared_bias(sites: Iterable[Site]) -> list[Site]:
    """Uses of one weight with different biases: only a single use has a bias that may change."""
    listed = list(sites)
    if len(listed) == 1:
        return listed
    return [Site(s.node, s.data, s.output, s.positions, s.unfolding, None) for s in listed]


def _matmul(node: Node, position: int, seen: np.ndarray) -> tuple[np.ndarray, Unfolding] | str:
    left = position == 0
    if seen.ndim == 1:
        return seen.reshape(1, 1, -1), MatrixUnfolding(left=left, vector=True)
    positions = seen if left else seen.swapaxes(-1, -2)
    batch = positions.shape[:-2]
    batch = batch if math.prod(batch) > 1 else ()
    return positions.reshape(-1, *positions.shape[-2:]), MatrixUnfolding(batch, left)


def _gemm(node: Node, position: int, seen: np.ndarray) -> tuple[np.ndarray, Unfolding] | str:
    own, other = ("transA", "transB") if position == 0 else ("transB", "transA")
    alpha = find_attribute(node.proto, "alpha")
    turned = [integer(node.proto, name, 0) for name in (own, other)]
    if seen.ndim != 2:
        return "its weights are no matrix"
    # Outputs first: the left operand has them so unless it is transposed, the right one if it is.
    positions = seen if bool(turned[0]) == (position == 1) else seen.T
    unfolding = MatrixUnfolding(
        left=position == 0,
        turned=bool(turned[1]),
        scale=1.0 if alpha is None else float(alpha.f),
    )
    return positions[None], unfolding


def _conv(node: Node, position: int, seen: np.ndarray) -> tuple[np.ndarray, Unfolding] | str:
    unfolding = _conv_unfolding(node, seen.shape[2:], transposed=False)
    if seen.ndim < 3 or seen.shape[0] % unfolding.groups:
        return "its weights do not fit its groups"
    outputs = seen.shape[0] // unfolding.groups
    return seen.reshape(unfolding.groups, outputs, -1), unfolding


def _conv_transpose(
    node: Node, position: int, seen: np.ndarray
) -> tuple[np.ndarray, Unfolding] | str:
    unfolding = _conv_unfolding(node, seen.shape[2:], transposed=True)
    if seen.ndim < 3 or seen.shape[0] % unfolding.groups:
        return "its weights do not fit its groups"
    if unfolding.pads is None and any(integers(node.proto, "output_padding") or ()):
        return "its padding follows from both its output's shape and output_padding"
    inputs, outputs = seen.shape[0] // unfolding.groups, seen.shape[1]
    # Taps reach back over the spread data, so they are read in reverse.
    flipped = seen.reshape(unfolding.groups, inputs, outputs, -1)[..., ::-1]
    return flipped.transpose(0, 2, 1, 3).reshape(unfolding.groups, outputs, -1), unfolding


def _conv_unfolding(node: Node, kernel: tuple[int, ...], *, transposed: bool) -> ConvUnfolding:
    proto, rank = node.proto, len(kernel)
    auto_pad = text(proto, "auto_pad") or "NOTSET"
    pads = integers(proto, "pads") or (0,) * (2 * rank)
    follows = auto_pad.startswith("SAME")
    if auto_pad == "VALID":
        pads = (0,) * (2 * rank)
    if transposed and integers(proto, "output_shape"):
        # The padding follows from the shape that is asked for, the odd one as auto_pad says.
        follows = True
        auto_pad = "SAME_UPPER" if auto_pad == "SAME_UPPER" else "SAME_LOWER"
    return ConvUnfolding(
        groups=integer(proto, "group", 1) or 1,
        kernel=tuple(kernel),
        strides=integers(proto, "strides") or (1,) * rank,
        dilations=integers(proto, "dilations") or (1,) * rank,
        pads=None if follows else pads,
        auto_pad=auto_pad,
        transposed=transposed,
    )


_MAPPINGS: dict[str, Mapping] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
