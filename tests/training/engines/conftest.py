"""A Python with onnxruntime-training, and graphs for it."""

from __future__ import annotations

import pytest

from onnxprune.errors import UsageError
from onnxprune.training.engines.onnxruntime_training.interpreter import find_interpreter


@pytest.fixture(scope="session")
def training_python() -> str:
    """Path of a Python that has onnxruntime-training; a test that needs it skips without."""
    try:
        return find_interpreter()
    except UsageError as error:
        pytest.skip(str(error))
