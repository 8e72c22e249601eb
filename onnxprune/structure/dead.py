"""Dead neurons: what nobody reads, and what is the same whatever the inputs are, goes.

After pruning, a channel without outgoing weights can be removed, and so can one without incoming
weights once the constant that it holds is added to the biases of those that read it (Han et al.
2015, section 3.5). Outputs stay what they were, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper

from ..errors import OutputError
from ..model.model import Model
from ..model.save import to_proto
from ..model.sources import read
from .absorption import Absorber
from .analysis import Coupling, analyse
from .atoms import Labels
from .config import BLOCK
from .constants.known import Mask, wide
from .constants.trace import find_constants
from .contraction import Contraction, find_contractions
from .groups import Group, find_groups
from .liveness import Survey
from .merging import Merge, Merger
from .removal import remove_coupled
from .rounding import Rounding
from .sizes import constant_tensors

__all__ = ["Absorbed", "DeadRow", "Shrunk", "shrink", "shrink_once"]

#: Called with what is being done, how many steps are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DeadRow:
    """The dead channels of one coupled group.

    Attributes:
        group: The group in words: the weights whose axes get shorter.
        size: Its channels before.
        unread: Channels that went because no weight reads them.
        constant: Channels that went because they always hold the same value; where that is not
            zero, it was added to a bias.
        merged: Constant channels that became one with another one, as a bias could not hold them
            exactly (padding).
        left: Dead channels that stay, so that a convolution keeps a round number of channels.
    """

    group: str
    size: int
    unread: int
    constant: int
    merged: int
    left: int = 0

    @property
    def removed(self) -> int:
        """Channels that went."""
        return self.unread + self.constant + self.merged

    @property
    def kept(self) -> int:
        """Its channels after."""
        return self.size - self.removed


@dataclass(frozen=True)
class Absorbed:
    """Where the constants of dead channels went.

    Attributes:
        existing: Labels of the nodes whose bias took some up.
        made: Labels of those that were given a bias for it.
    """

    existing: tuple[str, ...] = ()
    made: tuple[str, ...] = ()

    def then(self, later: Absorbed) -> Absorbed:
        """These and those of a later step; a node that was given a bias has one then."""
        existing = dict.fromkeys((*self.existing, *later.existing))
        made = (*self.made, *later.made)
        return Absorbed(tuple(label for label in existing if label not in made), made)


@dataclass(frozen=True)
class Shrunk:
    """A model without its dead channels.

    Attributes:
        model: The smaller model; the very one that was given where nothing went.
        rows: What went, by group, in the order of the graph.
        absorbed: Where their constants went.
        left: Dead channels that stay, as convolutions want round numbers of them.
        reason: Why nothing went, as a sentence; empty where something did.
    """

    model: Model
    rows: tuple[DeadRow, ...] = ()
    absorbed: Absorbed = Absorbed()
    left: int = 0
    reason: str = ""

    @property
    def removed(self) -> int:
        """Channels that went."""
        return sum(row.removed for row in self.rows)


def shrink(model: Model, *, align: int = BLOCK, progress: Progress | None = None) -> Shrunk:
    """Remove all dead channels, neurons and heads of a model, until none is left.

    Exact up to rounding where activations are finite: a weight of zero is taken to make nothing
    even of an infinite one. The bodies of If, Loop and Scan and recurrent layers stay as they are.

    Args:
        model: The model; it stays as it is.
        align: Convolutions keep a multiple of this many channels, or all, as kernels want it; with
            1, no dead channel stays.
        progress: Told how far the work is.

    Returns:
        The smaller model, or the same one and the reason. Model-local functions are inlined in a
        smaller one, and shape arithmetic that never changes is folded.
    """
    try:
        proto = to_proto(model)
    except OutputError:
        return Shrunk(model, reason="not looked for: the model is over 2 GB")
    rows: list[DeadRow] = []
    absorbed = Absorbed()
    if progress is not None:
        progress("looking for dead channels", 0, 0)
    while True:
        found = shrink_once(proto, align)
        proto = found.proto
        rows += found.rows
        absorbed = absorbed.then(found.absorbed)
        if not found.rows:
            break
    left = sum(found.left.values())
    if not rows:
        return Shrunk(model, left=left, reason=_nothing_went(left))
    total = tuple(replace(row, left=found.left.get(row.group, 0)) for row in _by_group(rows))
    return Shrunk(replace(read(proto), origin=model.origin), total, absorbed, left)


def _by_group(rows: Sequence[DeadRow]) -> list[DeadRow]:
    """One row for each group, of all passes together."""
    found: dict[str, DeadRow] = {}
    for row in rows:
        first = found.setdefault(row.group, row)
        if first is not row:
            found[row.group] = replace(
                first,
                unread=first.unread + row.unread,
                constant=first.constant + row.constant,
                merged=first.merged + row.merged,
            )
    return list(found.values())


def _nothing_went(left: int) -> str:
    if not left:
        return "no neuron or channel is dead"
    return f"dead channels stay ({left:,}): convolutions want round numbers of channels"


@dataclass(frozen=True, eq=False)
class Step:
    """What one analysis found to be dead, removed.

    Attributes:
        proto: The smaller model.
        rows: What went.
        absorbed: Where constants went.
        left: Dead channels that stay, as convolutions want round numbers of them, by group.
    """

    proto: ModelProto
    rows: tuple[DeadRow, ...]
    absorbed: Absorbed
    left: Mapping[str, int]


def shrink_once(proto: ModelProto, align: int = 1) -> Step:
    """Remove the channels of a model that one analysis finds to be dead.

    Args:
        proto: A model with its weights inside; it stays as it is.
        align: As for `shrink`.
    """
    coupling = analyse(proto)
    contractions = find_contractions(coupling, find_constants(coupling))
    survey = Survey(coupling, contractions)
    groups = find_groups(coupling)
    survey.keep(_of_no_matrix(survey, groups))
    rounding, merger = Rounding(coupling, groups, contractions, align), Merger(contractions)
    survey.settle([Survey.emptied, rounding, merger])
    dead = survey.dead()
    stay = np.setdiff1d(sorted(rounding.kept), dead)
    left = {g.title: n for g in groups if (n := int(np.isin(g.atoms, stay).sum()))}
    if not len(dead):
        return Step(proto, (), Absorbed(), left)
    smaller = remove_coupled(proto, coupling, dead.tolist())
    absorbed = _absorb(smaller, coupling, contractions, survey.gone, merger.merges)
    kinds = _Kinds(dead, contractions, survey.gone, merger.merges)
    rows = tuple(row for row in map(kinds.row, groups) if row.removed)
    return Step(smaller, rows, absorbed, left)


def _of_no_matrix(survey: Survey, groups: Sequence[Group]) -> Labels:
    """Atoms that only vectors carry, or no stored tensor: they are no channels of any layer."""
    known = [group.atoms for group in groups if any(member.role for member in group.members)]
    return np.setdiff1d(survey.dead(), np.concatenate(known)) if known else survey.dead()


def _absorb(
    smaller: ModelProto,
    coupling: Coupling,
    contractions: Sequence[Contraction],
    gone: Mask,
    merges: Sequence[Merge],
) -> Absorbed:
    """Add what constants gave to the biases and weights of a model that they are cut out of."""
    absorber = Absorber(smaller, coupling.prepared.sizes.one.types)
    for contraction in contractions:
        going = gone[contraction.labels] & contraction.fold
        if not (going & contraction.reads(gone)).any():
            continue
        result = contraction.site.node.output[0]
        share = contraction.share(gone)
        absorber.add(result, _cut(share, coupling.kept(result, gone)))
    weights = constant_arrays(coupling, {m.contraction.site.node.input[1] for m in merges})
    for contraction in dict.fromkeys(merge.contraction for merge in merges):
        node = contraction.site.node
        mine = [merge for merge in merges if merge.contraction is contraction]
        change = _taken_over(weights[node.input[1]], mine)
        absorber.add_to_weight(node.output[0], _cut(change, coupling.kept(node.input[1], gone)))
    absorber.finish()
    return Absorbed(tuple(absorber.existing), tuple(absorber.made))


def constant_arrays(coupling: Coupling, names: set[str]) -> dict[str, np.ndarray]:
    """Stored tensors of the analysed model by name."""
    tensors = constant_tensors(coupling.prepared.proto.graph)
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors if name in names}


def _taken_over(weight: np.ndarray, merges: Sequence[Merge]) -> npt.NDArray[np.float64]:
    """What the weights of channels that stay take over from those that go, in the full shape."""
    values = wide(weight)
    axis = 0 if merges[0].contraction.site.node.op_type == "ConvTranspose" else 1
    source, change = np.moveaxis(values, axis, 0), np.zeros(values.shape)
    target = np.moveaxis(change, axis, 0)
    for merge in merges:
        factors = merge.factors.reshape(-1, *(1 for _ in values.shape[1:]))
        np.add.at(target, merge.kept, factors * source[merge.gone])
    return change


def _cut(array: npt.NDArray[np.float64], kept: Sequence[Mask]) -> npt.NDArray[np.float64]:
    """The indices that are kept of every axis, aligned at the last; axes of length one stay."""
    for axis in range(-array.ndim, 0):
        if array.shape[axis] > 1:
            array = np.compress(kept[axis], array, axis)
    return array


class _Kinds:
    """Why channels went."""

    def __init__(
        self,
        dead: Labels,
        contractions: Sequence[Contraction],
        gone: Mask,
        merges: Sequence[Merge],
    ) -> None:
        self._dead = dead
        self._read = np.zeros(len(gone), bool)
        for contraction in contractions:
            self._read[contraction.labels[contraction.reads(gone, values=False)]] = True
        joined = [merge.contraction.labels[merge.gone] for merge in merges]
        self._merged = np.unique(np.concatenate(joined)) if joined else np.zeros(0, np.int64)

    def row(self, group: Group) -> DeadRow:
        """What happened to a group."""
        mine = np.intersect1d(group.atoms, self._dead)
        merged = int(np.isin(mine, self._merged).sum())
        constant = int(self._read[mine].sum()) - merged
        unread = len(mine) - constant - merged
        return DeadRow(group.title, group.size, unread, constant, merged)
