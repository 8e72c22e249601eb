"""What users hand over as an array, as a numpy array."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError

__all__ = ["as_array", "is_array"]


def is_array(value: object) -> bool:
    """Whether a value is a numpy array, a tensor of a framework, or much like them."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def as_array(value: Any, what: str) -> np.ndarray:
    """A numpy array of an array, a torch tensor on any device, or a list of numbers.

    Raises:
        DataError: It cannot be one.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # numpy has no bfloat16; float32 holds all its numbers.
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception as error:  # every framework raises its own types
        raise DataError(
            f"{what} is of type {type(value).__name__}, which numpy cannot read ({error}); give an "
            "array"
        ) from error
