"""Versions of what tests run on."""

from __future__ import annotations

from importlib.metadata import version

__all__ = ["has_older_runtime"]

#: From this version on onnxruntime has to run every model that a test makes for it.
WHOLE = (1, 32)


def has_older_runtime() -> bool:
    """Whether onnxruntime may lack operators and types that tests use."""
    major, minor = version("onnxruntime").split(".")[:2]
    return (int(major), int(minor)) < WHOLE
