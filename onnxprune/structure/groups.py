"""Coupled groups in words: which channels go together, and what keeps the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from .analysis import Cause, Coupling
from .atoms import Labels

__all__ = [
    "Group",
    "Member",
    "Obstacle",
    "find_barriers",
    "find_groups",
    "indices",
    "why_no_groups",
]

_OUT_IN, _IN_OUT = ("out", "in"), ("in", "out")
#: What the first two axes of an operand are.
_FIRST = {
    ("Conv", 1): _OUT_IN,
    ("FusedConv", 1): _OUT_IN,
    ("ConvInteger", 1): _OUT_IN,
    ("QLinearConv", 3): _OUT_IN,
    ("ConvTranspose", 1): _IN_OUT,
    ("Gemm", 1): _IN_OUT,
    ("FusedGemm", 1): _IN_OUT,
    ("QGemm", 3): _IN_OUT,
    ("Gather", 0): ("rows", "out"),
}
#: What its last two axes are. A recurrent layer has the rows of all its gates on one of them.
_LAST = {
    ("MatMul", 0): _OUT_IN,
    ("MatMul", 1): _IN_OUT,
    ("FusedMatMul", 1): _IN_OUT,
    ("MatMulInteger", 1): _IN_OUT,
    ("MatMulIntegerToFloat", 1): _IN_OUT,
    ("QLinearMatMul", 3): _IN_OUT,
    **{(name, index): _OUT_IN for name in ("LSTM", "GRU", "RNN") for index in (1, 2)},
}


@dataclass(frozen=True)
class Member:
    """An axis of a stored tensor that a group's atoms occur on.

    Attributes:
        tensor: Name of the initializer or Constant output.
        axis: The axis.
        size: Length of the axis.
        repeats: Indices of the axis that go with each atom.
        step: Distance of the first two of them; 0 for a single one.
        role: "out", "in", or "axis 0".
    """

    tensor: str
    axis: int
    size: int
    repeats: int
    step: int
    role: str

    def __str__(self) -> str:
        return f"{self.tensor} {self.role}" if self.role else self.tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Atoms that occur in the same way on the same axes: channels, neurons, heads.

    Each atom can be removed by itself; it takes its index (or indices) of every member along.
    """

    atoms: Labels
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @property
    def title(self) -> str:
        """The axes of weights that go together, at most four of them."""
        known = [member for member in self.members if member.role in ("out", "in")]
        weights = known or [member for member in self.members if member.role] or list(self.members)
        shown = [str(member) for member in weights[:4]] + ["..."] * (len(weights) > 4)
        return " = ".join(shown)

    def __str__(self) -> str:
        tensors = len({member.tensor for member in self.members})
        return f"{self.title}, {self.size} channels, {tensors} tensors"


@dataclass(frozen=True)
class Obstacle:
    """A barrier: why some indices of an axis of a weight are never removed."""

    tensor: str
    axis: int
    role: str
    count: int
    cause: Cause

    def __str__(self) -> str:
        where = f"'{self.cause.node}' ({self.cause.operator})"
        return f"{self.tensor} {self.role}: {self.count} stay, {where} {self.cause.reason}"


def find_groups(coupling: Coupling) -> list[Group]:
    """All groups of removable atoms of a model, in the order of their first tensors."""
    roles = _roles(coupling)
    members: list[Member] = []
    atoms_of: list[Labels] = []
    known: dict[bytes, list[tuple[Labels, int, int]]] = {}
    for name, axes in coupling.constants.items():
        for axis, labels in enumerate(axes):
            key = coupling.atoms.resolve(labels).tobytes()
            if key not in known:
                known[key] = _patterns(coupling, labels)
            for atoms, repeats, step in known[key]:
                role = roles.get((name, axis), "" if len(axes) == 1 else f"axis {axis}")
                members.append(Member(name, axis, len(labels), repeats, step, role))
                atoms_of.append(atoms)
    if not members:
        return []
    return [Group(atoms, tuple(members[i] for i in found)) for atoms, found in _alike(atoms_of)]


def find_barriers(coupling: Coupling) -> list[Obstacle]:
    """What keeps the outputs and inputs of weights, where something does."""
    roles = _roles(coupling)
    found = []
    for name, axes in coupling.constants.items():
        for axis, labels in enumerate(axes):
            role = roles.get((name, axis))
            if role is None:
                continue
            numbers, counts = np.unique(coupling.atoms.causes(labels), return_counts=True)
            found += [
                Obstacle(name, axis, role, int(count), coupling.causes[number])
                for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
                if number
            ]
    return found


def why_no_groups(coupling: Coupling) -> str:
    """Why nothing can be removed, where no barrier says it: no weight has channels of its own."""
    nodes = [site.node for site in coupling.sites if site is not None]
    if any(a.HasField("g") or a.graphs for node in nodes for a in node.attribute):
        return "layers lie in the bodies of If, Loop or Scan, which stay as they are"
    return "no layer has stored weights with several channels"


def _patterns(coupling: Coupling, labels: Labels) -> list[tuple[Labels, int, int]]:
    """The atoms of an axis by how they occur on it: how often, and how far apart."""
    atoms, positions = coupling.atoms.occurrences(labels)
    if not len(atoms):
        return []
    unique, start, counts = np.unique(atoms, return_index=True, return_counts=True)
    second = np.minimum(start + 1, len(positions) - 1)
    steps = np.where(counts > 1, positions[second] - positions[start], 0)
    keys, which = np.unique(np.stack([counts, steps]), axis=1, return_inverse=True)
    which = which.reshape(-1)
    return [
        (unique[which == i], int(count), int(step))
        for i, (count, step) in enumerate(keys.T.tolist())
    ]


def _alike(atoms_of: list[Labels]) -> list[tuple[Labels, list[int]]]:
    """Atoms with the same members, and the numbers of these members."""
    every = np.concatenate(atoms_of)
    random = np.random.default_rng(0).integers(1, 2**63, len(atoms_of), dtype=np.uint64)
    unique, where = np.unique(every, return_inverse=True)
    signature = np.zeros(len(unique), np.uint64)
    lengths = [len(atoms) for atoms in atoms_of]
    np.add.at(signature, where.reshape(-1), np.repeat(random, lengths))
    order = np.argsort(signature, kind="stable")
    keys, starts = np.unique(signature[order], return_index=True)
    parts = np.split(unique[order], starts[1:])
    members: dict[int, list[int]] = defaultdict(list)
    for number, atoms in enumerate(atoms_of):
        for key in np.unique(signature[np.searchsorted(unique, atoms)]).tolist():
            members[key].append(number)
    return [(parts[np.searchsorted(keys, key)], found) for key, found in members.items()]


def _roles(coupling: Coupling) -> dict[tuple[str, int], str]:
    """What the axes of matrices are to the first node that reads them as a weight."""
    found: dict[tuple[str, int], str] = {}
    stored = coupling.constants
    for site in coupling.sites:
        if site is None:
            continue
        for index, name in enumerate(site.node.input):
            key = (site.node.op_type, index)
            names = _FIRST.get(key) or _LAST.get(key)
            if names is None or name not in stored or len(stored[name]) < 2:
                continue
            names = names[::-1] if _transposed(site.node) else names
            first = len(stored[name]) - 2 if key in _LAST else 0
            for axis, role in enumerate(names, first):
                found.setdefault((name, axis), role)
    return found


def _transposed(node: NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def indices(coupling: Coupling, member: Member, atoms: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Which indices of a member's axis go when these atoms go (importance is summed over them)."""
    labels = coupling.axes[member.tensor][member.axis]
    return coupling.atoms.marks(atoms)[coupling.atoms.resolve(labels)]
