"""Values inside a model, from onnxruntime: they become outputs, and what they don't need goes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from ..errors import ModelError, OutputError
from ..model.model import Model
from ..model.save import INLINE_LIMIT, serialised, to_proto, write_pair
from ..model.tensors import subgraphs, walk_graphs, walk_tensors
from ..runtime import open_session, run
from ..training.precision import float32_copy

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Taps", "captured_names"]

Feeds = Mapping[str, np.ndarray]
_HALVES = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16))


class Taps:
    """A session of the part of a model that makes some values.

    Models in float16 and bfloat16 run in float32: their own rounding would drown what a repair
    looks for, and onnxruntime has few bfloat16 operators.

    Args:
        model: The model.
        names: Values of its main graph; inputs are allowed.
        stack: Run batches in parts where the model fixes their size, and join what the parts give
            along the first axis; otherwise each part is a batch of its own.
        known: Values that will be fed, by name, with arrays like those that will be: inputs, or
            anything that would be made from them. None: the inputs.
    """

    def __init__(
        self, model: Model, names: Sequence[str], *, stack: bool = True, known: Feeds | None = None
    ) -> None:
        given = {info.name for info in model.proto.graph.input} if known is None else set(known)
        self.names = tuple(dict.fromkeys(name for name in names if name not in given))
        self.fed = tuple(dict.fromkeys(name for name in names if name in given))
        self.stack = stack
        self._session = (
            _opened(_part(_wide_model(model), self.names, known or {})) if self.names else None
        )

    def batches(self, feeds: Feeds) -> Iterator[dict[str, np.ndarray]]:
        """The values for one batch of inputs, in one or more parts; floats are not float16."""
        parts = [self._run(part) for part in self._parts(feeds)]
        if len(parts) > 1 and self.stack:
            yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        else:
            yield from parts

    def _parts(self, feeds: Feeds) -> Iterator[Feeds]:
        wanted = self._session.get_inputs() if self._session else []
        sizes = [v.shape[0] for v in wanted if v.shape and isinstance(v.shape[0], int)]
        first = next(iter(feeds.values()))
        size = sizes[0] if sizes and sizes[0] > 0 else len(first) if first.ndim else 1
        count = len(first) if first.ndim else 1
        for start in range(0, count, size):
            yield {
                name: array[start : start + size] if array.ndim and len(array) == count else array
                for name, array in feeds.items()
            }

    def _run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        values = {name: _wide(feeds[name]) for name in self.fed}
        if self._session is not None:
            kinds = {value.name: value.type for value in self._session.get_inputs()}
            own = {
                name: _typed(array, kinds[name]) for name, array in feeds.items() if name in kinds
            }
            values |= zip(self.names, map(_wide, run(self._session, own)), strict=True)
        return values


def _wide(value: Any) -> Any:
    """A value with halves as float32; whatever is no array of floats stays."""
    is_half = isinstance(value, np.ndarray) and value.dtype.kind in "fV" and value.itemsize < 4
    return value.astype(np.float32) if is_half else value


def _typed(array: np.ndarray, kind: str) -> np.ndarray:
    """Floats in the width that the session takes: it may be a wider copy of the model."""
    if array.dtype.kind not in "fV":
        return array
    return array.astype({"tensor(float)": "f4", "tensor(double)": "f8"}.get(kind, "f2"), copy=False)


def _part(model: Model, names: Sequence[str], known: Feeds) -> Model:
    """The part of a model that makes these values, its outputs, from those that are known."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    needed = set(names)
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output) - known.keys():
            needed.update(node.input, captured_names(node))
            kept.append(node)
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    tensors = [t for t in graph.initializer if t.name in needed]
    inputs = [info for info in graph.input if info.name in needed]
    declared = {info.name for info in inputs}
    inputs += [_info(n, a) for n, a in known.items() if n in needed and n not in declared]
    for field, values in (("node", nodes), ("initializer", tensors), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    del graph.output[:]
    graph.output.extend(ValueInfoProto(name=name) for name in names)
    del graph.value_info[:]
    return Model(proto, model.payloads, model.origin)


def captured_names(node: NodeProto) -> Iterator[str]:
    """Names that the bodies of a node may take from around them."""
    pending: list[GraphProto] = [graph for _, graph in subgraphs(node, 0)]
    while pending:
        graph = pending.pop()
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from inner.input
            pending += [body for _, body in subgraphs(inner, 0)]


def _info(name: str, like: np.ndarray) -> ValueInfoProto:
    """An input for arrays of the type and the rank of one."""
    kind = helper.np_dtype_to_tensor_dtype(_wide(like).dtype)
    return helper.make_tensor_value_info(name, kind, [None] * like.ndim)


def _wide_model(model: Model) -> Model:
    """The model with float32 in place of halves, where it has them and that can be."""
    if not _has_halves(model.proto):
        return model
    try:
        return Model(float32_copy(to_proto(model)).proto, {}, model.origin)
    except (ModelError, OutputError):
        return model  # it depends on how its floats are stored, or is too large: run as it is


def _opened(model: Model) -> onnxruntime.InferenceSession:
    joined = serialised(model.proto, model.payloads)
    if joined.size > INLINE_LIMIT:
        with tempfile.TemporaryDirectory() as folder:
            write_pair(model, Path(folder) / "model.onnx")
            return open_session(Path(folder) / "model.onnx")
    return open_session(b"".join(joined.blocks()))


def _has_halves(proto: ModelProto) -> bool:
    if any(tensor.data_type in _HALVES for _, _, tensor in walk_tensors(proto)):
        return True
    infos = (
        info
        for _, graph in walk_graphs(proto)
        for info in getattr(graph, "input", ())
        if isinstance(info, ValueInfoProto)
    )
    return any(info.type.tensor_type.elem_type in _HALVES for info in infos)
