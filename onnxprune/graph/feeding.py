"""Which layers' outputs a node works on: up through everything that is no layer, else down.

Upward, the walk ends at nodes that use a layer as their weight. Residual additions, concatenations
and products of activations have several such nodes: all of them count. A function's input leads to
all its callers; outputs of functions, If, Loop and Scan, and unknown operators are not followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ..model.tensors import TensorAddress
from .index import Node, Value
from .operators import operands
from .weights import WeightSearch

__all__ = ["Feeding", "LayerWalk"]


def _names(text: str) -> list[str]:
    return text.split()


_FIRST: tuple[int, ...] = (0,)
_PASSED_BY_FIRST = _names("""
    Abs BatchNormalization AveragePool Cast CastLike Celu CenterCropPad Clip Crop CumSum
    DepthToSpace DequantizeLinear Dropout DynamicQuantizeLinear Elu Erf Exp Expand Flatten Gather
    GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization
    HardSigmoid HardSwish Hardmax Identity ImageScaler InstanceNormalization LRN LayerNormalization
    LeakyRelu Log LogSoftmax LpNormalization LpPool MaxPool MaxRoiPool MeanVarianceNormalization
    Mish Neg PRelu Pad QuantizeLinear RMSNormalization Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize ReverseSequence RoiAlign RotaryEmbedding Selu Shrink Sigmoid Sign Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Swish Tanh ThresholdedRelu Tile TopK Transpose Trilu
    Unsqueeze Upsample
    BiasAdd BiasDropout BiasGelu BiasSoftmax BitmaskBiasDropout BitmaskDropout FastGelu NhwcMaxPool
    QLinearAveragePool QLinearGlobalAveragePool QLinearLeakyRelu QLinearReduceMean QLinearSigmoid
    QLinearSoftmax QuickGelu ReorderInput ReorderOutput SkipGroupNorm
""")
_ALL_INPUTS = _names("Add Sub Mul Div Pow Max Min Mean Sum Concat MatMul Einsum FusedMatMul")
_CHOSEN_INPUTS: dict[str, tuple[int, ...]] = {
    "Where": (1, 2),
    "Attention": (0, 1, 2),
    "MultiHeadAttention": (0, 1, 2),
    "GroupQueryAttention": (0, 1, 2),
    "SkipLayerNormalization": (0, 1),
    "SkipSimplifiedLayerNormalization": (0, 1),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
}
_PASSED = {**dict.fromkeys(_PASSED_BY_FIRST, _FIRST), **_CHOSEN_INPUTS}
_DOMAINS = ("", "com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc")


@dataclass
class Feeding:
    """What a walk met: layers in order of distance, and where it had to stop.

    Attributes:
        layers: addresses of the weights of the layers met.
        fixed: nodes met whose weight is not prunable.
        stops: in words, where the walk ended before any layer.
    """

    layers: dict[TensorAddress, None] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)


class LayerWalk:
    """Walks from values to the nearest layers."""

    def __init__(self, search: WeightSearch, layers: Iterable[TensorAddress]) -> None:
        """Take the weights of a model, and the addresses of those that count as layers."""
        self.index = search.index
        self._is_static = search.is_static
        wanted = frozenset(layers)
        self._layers: dict[tuple[int, int], list[TensorAddress]] = {}
        self._weighted = {(graph, node) for graph, node, _ in search.reads}
        for found in search.found.values():
            if found.stored.address in wanted:
                for read in found.reads:
                    key = (read.node.graph, read.node.index)
                    self._layers.setdefault(key, []).append(found.stored.address)

    def above(self, start: Value) -> Feeding:
        """The nearest layers that a value is made by."""
        met = Feeding()
        pending = deque([start])
        seen = {start}
        while pending:
            value = pending.popleft()
            made = self.index.producers.get(value)
            onward = self._callers(value, met) if made is None else self._over(made[0], met)
            pending.extend(v for v in onward if v not in seen)
            seen.update(onward)
        return met

    def below(self, start: Value) -> Feeding:
        """The nearest layers that a value goes into."""
        met = Feeding()
        pending = deque([start])
        seen = {start}
        while pending:
            for read in self.index.readers.get(pending.popleft(), ()):
                node = read.node
                if self._is_layer(node, met):
                    continue
                function = self.index.called(node)
                if function is not None:
                    inputs = self.index.graphs[function].inputs
                    onward = [Value(function, name) for name in inputs[read.position :][:1]]
                elif read.position in self._passing(node):
                    onward = [Value(node.graph, name) for name in node.outputs if name]
                else:
                    continue
                pending.extend(v for v in onward if v not in seen)
                seen.update(onward)
        return met

    def _over(self, node: Node, met: Feeding) -> Collection[Value]:
        """Inputs of a node that the walk goes on to; none at a layer or where it must stop."""
        if self._is_layer(node, met):
            return ()
        inputs = [node.input(position) for position in self._passing(node)]
        if not inputs:
            met.stops.append(f"{node.op_type} '{self.index.label(node)}'")
        return [value for value in inputs if value is not None and not self._is_static(value)]

    def _callers(self, value: Value, met: Feeding) -> Collection[Value]:
        """What callers hand over for a function's input; a stop at an input of a body."""
        graph = self.index.graphs[value.graph]
        if value.name in graph.initializers or value.name not in graph.inputs:
            return ()
        if graph.is_function:
            position = graph.inputs.index(value.name)
            found = [call.input(position) for call in self.index.calls.get(graph.number, ())]
            return [argument for argument in found if argument is not None]
        if graph.scope:
            met.stops.append(f"an input of body '{'/'.join(graph.scope)}'")
        return ()

    def _is_layer(self, node: Node, met: Feeding) -> bool:
        """Note a node that has a weight; whether it has."""
        key = (node.graph, node.index)
        layers = self._layers.get(key)
        if layers is not None:
            met.layers.update(dict.fromkeys(layers))
            return True
        always = any(not (o.either or o.table) for o in operands(node))
        if key in self._weighted or (always and self.index.called(node) is None):
            met.fixed.append(f"{node.op_type} '{self.index.label(node)}'")
            return True
        return False

    def _passing(self, node: Node) -> Sequence[int]:
        """Positions of the inputs that a node passes on; none where it is not followed."""
        if node.domain not in _DOMAINS or self.index.called(node) is not None:
            return ()
        if node.op_type in _ALL_INPUTS:
            return range(len(node.inputs))
        return _PASSED.get(node.op_type, ())
