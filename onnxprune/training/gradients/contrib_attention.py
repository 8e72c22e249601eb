"""Gradients of onnxruntime's own attention operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ModelError
from ..builder import GraphBuilder
from .attention import Heads, head_scale, merge_heads, refuse, split_heads
from .registry import Node, gradient

Gradients = Sequence[str | None]


@gradient("MultiHeadAttention", domain="com.microsoft")
def multi_head_attention(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Of query, key and value with three axes each and the bias that is added to them.

    Raises:
        ModelError: Packed operands, a cache, a mask of lengths, or a loss on further outputs.
    """
    if any(node.input(index) for index in range(6, len(node.inputs))):
        raise refuse(node, "has a cache of past keys and values")
    names = [node.input(index) for index in range(3)]
    operands = [name for name in names if name is not None and b.rank(name) == 3]
    if len(operands) < 3:
        raise refuse(node, "has packed or split operands")
    bias, parts = node.input(3), operands
    if bias is not None:
        sizes = [_width(b, node, name) for name in operands]
        pieces = b.ops("Split", bias, b.constant(sizes), outputs=3, axis=0)
        parts = [b.op("Add", *pair) for pair in zip(operands, pieces, strict=True)]
    found, by_added = _attend(b, node, grads, parts, node.input(4), node.input(5))
    if bias is None:
        return [*found, None, None, by_added]
    by_bias = b.op("Concat", *(b.reduce_sum(name, [0, 1]) for name in found), axis=0)
    return [*found, by_bias, None, by_added]


@gradient("Attention", domain="com.microsoft")
def attention(b: GraphBuilder, node: Node, grads: Gradients) -> Gradients:
    """Of an input that is projected to query, key and value by one matrix.

    Raises:
        ModelError: A cache, rotation, a mask of lengths, or a loss on further outputs.
    """
    if node.input(4) or node.input(6):
        raise refuse(node, "has a cache of past keys and values")
    if node.attribute("do_rotary", 0):
        raise refuse(node, "rotates its positions")
    x, weights, bias = node.inputs[0], node.inputs[1], node.input(2)
    sizes = node.attribute("qkv_hidden_sizes", [_width(b, node, weights) // 3] * 3)
    projected = b.op("MatMul", x, weights)
    if bias is not None:
        projected = b.op("Add", projected, bias)
    parts = b.ops("Split", projected, b.constant(sizes), outputs=3, axis=-1)
    found, by_added = _attend(b, node, grads, parts, node.input(3), node.input(5))
    slope = b.op("Concat", *found, axis=-1)
    by_x = b.op("MatMul", slope, b.transpose(weights, [1, 0]))
    rows = (b.op("Flatten", name, axis=2) for name in (x, slope))
    by_weights = b.op("Gemm", *rows, transA=1)
    by_bias = b.reduce_sum(slope, [0, 1]) if bias else None
    return [by_x, by_weights, by_bias, None, None, by_added]


def _attend(
    b: GraphBuilder,
    node: Node,
    grads: Gradients,
    parts: Sequence[str],
    mask: str | None,
    added: str | None,
) -> tuple[list[str], str | None]:
    """Gradients of query, key and value, and of what is added to the scores."""
    if any(name is not None for name in grads[1:]):
        raise refuse(node, "gives the loss more than its first output")
    count = node.attribute("num_heads", 1)
    y, dy = (split_heads(b, name, count) for name in (node.outputs[0], str(grads[0])))
    query, key, value = (split_heads(b, name, count) for name in parts)
    masked = None if mask is None else _mask_bias(b, node, mask, query)
    bias = b.op("Add", added, masked) if added and masked else added or masked
    heads = Heads(
        query,
        key,
        value,
        head_scale(b, query, node.attribute("scale", 0.0) or None),
        bias=bias,
        causal=bool(node.attribute("unidirectional", 0)),
    )
    *slopes, by_scores = heads.backward(b, y, dy)
    by_added = b.unbroadcast(by_scores, added) if added else None
    return [merge_heads(b, slope) for slope in slopes], by_added


def _mask_bias(b: GraphBuilder, node: Node, mask: str, like: str) -> str:
    """A mask of ones and zeros, by key or by query and key, as numbers to add to the scores."""
    rank = b.rank(mask)
    if rank not in (2, 3):
        raise refuse(node, f"has a mask of {rank} axes")
    hidden = b.scalar(node.attribute("mask_filter_value", -10000.0), like)
    zero = b.constant(np.array(0, np.int32))
    bias = b.op("Where", b.op("Greater", mask, zero), b.scalar(0, like), hidden)
    return b.unsqueeze(bias, [1, 2] if rank == 2 else [1])


def _width(b: GraphBuilder, node: Node, name: str) -> int:
    size = (b.shape(name) or (None,))[-1]
    if not isinstance(size, int):
        raise ModelError(
            f"the last axis of '{name}' has no known size, so the gradient of {node.op_type} "
            f"'{node.label}' cannot be built; give the model's inputs sizes"
        )
    return size
