"""The gradient of Attention, and of attention by heads in general (for onnxruntime's operators).

The scores are computed again rather than kept. With p = softmax(scores) and dp = dy vᵀ, the
gradient of the scores is p (dp - sum(dp p)), and that sum is sum(dy y), over fewer elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ...errors import ModelError
from ..builder import GraphBuilder
from .registry import Node, gradient

__all__ = ["Heads", "causal_bias", "head_scale", "merge_heads", "refuse", "split_heads"]

Gradients = Sequence[str | None]


@dataclass(frozen=True)
class Heads:
    """Attention of values of shape (batch, heads, sequence, size).

    Attributes:
        query, key, value: The operands; key and value may have fewer heads.
        scale: Name of a scalar that multiplies the products of query and key.
        bias: Added to the scores, None where nothing is; causal masking is separate.
        causal: Whether no position attends to later ones.
        softcap: Scores are capped smoothly at this size before the bias; 0: they are not.
        groups: (query heads, key heads) where these differ.
    """

    query: str
    key: str
    value: str
    scale: str
    bias: str | None = None
    causal: bool = False
    softcap: float = 0.0
    groups: tuple[int, int] | None = None

    def backward(self, b: GraphBuilder, y: str, dy: str) -> tuple[str, str, str, str]:
        """Append the gradients of query, key, value and bias (not yet reduced to its shape).

        Args:
            b: The builder.
            y: The result, (batch, query heads, sequence, value size).
            dy: Its gradient.
        """
        scaled = b.op("Mul", self.query, self.scale)
        key, value = self._repeated(b, self.key), self._repeated(b, self.value)
        raw = b.op("MatMul", scaled, _turned(b, key))
        tanh = b.op("Tanh", b.op("Div", raw, b.scalar(self.softcap, raw))) if self.softcap else raw
        scores = b.op("Mul", tanh, b.scalar(self.softcap, raw)) if self.softcap else raw
        bias, alive = self._bias(b, raw)
        if bias is not None:
            scores = b.op("Add", scores, bias)
        if alive is not None:
            dy = b.op("Mul", dy, alive)
        weights = b.op("Softmax", scores, axis=-1)
        by_value = b.op("MatMul", _turned(b, weights), dy)
        along = b.reduce_sum(b.op("Mul", dy, y), [-1], keepdims=True)
        by_weights = b.op("Sub", b.op("MatMul", dy, _turned(b, value)), along)
        by_bias = by_scores = b.op("Mul", weights, by_weights)
        if self.softcap:
            rest = b.op("Sub", b.scalar(1, raw), b.op("Mul", tanh, tanh))
            by_scores = b.op("Mul", by_scores, rest)
        by_query = b.op("Mul", b.op("MatMul", by_scores, key), self.scale)
        by_key = b.op("MatMul", _turned(b, by_scores), scaled)
        by_key, by_value = (
            self._summed(b, *pair) for pair in ((by_key, self.key), (by_value, self.value))
        )
        return by_query, by_key, by_value, by_bias

    def _bias(self, b: GraphBuilder, scores: str) -> tuple[str | None, str | None]:
        """What to add to the scores, and 0 for the queries that attend to nothing (else 1).

        The result for these is 0; -inf everywhere would make their softmax no number.
        """
        bias = self.bias
        causal = causal_bias(b, scores) if self.causal else None
        if bias is None:
            return causal, None
        if causal is not None:
            bias = b.op("Add", bias, causal)
        highest = b.op("ReduceMax", bias, b.constant([-1]), keepdims=1)
        alive = b.cast(b.op("Greater", highest, b.scalar(-np.inf, bias)), bias)
        lowest = helper.tensor_dtype_to_np_dtype(b.dtype(bias))
        return b.op("Max", bias, b.scalar(float(np.finfo(lowest).min), bias)), alive

    def _repeated(self, b: GraphBuilder, name: str) -> str:
        """Key or value with every head as often as query heads share it."""
        if self.groups is None:
            return name
        queries, keys = self.groups
        heads = np.repeat(np.arange(keys), queries // keys)
        return b.op("Gather", name, b.constant([int(head) for head in heads]), axis=1)

    def _summed(self, b: GraphBuilder, name: str, like: str) -> str:
        """The gradient of what `_repeated` repeated."""
        if self.groups is None:
            return name
        queries, keys = self.groups
        grouped = b.op("Reshape", name, b.constant([0, keys, queries // keys, -1]))
        return b.reshape_like(b.reduce_sum(grouped, [2]), like)


def _turned(b: GraphBuilder, name: str) -> str:
    return b.transpose(name, [0, 1, 3, 2])


def causal_bias(b: GraphBuilder, scores: str) -> str:
    """-inf for the keys after each query's own position, 0 for the others."""
    dtype = helper.tensor_dtype_to_np_dtype(b.dtype(scores))
    infinite = numpy_helper.from_array(np.array([-np.inf], dtype))
    square = b.op("ConstantOfShape", b.op("Shape", scores, start=2), value=infinite)
    return b.op("Trilu", square, b.constant(np.array(1, np.int64)))


def head_scale(b: GraphBuilder, query: str, scale: float | None) -> str:
    """The scale as a scalar, one over the root of the head size where none is given."""
    size = (b.shape(query) or (None,))[-1]
    if scale is None and not isinstance(size, int):
        count = b.cast(b.op("Shape", query, start=3, end=4), query)
        return b.op("Reciprocal", b.op("Sqrt", count))
    return b.scalar(float(size or 1) ** -0.5 if scale is None else scale, query)


def split_heads(b: GraphBuilder, name: str, count: int) -> str:
    """(batch, sequence, heads * size) as (batch, heads, sequence, size)."""
    apart = b.op("Reshape", name, b.constant([0, 0, count, -1]))
    return b.transpose(apart, [0, 2, 1, 3])


def merge_heads(b: GraphBuilder, name: str) -> str:
    """The inverse of `split_heads`."""
    return b.op("Reshape", b.transpose(name, [0, 2, 1, 3]), b.constant([0, 0, -1]))


def refuse(node: Node, what: str) -> ModelError:
    """The error for a node that uses a feature without a gradient."""
    return ModelError(
        f"{node.op_type} '{node.label}' {what}, which has no gradient here; "
        "keep the weights in front of it frozen or export the model without it"
    )


@gradient("Attention")
def attention(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Inputs of three or four axes, shared key heads, masks, causal order and softcap.

    Raises:
        ModelError: The node has a cache of keys and values, or the loss depends on more than its
            first output, or its mask is shorter than the keys.
    """
    if any(node.input(index) for index in (4, 5, 6)):
        raise refuse(node, "has a cache of past keys and values")
    if any(name is not None for name in grads[1:]):
        raise refuse(node, "gives the loss its present keys, values or scores")
    query, key, value = node.inputs[:3]
    y, dy = node.outputs[0], str(grads[0])
    flat = b.rank(query) == 3
    counts = _head_counts(b, node, flat)
    if flat:
        queries, keys = counts
        query, y, dy = (split_heads(b, name, queries) for name in (query, y, dy))
        key, value = (split_heads(b, name, keys) for name in (key, value))
    heads = Heads(
        query,
        key,
        value,
        head_scale(b, query, node.attribute("scale", None)),
        bias=_mask_bias(b, node, key),
        causal=bool(node.attribute("is_causal", 0)),
        softcap=node.attribute("softcap", 0.0),
        groups=counts if counts[0] != counts[1] else None,
    )
    *slopes, by_bias = heads.backward(b, y, dy)
    if flat:
        slopes = [merge_heads(b, slope) for slope in slopes]
    mask = node.input(3)
    if mask is None or not node.needs[3]:
        return slopes
    return [*slopes, b.unbroadcast(by_bias, mask)]


def _head_counts(b: GraphBuilder, node: Node, flat: bool) -> tuple[int, int]:
    """How many heads query and key have."""
    if flat:
        return node.attribute("q_num_heads", 1), node.attribute("kv_num_heads", 1)
    sizes = [(b.shape(name) or (None, None))[1] for name in node.inputs[:2]]
    if sizes[0] is not None and sizes[0] == sizes[1]:
        return 1, 1
    queries, keys = sizes
    if not isinstance(queries, int) or not isinstance(keys, int):
        raise refuse(node, "has numbers of heads that are known only when it runs")
    return queries, keys


def _mask_bias(b: GraphBuilder, node: Node, key: str) -> str | None:
    """The mask as numbers to add to the scores."""
    mask = node.input(3)
    if mask is None:
        return None
    width, length = (b.shape(mask) or (None,))[-1], (b.shape(key) or (None,) * 4)[2]
    if isinstance(width, int) and isinstance(length, int) and 1 < width < length:
        raise refuse(node, f"has a mask of {width} columns for {length} keys")
    if b.dtype(mask) != TensorProto.BOOL:
        return mask
    return b.op("Where", mask, b.scalar(0, key), b.scalar(-np.inf, key))
