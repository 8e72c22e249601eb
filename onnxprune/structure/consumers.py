"""What reads the channels of a group: layers, and the columns of their linear maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..repair.jobs import Job
from ..repair.repair import Repairer
from ..repair.targets import observed
from .analysis import Coupling
from .groups import Group, Member

__all__ = ["Consumer", "Inputs", "find_consumers", "inputs_of"]


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that sums over the channels of a group.

    Attributes:
        job: The layer.
        columns: Inputs of its linear map that go with each atom [atoms, inputs of one], the same
            in each of its groups.
    """

    job: Job
    columns: np.ndarray


@dataclass(frozen=True, eq=False)
class Inputs:
    """How the inputs of a layer vary, over positions and samples.

    Attributes:
        mean: Their means [groups, inputs].
        variance: Their variances [groups, inputs].
        covariance: [groups, inputs, inputs]; None for a layer with too many inputs for one.
    """

    mean: np.ndarray
    variance: np.ndarray
    covariance: np.ndarray | None


def find_consumers(
    coupling: Coupling, group: Group, jobs: Mapping[str, Job]
) -> tuple[Consumer, ...]:
    """The layers that sum over a group's channels.

    Args:
        coupling: The analysed model.
        group: The group.
        jobs: Layers that a repair can follow, by the name of their weights.
    """
    found = []
    for member in group.members:
        job = jobs.get(member.tensor)
        columns = None if job is None else _columns(coupling, group, member, job)
        if job is not None and columns is not None:
            found.append(Consumer(job, columns))
    return tuple(found)


def _columns(coupling: Coupling, group: Group, member: Member, job: Job) -> np.ndarray | None:
    """Inputs that go with each atom; None where the axis is none that the layer sums over."""
    positions, shape = job.sites[0].positions, job.layer.shape
    if (positions < 0).any():
        return None
    stride = int(np.prod(shape[member.axis + 1 :]))
    indices = (positions // stride) % shape[member.axis]
    if not (indices == indices[:1, :1]).all():
        return None
    atoms, places = coupling.atoms.occurrences(coupling.axes[member.tensor][member.axis])
    ours = np.isin(atoms, group.atoms)
    atoms, places = atoms[ours], places[ours]
    # Inputs by the index of the axis that they lie at, then by atom.
    order = np.argsort(indices[0, 0], kind="stable")
    of_index = order.reshape(shape[member.axis], -1)
    return of_index[places].reshape(group.size, -1)


def inputs_of(repairer: Repairer, jobs: Sequence[Job]) -> dict[Job, Inputs]:
    """How the inputs of these layers vary in the unpruned model."""
    sums = {job: _Sums(job) for job in jobs}
    for job, seen in observed(
        repairer.source, jobs, repairer.samples, stack=repairer.jobs.stackable
    ):
        sums[job].add(seen.site.unfolding.rows(seen.x, seen.y.shape, seen.picks))
    return {job: total.inputs() for job, total in sums.items()}


class _Sums:
    """Sums over rows, in float64."""

    def __init__(self, job: Job) -> None:
        groups, _, inputs = job.shape
        self.count = 0
        self.total = np.zeros((groups, inputs))
        self.squares = np.zeros((groups, inputs))
        self.products = None if job.wide else np.zeros((groups, inputs, inputs))

    def add(self, x: np.ndarray) -> None:
        """Count in rows [groups, rows, inputs]."""
        self.total += x.sum(axis=1, dtype=np.float64)
        self.count += x.shape[1]
        if self.products is None:
            self.squares += np.einsum("grk,grk->gk", x, x, dtype=np.float64)
        else:
            self.products += x.swapaxes(1, 2) @ x

    def inputs(self) -> Inputs:
        mean = self.total / max(self.count, 1)
        if self.products is None:
            variance = np.maximum(self.squares / max(self.count, 1) - mean**2, 0.0)
            return Inputs(mean, variance, None)
        covariance = self.products / max(self.count, 1) - mean[:, :, None] * mean[:, None, :]
        variance = np.maximum(np.einsum("gkk->gk", covariance), 0.0)
        return Inputs(mean, variance, covariance)
