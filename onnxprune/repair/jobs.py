"""What is to be repaired, in which order, and which rows of its data count."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.index import ModelIndex
from ..graph.layer import Layer
from ..model.model import Model
from .levels import node_levels
from .sites import Site, SiteFinder
from .unfold import MatrixUnfolding

__all__ = ["Job", "Jobs", "find_jobs", "in_parts", "picked"]

#: Rows that a fit sees: at least this many, and this many for each input, where there are so many.
ROWS, ROWS_PER_INPUT = 16_384, 12
#: Layers with more inputs than this keep rows instead of a Gram matrix, of so many numbers.
WIDE, WIDE_NUMBERS = 6144, 2**26


@dataclass(frozen=True, eq=False)
class Job:
    """One layer that can be repaired.

    Attributes:
        layer: The layer.
        sites: Its uses; the linear map is the same in all of them.
        level: How many repairable layers lie before its first use, itself included.
    """

    layer: Layer
    sites: tuple[Site, ...]
    level: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, outputs and inputs of the linear map."""
        groups, outputs, inputs = self.sites[0].positions.shape
        return groups, outputs, inputs

    @property
    def rows(self) -> int:
        """Most rows that a fit needs, or, of a wide layer, that fit into memory."""
        inputs = self.shape[2]
        wanted = max(ROWS, ROWS_PER_INPUT * inputs)
        return min(wanted, WIDE_NUMBERS // inputs) if self.wide else wanted

    @property
    def wide(self) -> bool:
        """Whether a Gram matrix of its inputs would be too large: it is fitted on its rows."""
        return self.shape[2] > WIDE

    @property
    def intercept(self) -> bool:
        """Whether the bias can change too."""
        return self.sites[0].bias is not None


@dataclass(frozen=True, eq=False)
class Jobs:
    """All layers of a model: what can be repaired, and why the rest cannot.

    Attributes:
        index: The model's index.
        jobs: Layers that can be repaired, by level.
        reasons: Why a layer is none of them, by its name.
        levels: Level of every node, by its position in the main graph.
        stackable: Whether runs can be joined along the first axis of data and outputs.
    """

    index: ModelIndex
    jobs: tuple[Job, ...]
    reasons: dict[str, str]
    levels: dict[int, int]
    stackable: bool

    def with_vectors(self, vectors: Container[str], *, fed: bool) -> Jobs:
        """The jobs of a model in which some data are single vectors: runs of it are not joined.

        Args:
            vectors: Names of the values.
            fed: The model is fed vectors as well: their only axis is taken for that of samples,
                which it is not here. Nor do stacks of matrices fit, whose outputs lack an axis.
        """
        found = [(j, s) for j in self.jobs for s in j.sites if s.data.name in vectors]
        gone = {job.layer.name for job, site in found if fed or _stacked(site)}
        left = tuple(job for job in self.jobs if job.layer.name not in gone)
        reason = "it multiplies single vectors, which have no axis of samples"
        reasons = self.reasons | dict.fromkeys(gone, reason)
        return replace(self, jobs=left, reasons=reasons, stackable=self.stackable and not found)

    def runs(self, most: int) -> Iterator[tuple[Job, ...]]:
        """Jobs that can share a run: of one level, and together within `most` Gram numbers."""
        for level in sorted({job.level for job in self.jobs}):
            same = [job for job in self.jobs if job.level == level]
            sizes = [WIDE_NUMBERS if job.wide else job.shape[0] * job.shape[2] ** 2 for job in same]
            yield from in_parts(same, sizes, most)


def _stacked(site: Site) -> bool:
    """Whether the weights are a stack of matrices."""
    return isinstance(site.unfolding, MatrixUnfolding) and bool(site.unfolding.batch)


def in_parts(jobs: Sequence[Job], sizes: Sequence[int], most: int) -> Iterator[tuple[Job, ...]]:
    """Consecutive jobs, as many at a time as stay within `most` together (one at least)."""
    part: list[Job] = []
    total = 0
    for job, size in zip(jobs, sizes, strict=True):
        if part and total + size > most:
            yield tuple(part)
            part, total = [], 0
        part.append(job)
        total += size
    if part:
        yield tuple(part)


def find_jobs(model: Model, layers: Sequence[Layer]) -> Jobs:
    """Which of these layers can be repaired; the model is only read."""
    finder = SiteFinder(model)
    found: dict[str, tuple[Layer, tuple[Site, ...]]] = {}
    reasons: dict[str, str] = {}
    for layer in layers:
        sites = finder.sites(layer)
        if isinstance(sites, str):
            reasons[layer.name] = sites
        else:
            found[layer.name] = layer, sites
    marked = {site.node.index: None for _, sites in found.values() for site in sites}
    levels = node_levels(finder.index, marked)
    jobs = [
        Job(layer, sites, min(levels[site.node.index] for site in sites))
        for layer, sites in found.values()
    ]
    jobs.sort(key=lambda job: job.level)
    stackable = all(site.unfolding.stackable for job in jobs for site in job.sites)
    return Jobs(finder.index, tuple(jobs), reasons, levels, stackable)


def picked(site: Site, y: np.ndarray, rows: int, share: float, seed: tuple[int, int]) -> np.ndarray:
    """Positions of one batch that count, spread evenly over all batches.

    Args:
        site: Whose output `y` is.
        y: The output; only its shape counts.
        rows: Rows wanted over all batches.
        share: The batch's share of all samples.
        seed: Says which positions; the same ones for the same seed.
    """
    positions, each = site.unfolding.positions(y)
    wanted = min(positions, max(1, round(rows * share / each)))
    if wanted == positions:
        return np.arange(positions)
    random = np.random.default_rng(seed)
    return np.sort(random.choice(positions, wanted, replace=False))
