"""Domains of operators: that of the standard ones has two spellings."""

from __future__ import annotations

__all__ = ["plain_domain"]


def plain_domain(domain: str) -> str:
    """The domain in its usual spelling: the standard operators' is empty, and ``ai.onnx`` as well.

    https://github.com/onnx/onnx/blob/main/docs/Versioning.md
    """
    return "" if domain == "ai.onnx" else domain
