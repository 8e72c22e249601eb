"""Values that a model makes before a layer, computed once for all prunings of it and later ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..evaluation import model_session
from ..graph.part import part_of
from ..model.model import Model
from ..runtime import CannotRun, run

__all__ = ["Frontier"]

#: Bytes of values that are kept.
FRONTIER_BYTES = 2**28
#: Kinds of arrays that a session takes and gives.
KINDS = "fiub"

Arrays = dict[str, np.ndarray]


class Frontier:
    """What lies before a layer in the unpruned model, batch by batch; it only moves on.

    Attributes:
        values: Arrays by name, batch by batch: inputs of the model, or what it makes of them.
    """

    def __init__(self, model: Model, feeds: Sequence[Arrays]) -> None:
        self._model = model
        self.values = tuple(feeds)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return sum(array.nbytes for batch in self.values for array in batch.values())

    def advance(self, boundary: Sequence[str]) -> None:
        """Move on to these values; where they are too large or no arrays, stay where it is.

        Args:
            boundary: Names; they can be made from the values, and all that is asked for later can
                be made from them.
        """
        if set(boundary) == self.values[0].keys():
            return
        missing = [name for name in boundary if name not in self.values[0]]
        moved = self._made(missing) if missing else [{} for _ in self.values]
        if moved is None:
            return
        self.values = tuple(
            {name: new[name] if name in new else old[name] for name in boundary}
            for old, new in zip(self.values, moved, strict=True)
        )

    def _made(self, names: Sequence[str]) -> list[Arrays] | None:
        """Values of all batches; None where they cannot be kept."""
        part = part_of(self._model, names, self.values[0])
        wanted = {info.name for info in part.proto.graph.input}
        found: list[Arrays] = []
        size = 0
        try:
            with model_session(part) as session:
                for feeds in self.values:
                    known = {name: array for name, array in feeds.items() if name in wanted}
                    values = run(session, known)
                    if not all(map(_is_plain, values)):
                        return None
                    size += sum(value.nbytes for value in values)
                    if size > FRONTIER_BYTES:
                        return None
                    found.append(dict(zip(names, values, strict=True)))
        except CannotRun:  # a value of a kind that no session gives out
            return None
        return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in KINDS
