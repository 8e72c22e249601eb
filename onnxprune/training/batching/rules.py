"""How operators that keep their input's axes carry the batch axis.

A rule gets a node at least one of whose inputs differs between samples, and says where the samples
lie in its outputs; it refuses where they mix, or where it cannot prove that they do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..contrib import DOMAIN
from .nodes import BatchNode, State, batch_rule

_UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu
    Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
"""
_BROADCASTING = """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
    LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor
"""
_PER_SAMPLE = """
    AveragePool BatchNormalization Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool
    GlobalMaxPool GroupNormalization InstanceNormalization LpPool LRN MaxPool SpaceToDepth
"""
_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""


@batch_rule(*_UNARY.split())
@batch_rule("Gelu", "FastGelu", "QuickGelu", domain=DOMAIN)
def unary(node: BatchNode) -> State:
    """Element by element; FastGelu's second input is a bias."""
    return node.broadcast(*range(len(node.node.input)))


@batch_rule("Clip", "Dropout")
def guided(node: BatchNode) -> State:
    """Element by element, with scalars that guide it."""
    node.need_fixed(1, 2)
    return node.batched(0)


@batch_rule("CastLike")
def cast_like(node: BatchNode) -> State:
    """The second input gives its type alone."""
    return node.state(0)


@batch_rule(*_BROADCASTING.split())
@batch_rule("BiasGelu", domain=DOMAIN)
def broadcasting(node: BatchNode) -> State:
    """Element by element, of any number of inputs."""
    return node.broadcast(*range(len(node.node.input)))


@batch_rule("PRelu")
def prelu(node: BatchNode) -> State:
    """The slope broadcasts, the input does not."""
    node.batched(0)
    return node.broadcast(0, 1)


@batch_rule("QuantizeLinear", "DequantizeLinear")
def quantization(node: BatchNode) -> State:
    """By a scale for all, or one for each entry of an axis that is not the batch's."""
    state = node.batched(0)
    node.need_fixed(1, 2)
    if node.rank(1) and node.static(1) != (1,):
        if node.rank(1) > 1:
            node.refuse("has a scale for every block")
        node.apart(node.axis("axis", 1))
    return state


@batch_rule(*_PER_SAMPLE.split())
def per_sample(node: BatchNode) -> State:
    """Samples along axis 0, each by itself, with weights that all share."""
    node.need_fixed(*range(1, len(node.node.input)))
    if node.node.op_type == "MaxPool" and len(node.node.output) > 1 and node.node.output[1]:
        node.refuse("returns positions, which count through all samples")
    if node.attribute("training_mode", 0):
        node.refuse("takes its statistics over the batch")
    return node.leading()


@batch_rule("FusedConv", domain=DOMAIN)
def fused_conv(node: BatchNode) -> State:
    """Conv plus a fourth input."""
    node.need_fixed(1, 2)
    state = node.leading()
    return node.same(0, 3) if node.has(3) else state


@batch_rule("LayerNormalization", "RMSNormalization")
def layer_normalization(node: BatchNode) -> State:
    """Over the axes from `axis` on."""
    state = node.batched(0)
    if state.axis >= node.axis("axis", -1):
        node.refuse("normalizes over the batch axis")
    node.need_fixed(1, 2)
    node.broadcast(*range(len(node.node.input)))
    return state


@batch_rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(node: BatchNode) -> State:
    """LayerNormalization of a sum, over the last axis."""
    node.need_fixed(2, 3, 4)
    node.apart(node.rank(0) - 1)
    return node.same(0, 1)


@batch_rule("MeanVarianceNormalization")
def mean_variance_normalization(node: BatchNode) -> State:
    """Over the axes listed."""
    listed = next((a.ints for a in node.node.attribute if a.name == "axes"), (0, 2, 3))
    for axis in listed:
        node.apart(axis % node.rank(0))
    return node.batched(0)


@batch_rule("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def along_axis(node: BatchNode) -> State:
    """Over one axis."""
    return node.apart(node.axis("axis", -1))


@batch_rule("TopK")
def top_k(node: BatchNode) -> State:
    """The greatest along one axis."""
    node.need_fixed(1)
    return node.apart(node.axis("axis", -1))


@batch_rule("CumSum")
def cumulative(node: BatchNode) -> State:
    """Along the axis that is the second input."""
    node.need_fixed(1)
    (axis,) = node.axes(1, node.rank(0))
    return node.apart(axis)


@batch_rule("ArgMax", "ArgMin")
def arg_extreme(node: BatchNode) -> State:
    """Along one axis, which disappears with keepdims=0."""
    return _without(node, [node.axis("axis", 0)])


@batch_rule(*_REDUCTIONS.split())
def reduction(node: BatchNode) -> State:
    """Along the axes listed, all where none are."""
    axes = node.axes(1, node.rank(0)) if node.has(1) else []
    if not axes:
        if node.attribute("noop_with_empty_axes", 0):
            return node.batched(0)
        axes = list(range(node.rank(0)))
    return _without(node, axes)


def _without(node: BatchNode, axes: Sequence[int]) -> State:
    """The batch axis behind a reduction along these axes."""
    for axis in axes:
        state = node.apart(axis)
    if node.attribute("keepdims", 1):
        return state
    return state.at(state.axis - sum(axis < state.axis for axis in axes))


@batch_rule("Trilu")
def triangle(node: BatchNode) -> State:
    """Of the last two axes."""
    node.need_fixed(1)
    node.apart(node.rank(0) - 1)
    return node.apart(node.rank(0) - 2)


@batch_rule("LSTM", "GRU", "RNN")
def recurrent(node: BatchNode) -> Sequence[State]:
    """Samples side by side, on axis 1 of [time, batch, ...], on axis 0 with layout=1."""
    node.need_fixed(1, 2, 3, 7)
    if node.has(4):
        node.refuse("has a length for every sample")
    state = node.batched(0)
    layout = node.attribute("layout", 0)
    if state.axis != 1 - layout:
        node.refuse(f"takes axis {1 - layout} for the batch, which is on axis {state.axis}")
    for index in (5, 6):
        if not node.has(index):
            continue
        if node.state(index) is None:
            node.lift(index, state)
        elif node.batched(index) != state:
            node.refuse("combines values whose batch axes do not correspond")
    every = state.at(0 if layout else 2)
    return [every, state, state]


@batch_rule("Attention")
def attention(node: BatchNode) -> State:
    """Samples along axis 0 of queries, keys and values; the mask broadcasts to 4 axes."""
    node.leading()
    state = node.same(0, 1, 2)
    if any(node.has(index) for index in (4, 5, 6)):
        node.refuse("has keys or values from before, or lengths of samples")
    if not node.has(3):
        return state
    if node.state(3) is not None:
        if node.batched(3) != state or node.rank(3) != 4:
            node.refuse("has a mask whose batch axis does not correspond")
    elif node.rank(3) == 4 and node.shape(3)[0] != 1:
        node.refuse("has a mask with sizes of its own along the batch axis")
    return state
