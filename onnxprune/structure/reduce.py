"""Removing channels from a model: the function that both doors go through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from ..data.source import BatchSource
from ..errors import ModelError, OutputError, UsageError
from ..model.model import Model
from ..model.save import to_proto
from ..model.sources import read
from ..repair.repair import SAMPLES, single_threaded_algebra
from ..repair.samples import Samples
from .analysis import analyse
from .choice import Choice, Chooser
from .config import ChannelConfig
from .groups import Group, find_barriers, find_groups, why_no_groups
from .importance import Scores, magnitudes
from .lanes import lay_out
from .latency import Race, Speed
from .macs import Work, WorkCounter, count_parameters
from .reconstruct import Reconstructor
from .relevance import relevances
from .removal import remove_coupled
from .targets import Found, meet_macs, meet_speedup

__all__ = ["GroupRow", "Reduced", "reduce_channels"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class GroupRow:
    """What happened to one coupled group.

    Attributes:
        name: The axes of weights that it couples, in words: ``conv1 out = conv2 in``.
        before: Number of channels (neurons, heads, dimensions of a head) that could go one by one.
        after: Number of them that are left.
        tensors: Number of tensors that lose something with each.
    """

    name: str
    before: int
    after: int
    tensors: int


@dataclass(frozen=True)
class Reduced:
    """A model without the channels that were chosen.

    Attributes:
        model: The smaller model; the one that was given where nothing went.
        rows: What happened to each group, in the order of their first tensors.
        parameters: Number of weights before and after.
        macs: Multiplications, each with its addition, before and after: of one sample, open axes at
            their least size; see `macs.Work`.
        warnings: What a user should know.
        speed: Seconds of a run before and after; None unless a speedup was asked for.
    """

    model: Model
    rows: tuple[GroupRow, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    warnings: tuple[str, ...]
    speed: Speed | None = None


def reduce_channels(
    model: Model,
    config: ChannelConfig,
    data: BatchSource | Samples | None = None,
    *,
    samples: int = SAMPLES,
    refit: bool = True,
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> Reduced:
    """Remove channels, neurons, heads and dimensions of heads from a model's graph.

    Args:
        model: The model; it stays as it is.
        config: How many and which.
        data: Calibration data; labels are not used. With it, importance can look at activations,
            and the weights that read the kept channels can be refitted.
        samples: Most samples that are taken of it.
        refit: Whether kept weights are refitted where there is data.
        keep: Weights of the main graph that stay as they are, and with them all that would have to
            go along.
        progress: Told of the work: stage, done, total.

    Raises:
        ModelError: The model is over 2 GB.
        UsageError: The importance needs calibration data that is not there, or a target cannot be
            reached.
        DataError: The data does not fit the model.
        CannotRun: onnxruntime does not run the model where that is needed.
    """
    try:
        proto = to_proto(model)
    except OutputError as error:
        raise ModelError(f"channels cannot be removed: {error}") from error
    if config.importance == "activation" and data is None:
        raise UsageError("importance by activation needs calibration data: give some, or take l2")
    return _Reduction(proto, config, data, samples, refit, keep, progress).reduced(model)


class _Reduction:
    """One call of `reduce_channels`."""

    def __init__(
        self,
        proto: ModelProto,
        config: ChannelConfig,
        data: BatchSource | Samples | None,
        samples: int,
        refit: bool,
        keep: Collection[str],
        progress: Progress | None,
    ) -> None:
        self._proto = proto
        self._config = config
        self._refit = refit
        self._progress = progress
        self._coupling = coupling = analyse(proto)
        whole, copies = find_groups(coupling), coupling.prepared.copies
        self._groups = [
            group
            for group in whole
            if all(copies.get(m.tensor, m.tensor) not in keep for m in group.members)
        ]
        self._held = len(whole) > len(self._groups)
        self._counter = WorkCounter(coupling)
        self._repair = None
        if data is not None:
            self._repair = Reconstructor(coupling, data, samples, keep)
        self._chooser = Chooser(
            coupling, self._groups, self._scores(), scope=config.scope, align=config.align
        )

    def reduced(self, model: Model) -> Reduced:
        found = self._found()
        choice = self._chooser.without_holes(found.choice)
        before, after = self._counter.without(()), self._counter.without(choice.atoms)
        warnings = [*_uncounted(before), *(self._repair.warnings if self._repair else ())]
        smaller = self._proto
        if choice.atoms:
            smaller = self._without(choice, repaired=True)
            model = replace(read(smaller), origin=model.origin)
        else:
            warnings.append(self._nothing())
        return Reduced(
            model,
            _rows(self._groups, choice),
            (count_parameters(self._proto), count_parameters(smaller)),
            (before.macs, after.macs),
            tuple(warnings),
            found.speed,
        )

    def _scores(self) -> list[Scores]:
        """Importance of the atoms of each group, for what it saves to remove them."""
        if self._repair is None or self._config.importance == "l2":
            return magnitudes(self._coupling, self._groups)
        with single_threaded_algebra():
            scores = relevances(self._repair, self._groups, self._progress)
        savings = np.array(self._counter.savings(self._groups))
        if self._config.channels is not None:
            # A share of channels is wanted, and speed for it: both count alike.
            savings = np.sqrt(savings * lay_out(self._coupling, self._groups).channels())
        return [each / saved for each, saved in zip(scores, savings, strict=True)]

    def _found(self) -> Found:
        config = self._config
        if config.channels is not None:
            return Found(self._chooser.at_share(config.channels))
        if not self._groups:
            raise UsageError(self._nothing())
        if config.macs is not None:
            return meet_macs(self._chooser, self._counter, config.macs)
        assert config.speedup is not None  # the configuration has exactly one of them
        feeds = self._repair.one_run() if self._repair else None
        return meet_speedup(
            self._chooser,
            self._counter,
            config.speedup,
            Race(self._proto, config.threads, feeds),
            self._without,
            self._progress,
        )

    def _without(self, choice: Choice, repaired: bool = False) -> ModelProto:
        coupling = self._coupling
        if repaired and self._refit and self._repair:
            coupling = self._repair.refitted(choice.atoms, self._progress)
        return remove_coupled(self._proto, coupling, choice.atoms)

    def _nothing(self) -> str:
        """Why no channel goes."""
        if self._groups:
            return "no channel goes: what is asked for is less than the least step of any axis"
        if self._held:
            return "no channel can be removed: layers that are left alone hold all that could be"
        reasons = Counter(
            f"'{barrier.cause.node}' ({barrier.cause.operator}) {barrier.cause.reason}"
            for barrier in find_barriers(self._coupling)
            if barrier.role == "out"
        )
        shown = "; ".join(reason for reason, _ in reasons.most_common(3))
        return f"no channel can be removed: {shown or why_no_groups(self._coupling)}"


def _uncounted(work: Work) -> tuple[str, ...]:
    if not work.unknown:
        return ()
    shown = ", ".join(f"'{name}'" for name in work.unknown[:3])
    more = ", ..." if len(work.unknown) > 3 else ""
    return (
        f"the operations of {len(work.unknown)} node{'s'[: len(work.unknown) > 1]} are not counted,"
        f" as shapes are not known or graphs are inside: {shown}{more}",
    )


def _rows(groups: list[Group], choice: Choice) -> tuple[GroupRow, ...]:
    return tuple(
        GroupRow(group.title, group.size, count, len({m.tensor for m in group.members}))
        for group, count in zip(groups, choice.counts, strict=True)
    )
