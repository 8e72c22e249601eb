"""Values inside a model, from onnxruntime: they become outputs, and what they don't need goes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, ValueInfoProto

from ..errors import ModelError, OutputError
from ..graph.part import part_of
from ..model.model import Model
from ..model.save import INLINE_LIMIT, serialised, to_proto, write_pair
from ..model.tensors import walk_graphs
from ..runtime import open_session, run
from ..training.precision import float32_copy

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Taps", "widened"]

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
            _opened(_wide_part(model, self.names, _wide_all(known or {}))) if self.names else None
        )

    def batches(self, feeds: Feeds) -> Iterator[dict[str, np.ndarray]]:
        """The values for one batch of inputs, in one or more parts; floats are not float16."""
        parts = [self._run(part) for part in self._parts(feeds)]
        if len(parts) > 1 and self.stack:
            yield {name: _joined([part[name] for part in parts]) for name in parts[0]}
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
        values = {name: widened(feeds[name]) for name in self.fed}
        if self._session is not None:
            kinds = {value.name: value.type for value in self._session.get_inputs()}
            own = {
                name: _typed(array, kinds[name]) for name, array in feeds.items() if name in kinds
            }
            values |= zip(self.names, map(widened, run(self._session, own)), strict=True)
        return values


def _joined(values: Sequence[np.ndarray]) -> np.ndarray:
    """What several runs gave along the first axis; single numbers make one."""
    return np.concatenate(list(map(np.atleast_1d, values)))


def widened(value: Any) -> Any:
    """A value with halves as float32; whatever is no array of floats stays."""
    is_half = isinstance(value, np.ndarray) and value.dtype.kind in "fV" and value.itemsize < 4
    return value.astype(np.float32) if is_half else value


def _wide_all(values: Feeds) -> dict[str, np.ndarray]:
    return {name: widened(array) for name, array in values.items()}


def _typed(array: np.ndarray, kind: str) -> np.ndarray:
    """Floats in the width that the session takes: it may be a wider copy of the model."""
    if array.dtype.kind not in "fV":
        return array
    return array.astype({"tensor(float)": "f4", "tensor(double)": "f8"}.get(kind, "f2"), copy=False)


def _wide_part(model: Model, names: Sequence[str], known: Feeds) -> Model:
    """A part of the model with float32 in place of halves, where it has them and that can be."""
    part = part_of(model, names, known)
    if not _has_halves(model):
        return part
    try:
        return Model(float32_copy(to_proto(part)).proto, {}, model.origin)
    except (ModelError, OutputError):
        return part  # it depends on how its floats are stored, or is too large: run as it is


def _opened(model: Model) -> onnxruntime.InferenceSession:
    joined = serialised(model.proto, model.payloads)
    if joined.size > INLINE_LIMIT:
        with tempfile.TemporaryDirectory() as folder:
            write_pair(model, Path(folder) / "model.onnx")
            return open_session(Path(folder) / "model.onnx", claims=None)
    return open_session(b"".join(joined.blocks()), claims=None)


def _has_halves(model: Model) -> bool:
    if any(tensor.data_type in _HALVES for tensor in model.tensors.values()):
        return True
    infos = (
        info
        for _, graph in walk_graphs(model.proto)
        for info in getattr(graph, "input", ())
        if isinstance(info, ValueInfoProto)
    )
    return any(info.type.tensor_type.elem_type in _HALVES for info in infos)
