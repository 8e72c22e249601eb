"""Removing channels from a model: the function that both doors go through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..data.source import BatchSource
from ..errors import ModelError, OutputError
from ..model.model import Model
from ..model.save import to_proto
from ..model.sources import read
from .analysis import analyse
from .choice import Choice, Chooser
from .config import ChannelConfig
from .groups import Group, find_groups
from .importance import magnitudes
from .macs import Work, WorkCounter, count_parameters
from .removal import remove_coupled

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
    """

    model: Model
    rows: tuple[GroupRow, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    warnings: tuple[str, ...]


def reduce_channels(
    model: Model,
    config: ChannelConfig,
    data: BatchSource | None = None,
    *,
    samples: int = 512,
    progress: Progress | None = None,
) -> Reduced:
    """Remove channels, neurons, heads and dimensions of heads from a model's graph.

    Args:
        model: The model; it stays as it is.
        config: How many and which.
        data: Calibration data; labels are not used. With it, importance can look at activations,
            and the weights that read the kept channels are refitted.
        samples: Most samples that are taken of it.
        progress: Told of the work: stage, done, total.

    Raises:
        ModelError: The model is over 2 GB.
        UsageError: The importance needs calibration data that is not there.
        DataError: The data does not fit the model.
        CannotRun: onnxruntime does not run the model where that is needed.
    """
    try:
        proto = to_proto(model)
    except OutputError as error:
        raise ModelError(f"channels cannot be removed: {error}") from error
    coupling = analyse(proto)
    groups, counter = find_groups(coupling), WorkCounter(coupling)
    chooser = Chooser(
        coupling, groups, magnitudes(coupling, groups), scope=config.scope, align=config.align
    )
    choice = chooser.without_holes(chooser.at_share(config.channels or 0.0))
    smaller, result = proto, model
    if choice.atoms:
        smaller = remove_coupled(proto, coupling, choice.atoms)
        result = replace(read(smaller), origin=model.origin)
    before, after = counter.without(()), counter.without(choice.atoms)
    return Reduced(
        result,
        _rows(groups, choice),
        (count_parameters(proto), count_parameters(smaller)),
        (before.macs, after.macs),
        _warnings(before),
    )


def _warnings(work: Work) -> tuple[str, ...]:
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
