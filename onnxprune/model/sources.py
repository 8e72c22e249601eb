"""The doors: a model from any of the forms that Python users hold, and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import EncodeError
from onnx import ModelProto

from ..errors import ModelError, UsageError
from .dtypes import storage_dtype
from .load import load, parse
from .model import PAYLOAD_PREFIX, Model
from .payload import Payload, sliced
from .save import to_proto
from .wire import SMALLEST_PAYLOAD

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["read", "to_graphsurgeon", "to_ir", "to_program"]


def read(source: object) -> Model:
    """A model from a path, ModelProto, onnx_ir.Model, ONNXProgram or GraphSurgeon graph.

    The source is never changed, and changing it later does not change the model.

    Raises:
        ModelError: The model cannot be read.
        UsageError: `source` is none of these.
    """
    if isinstance(source, (str, os.PathLike)):
        return load(Path(source))
    if isinstance(source, Model):
        return source
    if isinstance(source, ModelProto):
        return _from_proto(source)
    inner = getattr(source, "model", None)
    for candidate in (source, inner):
        if _is(candidate, "onnx_ir", "Model"):
            return _from_ir(candidate)
    if _is(source, "onnx_graphsurgeon", "Graph"):
        import onnx_graphsurgeon

        return _from_proto(onnx_graphsurgeon.export_onnx(source))
    if isinstance(inner, ModelProto):
        return _from_proto(inner)
    raise UsageError(
        f"cannot read a model from {type(source).__name__}; give a path, onnx.ModelProto, "
        "onnx_ir.Model, torch.onnx.ONNXProgram or onnx_graphsurgeon.Graph"
    )


def _is(candidate: object, package: str, name: str) -> bool:
    """Whether a value is of a class that its package may not have been imported for."""
    return any(
        base.__name__ == name and base.__module__.split(".")[0] == package
        for base in type(candidate).__mro__
    )


def _from_proto(proto: ModelProto) -> Model:
    try:
        data = proto.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ModelError(
            f"the ModelProto cannot be serialised ({error}); above 2 GB, save it with external "
            "data and give its path"
        ) from None
    return parse(memoryview(data))


@dataclass(frozen=True, eq=False)
class IrPayload:
    """A payload over a tensor of onnx_ir, read when it is needed."""

    tensor: ir.TensorProtocol
    dtype: np.dtype
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes of all storage elements."""
        return self.size * self.dtype.itemsize

    def array(self) -> np.ndarray:
        """All storage elements, flat; a view where onnx_ir gives one."""
        try:
            values = self.tensor.numpy()
            if values.dtype == self.dtype:
                return values.reshape(-1)
            return np.frombuffer(self.tensor.tobytes(), self.dtype)
        except (OSError, ValueError) as error:
            raise ModelError(f"tensor '{self.tensor.name}' cannot be read: {error}") from None

    def chunks(self) -> Iterator[np.ndarray]:
        """Slices of at most `CHUNK` elements, in order."""
        return sliced(self.array())


def _from_ir(source: Any) -> Model:
    """Serialise the graph around its tensors: big ones are referred to, not copied."""
    import onnx_ir as ir

    clone: ir.Model = source.clone()
    payloads: dict[str, Payload] = {}

    def refer(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        small = tensor.nbytes < SMALLEST_PAYLOAD and not isinstance(tensor, ir.ExternalTensor)
        if tensor.dtype == ir.DataType.STRING or small:
            return tensor
        dtype = storage_dtype(tensor.dtype.value)
        key = f"ir{len(payloads)}"
        payloads[key] = IrPayload(tensor, dtype, tensor.nbytes // dtype.itemsize)
        return ir.ExternalTensor(
            PAYLOAD_PREFIX + key, None, None, tensor.dtype,
            shape=_shape(tensor), name=tensor.name or "", doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )  # fmt: skip

    _replace_tensors(clone, refer)
    model = parse(memoryview(ir.to_proto(clone).SerializeToString()), known=payloads)
    size = model.proto.ByteSize() + sum(payload.nbytes for payload in payloads.values())
    return replace(model, origin=replace(model.origin, file_bytes=size))


def to_ir(model: Model) -> ir.Model:
    """The model as onnx_ir.Model, its big tensors read when they are needed."""
    import onnx_ir as ir

    def resolve(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        location = str(tensor.location) if isinstance(tensor, ir.ExternalTensor) else ""
        payload = model.payloads.get(location.removeprefix(PAYLOAD_PREFIX))
        if not location.startswith(PAYLOAD_PREFIX) or payload is None:
            return tensor
        return _lazy(tensor, payload)

    try:
        result = ir.from_proto(model.proto)
    except Exception as error:  # SerdeError, and what it wraps
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UsageError(
            f"onnx_ir cannot hold this model ({reason}); use result.save() or result.to_proto()"
        ) from error
    _replace_tensors(result, resolve)
    return result


def _lazy(tensor: ir.TensorProtocol, payload: Payload) -> ir.TensorProtocol:
    import onnx_ir as ir

    def concrete() -> ir.TensorProtocol:
        flat = payload.array()
        dtype = tensor.dtype
        if dtype.bitwidth < 8:
            return ir.PackedTensor(flat, dtype, shape=_shape(tensor), name=tensor.name)
        return ir.Tensor(flat.reshape(tensor.shape.numpy()), dtype=dtype, name=tensor.name)

    return ir.LazyTensor(
        concrete, tensor.dtype, _shape(tensor), name=tensor.name or "",
        cache=True, doc_string=tensor.doc_string, metadata_props=dict(tensor.metadata_props),
    )  # fmt: skip


def _shape(tensor: ir.TensorProtocol) -> ir.Shape:
    import onnx_ir as ir

    return ir.Shape(tensor.shape.numpy())


def _replace_tensors(model: ir.Model, change: Any) -> None:
    """Put `change(tensor)` in place of every initializer and tensor attribute."""
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = change(value.const_value)
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        for node in ir.traversal.RecursiveGraphIterator(owner):
            for name, attribute in list(node.attributes.items()):
                if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, change(attribute.as_tensor()))


def to_graphsurgeon(model: Model) -> Any:
    """The model as an onnx_graphsurgeon.Graph; raises UsageError where that is not installed."""
    try:
        import onnx_graphsurgeon
    except ImportError:
        raise UsageError("onnx_graphsurgeon is not installed; install onnx-graphsurgeon") from None
    return onnx_graphsurgeon.import_onnx(to_proto(model))


def to_program(model: Model, source: object) -> Any:
    """The model as a torch ONNXProgram like `source`; raises UsageError where that is none."""
    exported = getattr(source, "exported_program", None)
    if exported is None or not _is(getattr(source, "model", None), "onnx_ir", "Model"):
        raise UsageError(
            "the model did not come from a torch ONNXProgram; use result.model or result.to_proto()"
        )
    return type(source)(to_ir(model), exported)  # type: ignore[call-arg]
