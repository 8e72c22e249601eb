"""What a model wants at its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, ValueInfoProto

from ..errors import DataError
from ..model.dtypes import logical_dtype
from ..runtime import ELEMENTS

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["InputSpec", "input_specs", "session_specs"]


@dataclass(frozen=True)
class InputSpec:
    """What a model wants at one input.

    Args:
        name: The input's name.
        dtype: Element type as numpy (or ml_dtypes) knows it.
        shape: Sizes, None where any does; None in place of the whole shape: nothing is known.
            The first axis counts samples.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    @property
    def fixed_batch(self) -> int | None:
        """Size of the first axis, None where any does."""
        return self.shape[0] if self.shape else None


def input_specs(proto: ModelProto) -> list[InputSpec]:
    """The inputs that a model must be fed: graph inputs that no initializer has a value for.

    Raises:
        DataError: An input is no tensor.
    """
    graph = proto.graph
    given = {tensor.name for tensor in graph.initializer}
    given.update(tensor.values.name for tensor in graph.sparse_initializer)
    return [_spec(info) for info in graph.input if info.name not in given]


def _spec(info: ValueInfoProto) -> InputSpec:
    kind = info.type.WhichOneof("value") or "nothing"
    if kind != "tensor_type":
        raise DataError(f"samples cannot feed the input '{info.name}': it is {kind}, not a tensor")
    tensor = info.type.tensor_type
    try:
        dtype = logical_dtype(tensor.elem_type)
    except KeyError:
        raise DataError(f"the model's input '{info.name}' has no known element type") from None
    if not tensor.HasField("shape"):
        return InputSpec(info.name, dtype, None)
    # Sizes of 0 and -1 are what some exporters write for "any".
    sizes = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim]
    return InputSpec(info.name, dtype, tuple(sizes))


def session_specs(session: onnxruntime.InferenceSession) -> list[InputSpec]:
    """The inputs of an open onnxruntime session.

    Raises:
        DataError: An input is of a type that numpy cannot give.
    """
    return [_known(value.name, value.type, value.shape) for value in session.get_inputs()]


def _known(name: str, kind: str, shape: Sequence[object]) -> InputSpec:
    if kind not in ELEMENTS:
        raise DataError(f"samples cannot feed the input '{name}' of type {kind}")
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    # onnxruntime tells an unknown shape and that of a scalar alike.
    return InputSpec(name, np.dtype(ELEMENTS[kind]), tuple(sizes) if sizes else None)
