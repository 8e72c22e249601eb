"""How important the atoms of each group are, from the weights that they take along."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from .analysis import Coupling
from .groups import Group
from .sizes import constant_tensors

__all__ = ["Scores", "magnitudes", "relative"]

#: One number for each atom of a group, in the order of its atoms.
Scores = npt.NDArray[np.float64]


def magnitudes(coupling: Coupling, groups: Sequence[Group]) -> list[Scores]:
    """Mean square of the weights that go with each atom, over all weights of its group.

    Every matrix counts relative to its own mean, so that a layer of large weights does not decide
    for those that it is coupled with. Vectors (biases, normalizations) do not count, unless a
    group has nothing else. Source: group importance as in Fang et al., "DepGraph: Towards Any
    Structural Pruning" (2023), equation 4, with the norms made comparable.

    Args:
        coupling: The analysed model.
        groups: Its groups.

    Returns:
        Scores of each group, relative to their mean.
    """
    tensors = dict(constant_tensors(coupling.prepared.proto.graph))
    squares: dict[tuple[str, int], Scores] = {}
    found = []
    for group in groups:
        matrices = [m for m in group.members if len(tensors[m.tensor].dims) > 1]
        total = np.zeros(group.size)
        for member in matrices or group.members:
            key = member.tensor, member.axis
            if key not in squares:
                squares[key] = _squares(tensors[member.tensor], member.axis)
            labels = coupling.axes[member.tensor][member.axis]
            total += relative(_summed(coupling, group, labels, squares[key]))
        found.append(relative(total))
    return found


def relative(scores: Scores) -> Scores:
    """Scores over their mean; all one where they are all zero."""
    mean = scores.mean() if len(scores) else 0.0
    return scores / mean if mean > 0 and np.isfinite(mean) else np.ones_like(scores)


def _squares(tensor: TensorProto, axis: int) -> Scores:
    """Sum of squares over every other axis."""
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "fiu":
        array = array.astype(np.float32)
    others = tuple(i for i in range(array.ndim) if i != axis)
    wide = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64, copy=False)
    return np.asarray(np.square(wide).sum(axis=others, dtype=np.float64), np.float64)


def _summed(
    coupling: Coupling, group: Group, labels: npt.NDArray[np.int64], values: Scores
) -> Scores:
    """Values of an axis's indices, summed over those that go with each atom."""
    atoms, positions = coupling.atoms.occurrences(labels)
    places = np.searchsorted(group.atoms, atoms)
    places[places == group.size] = 0
    ours = group.atoms[places] == atoms
    summed = np.bincount(places[ours], values[positions[ours]], group.size)
    return np.asarray(summed, np.float64)
