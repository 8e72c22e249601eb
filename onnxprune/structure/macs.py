"""Multiplications and weights of a model, as it is and as it would be without some atoms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto

from ..model.tensors import node_label, walk_tensors
from .analysis import Coupling
from .groups import Group
from .operations import multiplications
from .sizes import Run, Shape, run_at

__all__ = ["Work", "WorkCounter", "count_parameters", "count_work"]

#: Sizes tried for open axes that are no batch: the first that the graph takes.
OPEN_SIZES = (1, 16, 64, 224)
#: Vectors of these are sizes, bounds and indices.
_SIZES = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)


@dataclass(frozen=True)
class Work:
    """What one run of a model costs.

    Attributes:
        macs: Multiplications, each with its addition, in operators that multiply tensors. Work on
            single elements (activations, pools, normalizations) does not count.
        open_size: The batch is 1, and all other axes that the model leaves open are this long.
        unknown: Nodes whose operations are not counted: they hold graphs, or their shapes are not
            known.
    """

    macs: int
    open_size: int
    unknown: tuple[str, ...]


def count_work(proto: ModelProto) -> Work:
    """Count the operations of a model, whose functions are inlined."""
    run, size = _at_least_sizes(proto)
    counts = [multiplications(node, run.shapes) for node in proto.graph.node]
    unknown = tuple(
        node_label(node, index)
        for index, (node, count) in enumerate(zip(proto.graph.node, counts, strict=True))
        if count is None
    )
    return Work(sum(count or 0 for count in counts), size, unknown)


def count_parameters(proto: ModelProto) -> int:
    """Numbers in all constant tensors of a model, other than vectors of sizes and indices."""
    return sum(
        math.prod(tensor.dims)
        for _, _, tensor in walk_tensors(proto)
        if tensor.data_type not in _SIZES or len(tensor.dims) > 1
    )


class WorkCounter:
    """Counts what a model would cost without some of its atoms; nothing is removed for it.

    Args:
        coupling: The analysed model.
    """

    def __init__(self, coupling: Coupling) -> None:
        proto = coupling.prepared.proto
        run, self._open_size = _at_least_sizes(proto)
        counts = [multiplications(node, run.shapes) for node in proto.graph.node]
        self._nodes = [node for node, n in zip(proto.graph.node, counts, strict=True) if n]
        self._unknown = tuple(
            node_label(node, index)
            for index, node in enumerate(proto.graph.node)
            if counts[index] is None
        )
        self._atoms = coupling.atoms
        self._labels: dict[bytes, np.ndarray] = {}
        self._axes: dict[str, tuple[tuple[int, bytes | None], ...]] = {}
        names = {n for node in self._nodes for n in (*node.input, *node.output)}
        for name in names & run.shapes.keys():
            self._axes[name] = self._keyed(run.shapes[name], coupling.axes.get(name, ()))

    def without(self, atoms: Iterable[int]) -> Work:
        """What a run costs when these atoms are gone."""
        gone = self._atoms.marks(atoms)
        left: dict[bytes | None, float] = {
            key: 1 - float(gone[labels].mean()) for key, labels in self._labels.items()
        }
        left[None] = 1.0
        shapes = {
            name: tuple(round(size * left[key]) for size, key in axes)
            for name, axes in self._axes.items()
        }
        macs = sum(multiplications(node, shapes) or 0 for node in self._nodes)
        return Work(macs, self._open_size, self._unknown)

    def savings(self, groups: Sequence[Group]) -> list[float]:
        """For each group, the operations that go with an atom, while half of the group goes."""
        whole = self.without(()).macs
        found = []
        for group in groups:
            gone = max(1, group.size // 2)
            saved = whole - self.without(group.atoms[:gone].tolist()).macs
            found.append(max(saved / gone, 1.0))
        return found

    def _keyed(
        self, shape: Shape, axes: tuple[np.ndarray, ...]
    ) -> tuple[tuple[int, bytes | None], ...]:
        """Every size with the key of its labels, if indices of the axis can go."""
        keys: list[bytes | None] = [None] * len(shape)
        for place, labels in enumerate(axes if len(axes) == len(shape) else ()):
            resolved = self._atoms.resolve(labels)
            if resolved.any():
                keys[place] = resolved.tobytes()
                self._labels[resolved.tobytes()] = resolved
        return tuple(zip(shape, keys, strict=True))


def _at_least_sizes(proto: ModelProto) -> tuple[Run, int]:
    """Shapes at batch 1, and the size of the other open axes that fits the graph best."""
    runs: list[tuple[int, int, Run]] = []
    for size in OPEN_SIZES:
        run = run_at(proto, 1, size)
        # A kernel larger than its operand leaves less than nothing.
        empty = sum(any(length < 1 for length in shape) for shape in run.shapes.values())
        runs.append((run.failures + empty, size, run))
        if not runs[-1][0]:
            break
    _, size, run = min(runs, key=lambda entry: entry[:2])
    return run, size
