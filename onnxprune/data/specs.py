"""What a model wants at its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
            The first axis counts samples, unless the input is shared.
        shared: The input does not go by samples (a scalar such as a sampling rate, a state whose
            batch is another axis): every batch gets it as it is.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None
    shared: bool = False

    @property
    def fixed_batch(self) -> int | None:
        """Size of the first axis, None where any does."""
        return self.shape[0] if self.shape and not self.shared else None


def input_specs(proto: ModelProto) -> list[InputSpec]:
    """The inputs that a model must be fed: graph inputs that no initializer has a value for.

    Raises:
        DataError: An input is no tensor.
    """
    graph = proto.graph
    given = {tensor.name for tensor in graph.initializer}
    given.update(tensor.values.name for tensor in graph.sparse_initializer)
    return _told_apart([_spec(info) for info in graph.input if info.name not in given])


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
    return _told_apart(
        [_known(value.name, value.type, value.shape) for value in session.get_inputs()]
    )


def _told_apart(specs: list[InputSpec]) -> list[InputSpec]:
    """Mark the inputs that are shared by all samples of a batch.

    Those are scalars and, where other inputs leave the size of the first axis open, inputs that
    fix it but leave a later one open; where no input leaves it open, inputs whose first size is
    not that of the first input.
    """
    ranked = [spec for spec in specs if spec.shape]
    is_open = any(spec.shape and spec.shape[0] is None for spec in ranked)
    first = ranked[0].shape[0] if ranked and ranked[0].shape else None

    def shared(spec: InputSpec) -> bool:
        if spec.shape is None:
            return False
        if not spec.shape:
            return True
        if is_open:
            return spec.shape[0] is not None and None in spec.shape
        return spec.shape[0] != first

    return [replace(spec, shared=shared(spec)) for spec in specs]


def _known(name: str, kind: str, shape: Sequence[object]) -> InputSpec:
    if kind not in ELEMENTS:
        raise DataError(f"samples cannot feed the input '{name}' of type {kind}")
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    # onnxruntime tells an unknown shape and that of a scalar alike.
    return InputSpec(name, np.dtype(ELEMENTS[kind]), tuple(sizes) if sizes else None)
