"""What the unpruned model computes where a repair looks; as much of it is kept as fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..model.model import Model
from .jobs import Job, in_parts, picked
from .samples import Samples, check_values
from .sites import Site
from .taps import Taps

__all__ = ["Observed", "Targets", "observed"]

#: Numbers of pre-activations that are kept at a time.
KEPT = 2**27


@dataclass(frozen=True, eq=False)
class Observed:
    """One use of a layer in one batch.

    Attributes:
        site: The use.
        key: Which batch and which use: positions and targets belong to it.
        picks: Positions that count.
        x: The data that the weights multiply.
        y: The pre-activation; where it was not looked at, something of its shape.
    """

    site: Site
    key: tuple[int, int]
    picks: np.ndarray
    x: np.ndarray
    y: np.ndarray


def observed(
    model: Model, jobs: Sequence[Job], samples: Samples, *, stack: bool, inputs: bool = True
) -> Iterator[tuple[Job, Observed]]:
    """Every use of these layers in every batch that a model runs.

    Args:
        model: The model that runs.
        jobs: The layers.
        samples: What it is fed.
        stack: See `Taps`.
        inputs: Whether the data are needed; otherwise `x` is `y`.

    Raises:
        DataError: A layer gives NaN or infinity.
    """
    sites = [(job, site) for job in jobs for site in job.sites]
    names = [site.output.name for _, site in sites]
    if inputs:
        names += [site.data.name for _, site in sites]
    taps = Taps(model, names, stack=stack, known=samples.batches[0])
    number = 0
    for feeds, size in zip(samples.batches, samples.sizes, strict=True):
        parts = list(taps.batches(feeds))
        for values in parts:
            for job, site in sites:
                y = values[site.output.name]
                check_values(y, f"layer '{job.layer.name}'")
                key = number, site.node.index
                share = size / len(parts) / samples.count
                picks = picked(site, y, job.rows, share, key)
                yield job, Observed(site, key, picks, values[site.data.name] if inputs else y, y)
            number += 1


@dataclass(eq=False)
class Targets:
    """Pre-activations of the unpruned model at the positions that count.

    One run of it gives those of many layers: as many as fit into memory, in the order in which
    they are asked for.
    """

    model: Model
    jobs: Sequence[Job]
    samples: Samples
    stack: bool
    _kept: dict[tuple[int, int], _Kept] = field(default_factory=dict)
    _of: tuple[Job, ...] = ()
    _rows: dict[Job, int] = field(default_factory=dict)

    def need(self, jobs: Sequence[Job]) -> None:
        """Make sure that the targets of these layers are there."""
        if all(job in self._of for job in jobs):
            return
        parts = list(
            in_parts(self.jobs, [job.rows * job.shape[1] * job.shape[0] for job in self.jobs], KEPT)
        )
        self._kept.clear()
        self._rows.clear()
        self._of = tuple(
            dict.fromkeys(job for part in parts if any(j in part for j in jobs) for job in part)
        )
        for job, seen in observed(
            self.model, self._of, self.samples, stack=self.stack, inputs=False
        ):
            found = seen.site.unfolding.targets(seen.y, seen.picks)
            self._kept[seen.key] = _Kept(found, seen.picks, seen.y.shape)
            self._rows[job] = self._rows.get(job, 0) + found.shape[1]

    @property
    def whole(self) -> bool:
        """Whether the model ran every batch in one part."""
        return {number for number, _ in self._kept} == set(range(len(self.samples.batches)))

    def rows(self, job: Job) -> int:
        """How many rows of a layer there are, over all batches and uses."""
        return self._rows[job]

    def of(self, seen: Observed) -> np.ndarray:
        """Targets [groups, rows, outputs] for what the pruned model does at the same place."""
        return self._kept[seen.key].values

    def placed(self, site: Site, key: tuple[int, int], x: np.ndarray) -> Observed:
        """What a run of a pruned model would show of one use, but for its outputs."""
        kept = self._kept[key]
        return Observed(site, key, kept.picks, x, np.broadcast_to(np.float32(0), kept.shape))


@dataclass(frozen=True, eq=False)
class _Kept:
    """Targets of one use in one batch, where they lie, and the shape of what they are part of."""

    values: np.ndarray
    picks: np.ndarray
    shape: tuple[int, ...]
