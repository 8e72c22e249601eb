"""The rules of all operators; importing this package registers them."""

from . import (
    attention,
    barriers,
    convolution,
    elementwise,
    indexing,
    layout,
    matmul,
    normalization,
    pooling,
    quantization,
    reduction,
    resizing,
)

__all__ = [
    "attention",
    "barriers",
    "convolution",
    "elementwise",
    "indexing",
    "layout",
    "matmul",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resizing",
]
