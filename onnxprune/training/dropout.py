"""Dropout whose masks follow from a seed, so that a resumed run repeats them bit for bit.

onnxruntime's own Dropout draws from a generator inside the session, whose state cannot be saved.
Here element e of a Dropout's input is kept where a hash of (seed, node, e) is below a limit. With
e in row i and column j of 1024 columns, the hash is the product modulo 2^32 of two odd numbers:
one of (seed, node, i), the other of (seed, j). Each is well mixed, so masks pass the tests that
independent draws pass, and tensors of full size see one multiplication and one comparison only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import ModelError
from ..model.domain import plain_domain
from ..model.tensors import walk_graphs
from .builder import GraphBuilder

__all__ = ["with_live_dropout"]

COLUMNS = 1024
#: SplitMix64 (Steele, Lea and Flood, 2014): the step of its counter and the rounds of its mix,
#: each a shift to the right and a factor.
GAMMA = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31
WORD = 2**64

Words = npt.NDArray[np.uint64]


def with_live_dropout(proto: ModelProto, seed: str) -> int:
    """Make every Dropout of the main graph drop, in place.

    Kept elements are divided by ``1 - ratio``. Gradients pass through the result as through any
    product with a constant. A ratio of 0 becomes an Identity.

    Args:
        proto: A model of opset 23 or newer, its Dropouts' inputs float32 and their ratios
            constants; whether they are in training mode is not looked at.
        seed: Name of the graph input that is added where there is a Dropout: an int64 scalar; the
            masks of different seeds are independent.

    Returns:
        The number of Dropouts.

    Raises:
        ModelError: A ratio is no constant, or not from 0 up to but not 1; or the name of the seed
            is taken. The model is then unchanged.
    """
    graph = proto.graph
    nodes = list(graph.node)
    places = [place for place, node in enumerate(nodes) if _is_dropout(node)]
    if not places:
        return 0
    b = GraphBuilder(proto, "dropout")
    ratios = [_ratio(b, nodes[place]) for place in places]
    b.input(seed, TensorProto.INT64, [])
    stream = _stream(b, seed) if any(ratios) else None
    order = list(graph.node[len(nodes) :])
    pieces: dict[int, list[NodeProto]] = {}
    for number, (place, ratio) in enumerate(zip(places, ratios, strict=True)):
        first = len(graph.node)
        if ratio and stream:
            _drop(b, nodes[place], ratio, _rows(b, stream, nodes[place].input[0], number), stream)
        else:
            _keep(b, nodes[place])
        pieces[place] = list(graph.node[first:])
    for place, node in enumerate(nodes):
        order.extend(pieces.get(place, [node]))
    del graph.node[:]
    graph.node.extend(order)
    _drop_unread(proto, {name for place in places for name in nodes[place].input[1:]})
    return len(places)


def _drop_unread(proto: ModelProto, names: set[str]) -> None:
    """Remove those of these initializers that nothing reads, which runtimes would warn of."""
    graph = proto.graph
    read = {info.name for info in (*graph.input, *graph.output)}
    for _, nested in walk_graphs(proto):
        read.update(name for node in nested.node for name in node.input)
    kept = [tensor for tensor in graph.initializer if tensor.name not in names - read]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _is_dropout(node: NodeProto) -> bool:
    return node.op_type == "Dropout" and not plain_domain(node.domain)


def _ratio(b: GraphBuilder, node: NodeProto) -> float:
    name = node.input[1] if len(node.input) > 1 else ""
    value = b.constant_value(name) if name else np.array(0.5)
    label = node.name or node.output[0]
    if value is None or value.size != 1:
        raise ModelError(
            f"the ratio of Dropout '{label}' is computed by the graph and training needs a "
            "constant; make it one in the model"
        )
    ratio = float(value.item())
    if not 0 <= ratio < 1:
        raise ModelError(
            f"the ratio of Dropout '{label}' is {ratio}; make it a number from 0 up to but not 1"
        )
    return ratio


@dataclass(frozen=True)
class _Stream:
    """What the masks of one model share.

    Attributes:
        bits: uint64 scalar that the seed alone decides.
        columns: odd int32 of shape (1, COLUMNS).
    """

    bits: str
    columns: str


def _stream(b: GraphBuilder, seed: str) -> _Stream:
    spread = _times(b, b.op("Cast", seed, to=TensorProto.UINT64), GAMMA)
    bits = _mix(b, spread)
    high = b.op("BitShift", bits, _word(b, 32), direction="RIGHT")
    table = _mixed(np.arange(1, COLUMNS + 1, dtype=np.uint64) * np.uint64(GAMMA))
    odd = (table.astype(np.uint32) | np.uint32(1)).view(np.int32).reshape(1, COLUMNS)
    # An even number, so that odd ones stay odd.
    turn = b.op(
        "BitwiseAnd", b.op("Cast", high, to=TensorProto.INT32), b.constant(np.array(-2, np.int32))
    )
    return _Stream(bits, b.op("BitwiseXor", b.constant(odd), turn))


def _rows(b: GraphBuilder, stream: _Stream, data: str, number: int) -> str:
    """Odd int32 of shape (rows, 1), as many rows as the elements of a value fill."""
    last = b.op("Add", b.op("Size", data), b.constant(np.array(COLUMNS - 1, np.int64)))
    count = b.op("Div", last, b.constant(np.array(COLUMNS, np.int64)))
    zero, one = (b.constant(np.array(value, np.int64)) for value in (0, 1))
    index = b.op("Cast", b.op("Range", zero, count, one), to=TensorProto.UINT64)
    salt = int(_mixed(np.array([number + 1], np.uint64) * np.uint64(GAMMA))[0])
    start = _plus(b, stream.bits, _word(b, salt))
    mixed = _mix(b, _plus(b, _times(b, index, GAMMA), start))
    odd = b.op("BitwiseOr", b.op("Cast", mixed, to=TensorProto.INT32), _int32(b, 1))
    return b.op("Reshape", odd, b.constant([-1, 1]))


def _drop(b: GraphBuilder, node: NodeProto, ratio: float, rows: str, stream: _Stream) -> None:
    """``y = x * mask``, the mask 0 or ``1 / (1 - ratio)``."""
    data = node.input[0]
    limit = min(round((1 - ratio) * 2**32) - 2**31, 2**31 - 1)
    kept = b.op("Less", b.op("Mul", rows, stream.columns), _int32(b, limit))
    size = b.op("Reshape", b.op("Size", data), b.constant([1]))
    flat = b.op("Slice", b.op("Reshape", kept, b.constant([-1])), b.constant([0]), size)
    keep = b.op("Reshape", flat, b.op("Shape", data), allowzero=1, name=_mask_name(node))
    scale = b.constant(np.array(1 / (1 - ratio), np.float32))
    mask = b.op("Mul", b.op("Cast", keep, to=TensorProto.FLOAT), scale)
    b.op("Mul", data, mask, name=node.output[0])


def _keep(b: GraphBuilder, node: NodeProto) -> None:
    b.op("Identity", node.input[0], name=node.output[0])
    if _mask_name(node):
        true = numpy_helper.from_array(np.array([True]))
        shape = b.op("Shape", node.input[0])
        b.op("ConstantOfShape", shape, value=true, name=_mask_name(node))


def _mask_name(node: NodeProto) -> str:
    return node.output[1] if len(node.output) > 1 else ""


def _mix(b: GraphBuilder, word: str) -> str:
    """SplitMix64's mix of uint64 values, in the graph."""
    for shift, factor in ROUNDS:
        word = _times(b, _shifted_in(b, word, shift), factor)
    return _shifted_in(b, word, LAST_SHIFT)


def _times(b: GraphBuilder, words: str, factor: int) -> str:
    """Product modulo 2^64."""
    return _signed(b, "Mul", words, _word(b, factor))


def _plus(b: GraphBuilder, left: str, right: str) -> str:
    """Sum modulo 2^64."""
    return _signed(b, "Add", left, right)


def _signed(b: GraphBuilder, op_type: str, left: str, right: str) -> str:
    """Arithmetic on the same bits as signed numbers: onnxruntime before 1.21 has no unsigned."""
    operands = [b.op("Cast", name, to=TensorProto.INT64) for name in (left, right)]
    return b.op("Cast", b.op(op_type, *operands), to=TensorProto.UINT64)


def _shifted_in(b: GraphBuilder, word: str, shift: int) -> str:
    moved = b.op("BitShift", word, _word(b, shift), direction="RIGHT")
    return b.op("BitwiseXor", word, moved)


def _mixed(words: Words) -> Words:
    """SplitMix64's mix of uint64 values, here and now."""
    for shift, factor in ROUNDS:
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(LAST_SHIFT))


def _word(b: GraphBuilder, value: int) -> str:
    return b.constant(np.array(value % WORD, np.uint64))


def _int32(b: GraphBuilder, value: int) -> str:
    return b.constant(np.array(value, np.int32))
