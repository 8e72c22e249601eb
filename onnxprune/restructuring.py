"""What happens to the graph itself around the pruning of weights: channels that are chosen go
before it, neurons that it leaves dead after it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from .calibrated import Calibrated
from .errors import ModelError
from .likeness import outputs_differ
from .model.inlining import inlined
from .model.model import Model
from .model.save import to_proto
from .model.tensors import TensorAddress
from .pruning.plan import Progress
from .report.report import CheckResult
from .report.structure import ChannelRow, DeadRow, Structure
from .runtime import CannotRun
from .structure.config import BLOCK, ChannelConfig, StructureConfig
from .structure.dead import Shrunk, shrink
from .structure.macs import count_work
from .structure.places import moved
from .structure.reduce import Reduced, reduce_channels

__all__ = [
    "LARGEST",
    "Shape",
    "joined",
    "left_in_pattern",
    "request_text",
    "with_operations",
    "without_channels",
    "without_dead",
]

#: Bytes of the largest model in which dead neurons are looked for unasked: it takes several times
#: as much memory.
LARGEST = 512 * 2**20
#: The same where weights are this many times the file: that few of them are left, or never were.
LARGEST_SPARSE, TIMES = 64 * 2**20, 100
#: The same of graphs of more nodes: it takes some 200 microseconds and several kilobytes a node.
MOST_NODES = 200_000


@dataclass(frozen=True)
class Shape:
    """A model whose graph may have changed.

    Attributes:
        model: The model.
        facts: What went; None where nothing was looked at.
        places: Address in it of every tensor that was asked about.
        checks: What was compared.
        warnings: What a user should know.
    """

    model: Model
    facts: Structure | None
    places: Mapping[TensorAddress, TensorAddress]
    checks: tuple[CheckResult, ...] = ()
    warnings: tuple[str, ...] = ()


def without_channels(
    source: Model,
    config: ChannelConfig,
    layers: Iterable[TensorAddress],
    calibrated: Calibrated | None,
    progress: Progress | None,
    *,
    keep: Collection[TensorAddress] = (),
) -> Shape:
    """Remove channels from a model, and refit what is left where there are samples.

    Args:
        source: The model; it stays as it is.
        config: How many and which.
        layers: Tensors whose new places are wanted.
        calibrated: Calibration samples.
        progress: Told about the work.
        keep: Layers that are left alone.

    Raises:
        ModelError: The model is over 2 GB, does not run where that is needed, or its functions
            hold layers.
        UsageError: The target cannot be reached.
    """
    samples = None if calibrated is None else calibrated.samples
    refit = calibrated is not None and calibrated.settings.repair != "none"
    names = {address.name for address in keep if not address.scope}
    try:
        reduced = reduce_channels(
            source, config, samples, refit=refit, keep=names, progress=progress
        )
    except CannotRun as error:
        raise ModelError(f"channels cannot be chosen by running the model: {error}") from error
    places = moved(source.proto, reduced.model, layers)
    if places is None:
        raise ModelError(
            "channels cannot be removed: layers lie in model-local functions; inline these first"
            " (onnx.inliner.inline_local_functions)"
        )
    facts = _of_channels(config, reduced, samples.count if samples is not None and refit else 0)
    return Shape(reduced.model, facts, places, warnings=reduced.warnings)


def without_dead(
    model: Model,
    layers: Iterable[TensorAddress],
    config: StructureConfig,
    *,
    check: bool,
    progress: Progress | None,
) -> Shape:
    """Remove the neurons and channels that pruning left dead, unless outputs would change.

    Args:
        model: The pruned model; it stays as it is.
        layers: Tensors whose new places are wanted.
        config: Whether to.
        check: Whether outputs are compared; where they cannot be, nothing goes.
        progress: Told about the work.
    """
    layers = tuple(layers)
    stay = Shape(model, None, dict(zip(layers, layers, strict=True)))
    if config.shrink is False:
        return stay
    if config.shrink is None and (reason := _too_large(model)):
        return _kept(stay, f"not looked for in {reason}; --shrink looks for them")
    try:
        done = shrink(model, align=config.align or BLOCK, progress=progress)
    except Exception as error:
        if config.shrink:
            raise
        # Pruning has worked: what nobody asked for must not be what fails.
        return _kept(stay, f"not looked for: {type(error).__name__}: {error}", warn=True)
    if done.reason:
        return _kept(stay, done.reason)
    places = moved(model.proto, done.model, layers)
    if places is None:
        return _kept(stay, "dead channels stay: model-local functions hold layers")
    found = Shape(done.model, _of_dead(done), places)
    return _checked(stay, found) if check else found


def _too_large(model: Model) -> str:
    """Of what kind a model is whose dead channels nobody is to look for unasked; else nothing.

    The search holds several dense copies of the weights.
    """
    size = _size(model)
    if size > LARGEST:
        return "a model of over 512 MB"
    if size > LARGEST_SPARSE and size > TIMES * (model.origin.file_bytes or size):
        return f"a model whose dense weights take over {TIMES} times its file"
    if len(model.proto.graph.node) > MOST_NODES:
        return f"a graph of over {MOST_NODES:,} nodes"
    return ""


def left_in_pattern(model: Model, layers: Iterable[TensorAddress], pattern: str) -> Shape:
    """A pruned model whose zeros follow a pattern, which dead neurons are a part of."""
    stay = Shape(model, None, {address: address for address in layers})
    return _kept(stay, f"dead channels stay: without them, zeros would leave the pattern {pattern}")


def _kept(stay: Shape, reason: str, *, warn: bool = False) -> Shape:
    """The model as it is, and why."""
    facts = replace(NOTHING, reason=reason)
    return replace(stay, facts=facts, warnings=(f"dead channels: {reason}",) if warn else ())


def _checked(stay: Shape, found: Shape) -> Shape:
    """The smaller model where its outputs are those of the larger one; else that."""
    try:
        worst = outputs_differ(stay.model, found.model)
    except CannotRun as error:
        return _kept(stay, f"dead channels stay, as nothing can compare outputs: {error}")
    if worst is None:
        return _kept(stay, "dead channels stay: without them, outputs would differ", warn=True)
    detail = f"outputs are those with them on random inputs, to {worst:.0e}"
    return replace(found, checks=(CheckResult("dead channels", "passed", detail),))


def joined(first: Structure | None, second: Structure | None) -> Structure | None:
    """What both stages did."""
    if first is None or second is None:
        return first or second
    return replace(
        second,
        request=first.request,
        channels=first.channels,
        channels_found=first.channels_found,
        refitted=first.refitted,
    )


def with_operations(facts: Structure, source: Model, model: Model) -> Structure:
    """The same with the multiplications of both models, where anything went."""
    if not facts.changed:
        return facts
    before, after = (count_work(inlined(to_proto(m))) for m in (source, model))
    unknown = max(len(before.unknown), len(after.unknown))
    if len(before.unknown) != len(after.unknown):  # the sums are not of the same nodes
        return replace(facts, macs_unknown=unknown)
    return replace(facts, macs_before=before.macs, macs_after=after.macs, macs_unknown=unknown)


def request_text(config: ChannelConfig) -> str:
    """What was asked for, in the words of the flags."""
    if config.channels is not None:
        return f"channels {config.channels:g}"
    return f"macs {config.macs:g}" if config.macs is not None else f"speedup {config.speedup:g}"


def _of_channels(config: ChannelConfig, reduced: Reduced, samples: int) -> Structure:
    rows = tuple(
        ChannelRow(row.name, row.before, row.after, row.tensors)
        for row in reduced.rows
        if row.after < row.before
    )
    return replace(
        NOTHING,
        request=request_text(config),
        channels=rows,
        channels_found=sum(row.before for row in reduced.rows),
        refitted=samples if rows else 0,
    )


def _of_dead(done: Shrunk) -> Structure:
    rows = tuple(
        DeadRow(row.group, row.size, row.kept, row.unread, row.constant, row.merged, row.left)
        for row in done.rows
    )
    return replace(NOTHING, dead=rows, biases=done.absorbed.existing, new_biases=done.absorbed.made)


def _size(model: Model) -> int:
    return sum(payload.nbytes for payload in model.payloads.values())


#: What happened to a graph that nothing has been done to.
NOTHING = Structure("", (), (), (), (), "")
