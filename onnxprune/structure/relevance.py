"""How important channels are for what a model computes on calibration data.

Within a group, channels go in the order of `elimination`. Between groups, losses at the layers that
read them say little of what reaches the outputs: for each group alone, the change of the outputs is
measured after some of its channels have gone and their readers have been corrected. A channel's
importance is its share of that change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..repair.gains import BATCHES, OutputProbe
from ..repair.jobs import Job
from ..repair.writing import Edits, numbers
from .consumers import Consumer, Inputs, find_consumers, inputs_of
from .elimination import Elimination, Reader, eliminate
from .groups import Group
from .importance import Scores, magnitudes
from .reconstruct import Reconstructor

__all__ = ["relevances"]

Progress = Callable[[str, int, int], None]

#: Share of a group's channels that are gone where the change of the outputs is measured. Less says
#: little of much, and at more the change is that of a model which is broken already.
PROBED = 0.75
#: Numbers of covariances that are gathered in one run of the model.
NUMBERS = 2**26


def relevances(
    repair: Reconstructor, groups: Sequence[Group], progress: Progress | None = None
) -> list[Scores]:
    """The change of the outputs that the loss of each channel makes, group by group.

    Channels that no layer sums over (the dimensions of queries and keys, which are multiplied with
    each other) are ordered by the norms of their weights.

    Args:
        repair: The model and its samples.
        groups: Its groups.
        progress: Told of the groups done.

    Returns:
        Scores of each group's atoms: squared changes of the outputs over their squared deviation.

    Raises:
        CannotRun: onnxruntime does not run the model.
    """
    repairer = repair.repairer
    jobs = {job.layer.address.name: job for job in repairer.jobs.jobs}
    consumers = [find_consumers(repair.coupling, group, jobs) for group in groups]
    norms = magnitudes(repair.coupling, groups)
    probe = OutputProbe(repairer.source, repairer.samples, BATCHES)
    scores: list[Scores] = []
    for part in _parts(consumers):
        wanted = list(dict.fromkeys(c.job for number in part for c in consumers[number]))
        inputs = inputs_of(repairer, wanted)
        for number in part:
            found = _eliminated(repair, groups[number], consumers[number], inputs, norms[number])
            scores.append(_scaled(repair, groups[number], consumers[number], inputs, found, probe))
            if progress:
                progress("importance (groups)", len(scores), len(groups))
    return scores


def _parts(consumers: Sequence[Sequence[Consumer]]) -> Iterator[list[int]]:
    """Consecutive groups whose readers' covariances fit into memory together."""
    part: list[int] = []
    jobs: set[Job] = set()
    for number, found in enumerate(consumers):
        more = jobs.union(consumer.job for consumer in found)
        if part and sum(map(_numbers, more)) > NUMBERS:
            yield part
            part, more = [], {consumer.job for consumer in found}
        part.append(number)
        jobs = more
    if part:
        yield part


def _numbers(job: Job) -> int:
    groups, _, inputs = job.shape
    return groups * inputs * (1 if job.wide else inputs)


def _probed(size: int) -> int:
    """Number of channels that are gone where the outputs are looked at."""
    return min(max(1, round(PROBED * size)), size - 1) if size > 1 else 0


def _eliminated(
    repair: Reconstructor,
    group: Group,
    consumers: Sequence[Consumer],
    inputs: dict[Job, Inputs],
    norms: Scores,
) -> Elimination:
    if not consumers:
        return Elimination(np.argsort(norms, kind="stable"), norms, ())
    readers = []
    for consumer in consumers:
        site, address = consumer.job.sites[0], consumer.job.layer.address
        weights = numbers(repair.repairer.source, address)[site.positions].swapaxes(1, 2)
        known = inputs[consumer.job]
        readers.append(Reader(weights, known.variance, known.covariance, consumer.columns))
    return eliminate(group.size, readers, _probed(group.size))


def _scaled(
    repair: Reconstructor,
    group: Group,
    consumers: Sequence[Consumer],
    inputs: dict[Job, Inputs],
    found: Elimination,
    probe: OutputProbe,
) -> Scores:
    """Losses as shares of the measured change of the outputs."""
    gone = found.order[: _probed(group.size)]
    edits = Edits(repair.masked(group.atoms[gone].tolist()))
    for consumer, delta in zip(consumers, found.changes, strict=True):
        _correct(edits, consumer, delta, inputs[consumer.job])
    change = probe.distance(repair.repairer.working(edits.applied()))
    lost = float(found.losses[gone].sum())
    factor = 1.0 if probe.blind else change / lost if lost > 0 else 0.0
    scores = found.losses * factor
    # Never alike: the order is what the channels go in.
    scores[found.order] += np.finfo(np.float32).tiny * np.arange(group.size)
    return scores


def _correct(edits: Edits, consumer: Consumer, delta: np.ndarray, known: Inputs) -> None:
    """Change a reader's weights, and its bias by what its outputs' means would lose."""
    site, address = consumer.job.sites[0], consumer.job.layer.address
    edits.weights(site, address, factor=1.0, shift=delta)
    if site.bias is not None:
        shift = -np.einsum("gmk,gk->gm", delta, known.mean).reshape(-1)
        edits.bias(site, address, np.ones(len(shift)), shift)
