"""Building small models from ONNX text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.model.model import Model

Build = Callable[..., Model]


def build_model(text: str, *, opset: int = 20, ir: int = 9, **arrays: np.ndarray) -> Model:
    """Model of one graph in ONNX text (functions may follow), with arrays as initializers."""
    domains = '"f" : 1, "com.microsoft" : 1'
    proto = onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["" : {opset}, {domains}]>\n{text}'
    )
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return Model(proto)


@pytest.fixture(scope="session")
def build() -> Build:
    """The function `build_model`."""
    return build_model
