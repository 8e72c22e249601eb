"""The rules of all operators; importing this package registers them."""

from . import (
    attention,
    barriers,
    convolution,
    elementwise,
    fused_attention,
    indexing,
    joining,
    layout,
    matmul,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resizing,
    rotary,
)

__all__ = [
    "attention",
    "barriers",
    "convolution",
    "elementwise",
    "fused_attention",
    "indexing",
    "joining",
    "layout",
    "matmul",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resizing",
    "rotary",
]
