"""Who is to blame for an error that nobody foresaw: the model, or onnxprune itself.

Every stage takes models to be what ONNX says they are. One that is not, such as a graph whose nodes
are out of order or whose shapes do not fit its operators, may fail anywhere; then the model is what
the user has to hear about. An error on a sound model stays what it is, a fault of onnxprune.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnx import shape_inference

from .errors import ModelError, OnnxPruneError
from .model.model import Model
from .verify import structure_failure, without_bytes

__all__ = ["blaming"]


@contextmanager
def blaming(*models: Model) -> Iterator[None]:
    """Turn an error that nothing foresaw into a `ModelError` where one of these is not sound.

    Raises:
        ModelError: What ONNX itself finds wrong with the model.
    """
    try:
        yield
    except (OnnxPruneError, OSError, MemoryError):
        raise
    except Exception as error:
        for model in models:
            wrong = _contradiction(model)
            if wrong is not None:
                where = f"'{model.origin.path}': " if model.origin.path is not None else ""
                raise ModelError(
                    f"{where}the model contradicts itself ({wrong}); export it again"
                ) from error
        raise


def _contradiction(model: Model) -> str | None:
    """What the ONNX checker and strict shape inference say against a model; None where nothing."""
    failure = structure_failure(model)
    if failure is not None:
        return _line(failure)
    try:
        shape_inference.infer_shapes(without_bytes(model), strict_mode=True)
    except Exception as error:  # shape inference is C++ and raises unrelated types
        return _line(str(error) or type(error).__name__)
    return None


def _line(text: str) -> str:
    """On one line, and not endless."""
    words = " ".join(text.split())
    return words if len(words) <= 200 else f"{words[:200]}..."
