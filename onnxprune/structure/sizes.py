"""Shapes of all values, and the values of shape arithmetic, at chosen sizes of the free axes.

Everything is computed several times, with different sizes for the axes that a model leaves open:
what differs is dynamic, what agrees is the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from onnx import ModelProto, TensorProto

from .evaluation import Run, Shape, evaluated
from .inference import Inference
from .stored import constant_tensor, constant_tensors

__all__ = [
    "LONGEST",
    "Run",
    "Shape",
    "Sizes",
    "constant_tensor",
    "constant_tensors",
    "measure",
    "run_at",
]

#: Operators that only pick and order elements: what they pick is the same in every run where it is
#: in two. Of others (a comparison, a minimum) that does not follow.
_PICKS = "Cast Concat Gather Identity Reshape Shape Slice Split Squeeze Transpose Unsqueeze"
_PICKING = frozenset(_PICKS.split())
#: Longest axis whose indices are told apart: each takes a few numbers of eight bytes.
LONGEST = 2**20
_BATCH = ((5, 7), (1, 1))
_OTHER = ((32, 96), (224, 256), (16, 24), (7, 11), (1, 2))
#: Further sizes at which what agrees so far may turn out to be open: a pool rounds, a slice ends
#: early, strides leave one frame of a thousand samples. They need not fit the graph.
_PROBES = ((2, 3), (11, 1000), (3, 100_000))


@dataclass(frozen=True)
class Sizes:
    """Runs of the same graph at different sizes.

    Attributes:
        one: The first run: its sizes are those of the analysis.
        two: The second.
        probes: Runs in which only what is known counts: their sizes may not fit the graph.
        loose: Values that may differ in further runs even where these agree.
    """

    one: Run
    two: Run
    probes: tuple[Run, ...] = ()
    loose: set[str] = field(default_factory=set)

    def shape(self, name: str) -> Shape | None:
        """Shape in the first run; None where unknown or where the rank is not always the same.

        A shape that is too long to follow, or negative, counts as unknown.
        """
        first, second = self.one.shapes.get(name), self.two.shapes.get(name)
        if first is None or second is None or len(first) != len(second):
            return None
        if not all(0 <= size <= LONGEST for size in first):
            return None
        return first

    def too_long(self, name: str) -> bool:
        """Whether a value has an axis whose indices are too many to tell apart."""
        shapes = (run.shapes.get(name, ()) for run in (self.one, self.two))
        return any(size > LONGEST for shape in shapes for size in shape)

    def dynamic(self, name: str) -> tuple[bool, ...]:
        """For each axis, whether its size differs from run to run."""
        first = self.one.shapes[name]
        others = [self.two.shapes[name], *(p.shapes.get(name, first) for p in self.probes)]
        others = [shape for shape in others if len(shape) == len(first)]
        return tuple(any(s[axis] != size for s in others) for axis, size in enumerate(first))

    def static(self, name: str) -> np.ndarray | None:
        """The value where it is small and the same in every run."""
        first = self.one.values.get(name)
        if first is None or name in self.loose or name not in self.two.values:
            return None
        runs = (self.two, *self.probes)
        same = all(np.array_equal(first, run.values.get(name, first)) for run in runs)
        return first if same else None


def measure(proto: ModelProto) -> Sizes:
    """Find sizes for the free axes that fit the graph, and all shapes that follow from them."""
    tensors = {tensor.name: tensor for _, tensor in constant_tensors(proto.graph)}
    if not _free_axes(proto, tensors):
        run = evaluated(proto, tensors, 1, 1)
        return Sizes(run, run)

    inference = Inference(proto.opset_import)

    def at(batch: int, other: int) -> Run:
        return evaluated(proto, tensors, batch, other, inference)

    best: Sizes | None = None
    for batch, other in product(_BATCH, _OTHER):
        found = Sizes(at(batch[0], other[0]), at(batch[1], other[1]))
        if best is None or _failures(found) < _failures(best):
            best = found
        if not _failures(best):
            break
    assert best is not None
    found = Sizes(best.one, best.two, tuple(at(*sizes) for sizes in _PROBES))
    _mark_loose(proto, found)
    return found


def run_at(proto: ModelProto, batch: int, other: int) -> Run:
    """Shapes with every open first axis of an input at one size and other open axes at another."""
    return evaluated(proto, {t.name: t for _, t in constant_tensors(proto.graph)}, batch, other)


def _mark_loose(proto: ModelProto, sizes: Sizes) -> None:
    for node in proto.graph.node:
        given = [name for name in node.input if name]
        if not sizes.one.derived.intersection(node.output):
            continue
        picks = node.op_type in _PICKING
        if any(name in sizes.loose for name in given) or (
            not picks and any(sizes.static(name) is None for name in given)
        ):
            sizes.loose.update(node.output)


def _failures(sizes: Sizes) -> int:
    return sizes.one.failures + sizes.two.failures


def _free_axes(proto: ModelProto, tensors: Mapping[str, TensorProto]) -> bool:
    return any(
        not dim.HasField("dim_value")
        for info in proto.graph.input
        if info.name not in tensors
        for dim in info.type.tensor_type.shape.dim
    )
