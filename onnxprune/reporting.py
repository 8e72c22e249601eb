"""From a run to its report: every fact taken from where it was decided or measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import TensorProto

from .graph.dropout import DropoutSite
from .graph.layer import Layer, LayerScan, Unprunable
from .model.carriers import Decision, Stored, readers, store
from .model.compressed import CompressedSize
from .model.dtypes import type_name
from .model.model import Model, element_count
from .model.tensors import walk_graphs
from .pruning.plan import LayerPlan
from .report.report import (
    CheckResult,
    DropoutRow,
    InspectReport,
    InspectRow,
    Latency,
    LayerRow,
    ModelFacts,
    Report,
    Sizes,
    UnprunableRow,
    tool_version,
)

if TYPE_CHECKING:
    from .pipeline import Pruned
    from .stages import LayerOutcome

__all__ = ["Writing", "inspection", "layer_operators", "model_name", "parameter_count", "summary"]

#: A target share of zeros that is missed by more than this is said.
MISSED = 0.01


@dataclass(frozen=True)
class Writing:
    """What came of storing a pruned model, in a file or (output None) only in numbers."""

    stored: Stored
    bytes: int
    gzip_input: CompressedSize
    gzip_output: CompressedSize
    seconds: float
    output: Path | None = None
    checks: tuple[CheckResult, ...] = ()
    latency: Latency | None = None
    notes: tuple[str, ...] = ()


def summary(pruned: Pruned, writing: Writing) -> Report:
    """The report of a pruning run."""
    config, shape = pruned.config, pruned.shape
    return Report(
        version=tool_version(),
        model=model_name(pruned.source),
        output=None if writing.output is None else str(writing.output),
        dry_run=writing.output is None,
        quality=config.quality,
        sparsity=config.sparsity,
        scope=config.scope,
        criterion=config.criterion,
        pattern=config.pattern,
        format=config.format,
        readers=readers(config.format),
        layers=_layer_rows(pruned, writing.stored),
        unprunable=tuple(map(_unprunable_row, pruned.scan.unprunable)),
        dropouts=tuple(_dropout_row(site, after) for site, after in pruned.dropouts),
        parameters=parameter_count(pruned.source),
        sizes=Sizes(
            file_input=pruned.source.origin.file_bytes,
            file_output=writing.bytes,
            gzip_input=writing.gzip_input.bytes,
            gzip_output=writing.gzip_output.bytes,
            gzip_estimated=writing.gzip_input.estimated or writing.gzip_output.estimated,
        ),
        seconds=pruned.seconds + writing.seconds,
        accuracy=pruned.accuracy,
        training=pruned.training,
        repair=pruned.repair,
        search=pruned.search,
        latency=writing.latency,
        structure=shape,
        parameters_output=parameter_count(pruned.model) if shape and shape.changed else None,
        checks=(*pruned.checks, *writing.checks),
        warnings=_warnings(pruned),
        notes=(*writing.stored.notes, *_pattern_notes(pruned, writing), *writing.notes),
    )


def _layer_rows(pruned: Pruned, stored: Stored) -> tuple[LayerRow, ...]:
    """A row for each layer; bytes before are those in the input where the graph has changed."""
    decisions = stored.decisions
    originals = (outcome.original.layer.address for outcome in pruned.outcomes)
    # A vector that several layers shared has a copy in the result that the input has not.
    found = [address for address in originals if address in pruned.source.tensors]
    changed = pruned.shape is not None and pruned.shape.changed
    before = store(pruned.source, found, "dense").decisions if changed else {}
    return tuple(
        _layer_row(
            outcome,
            decisions[outcome.address],
            before.get(outcome.original.layer.address, decisions[outcome.address]).dense_bytes,
        )
        for outcome in pruned.outcomes
    )


def _layer_row(outcome: LayerOutcome, decision: Decision, bytes_before: int) -> LayerRow:
    plan, original = outcome.plan, outcome.original
    layer, statistics = plan.layer, plan.statistics
    untouched = plan.reason is not None
    dense = f"stays dense: {decision.reason}" if decision.reason else None
    notes = [text for text in (plan.reason, *layer.notes, dense) if text]
    return LayerRow(
        layer=layer.name,
        operators=layer_operators(layer),
        nodes=tuple(use.node for use in layer.uses),
        shape=original.layer.shape,
        dtype=type_name(layer.data_type),
        mean=statistics.mean if statistics.alive else None,
        std=statistics.std if statistics.alive else None,
        quality=None if untouched else plan.quality,
        threshold=None if untouched else plan.threshold,
        weights=original.statistics.size,
        alive_before=original.statistics.alive,
        kept=outcome.kept,
        stored_as=decision.form,
        bytes_before=bytes_before,
        bytes_after=decision.stored_bytes,
        note="; ".join(notes),
        shape_after=None if outcome.is_whole else outcome.shape,
    )


def _warnings(pruned: Pruned) -> tuple[str, ...]:
    """Things that a user may not expect of the result."""
    return (*pruned.warnings, *_emptied(pruned), *_missed(pruned))


def _missed(pruned: Pruned) -> Iterator[str]:
    """A target share of zeros that what goes together keeps out of reach by more than a point."""
    aimed = [o for o in pruned.outcomes if o.plan.reason is None and o.plan.quality is None]
    weights = sum(outcome.original.statistics.size for outcome in aimed)
    share = pruned.config.sparsity
    if share is None or not weights:
        return
    zeros = 1 - sum(outcome.kept for outcome in aimed) / weights
    if zeros < share - max(MISSED, 1 / weights):
        yield (
            f"{zeros:.2%} of the weights are zero, not the share of {share:g} that was asked for:"
            " weights of equal magnitude, and blocks, stay or go together"
        )


def _emptied(pruned: Pruned) -> Iterator[str]:
    """Layers of which nothing is left."""
    emptied = [
        outcome.plan.layer.name
        for outcome in pruned.outcomes
        if outcome.plan.kept == 0 and outcome.plan.statistics.alive > 0
    ]
    if emptied:
        names = ", ".join(emptied[:3]) + (f" and {len(emptied) - 3} more" if emptied[3:] else "")
        yield f"every weight of {names} is gone; give it a lower quality with --layer"


def _pattern_notes(pruned: Pruned, writing: Writing) -> Iterator[str]:
    """What a pattern is of no use without."""
    pattern, decisions = pruned.config.groups, writing.stored.decisions
    forms = {decisions[address].form for address in pruned.addresses}
    if pattern is not None and forms != {"dense"}:
        yield (
            f"what computes with pattern {pattern}, as TensorRT does, reads plain tensors: write"
            " them with --format dense"
        )


def inspection(
    model: Model,
    scan: LayerScan,
    plans: Sequence[LayerPlan],
    kept: Sequence[tuple[int, ...]],
    dropouts: Sequence[DropoutSite],
    qualities: tuple[float, ...],
    seconds: float,
) -> InspectReport:
    """The report of a model as it is.

    Args:
        model: The model.
        scan: Its layers and what is not prunable.
        plans: A plan of each layer, for its statistics.
        kept: For each plan, how many weights each quality would leave.
        dropouts: Its Dropout nodes.
        qualities: The qualities that were counted.
        seconds: How long it took.
    """
    return InspectReport(
        version=tool_version(),
        model=model_name(model),
        facts=_model_facts(model),
        qualities=qualities,
        layers=tuple(map(_inspect_row, plans, kept)),
        unprunable=tuple(map(_unprunable_row, scan.unprunable)),
        dropouts=tuple(
            DropoutRow(site.node, site.ratio, site.ratio, site.reason or "") for site in dropouts
        ),
        seconds=seconds,
    )


def _inspect_row(plan: LayerPlan, kept: tuple[int, ...]) -> InspectRow:
    layer, statistics = plan.layer, plan.statistics
    known = statistics.alive > 0
    notes = [text for text in (plan.reason, *layer.notes) if text]
    return InspectRow(
        layer=layer.name,
        operators=layer_operators(layer),
        nodes=tuple(use.node for use in layer.uses),
        shape=layer.shape,
        dtype=type_name(layer.data_type),
        mean=statistics.mean if known else None,
        std=statistics.std if known else None,
        minimum=statistics.minimum if statistics.size else None,
        maximum=statistics.maximum if statistics.size else None,
        weights=statistics.size,
        alive=statistics.alive,
        kept=() if plan.reason is not None else kept,
        note="; ".join(notes),
    )


def layer_operators(layer: Layer) -> tuple[str, ...]:
    """Types of the nodes that use a layer's weight, each once."""
    return tuple(dict.fromkeys(use.op_type for use in layer.uses))


def _unprunable_row(item: Unprunable) -> UnprunableRow:
    return UnprunableRow(item.name, item.node, item.op_type, item.shape, item.reason)


def _dropout_row(site: DropoutSite, after: float) -> DropoutRow:
    return DropoutRow(site.node, site.ratio, after, site.reason or "")


def model_name(model: Model) -> str:
    """Path of a model, or what it calls itself where it came from memory."""
    if model.origin.path is not None:
        return str(model.origin.path)
    return model.proto.graph.name or "model in memory"


def parameter_count(model: Model) -> int:
    """Elements of every constant of one axis or more; scalars and strings are no parameters."""
    return sum(
        element_count(tensor)
        for tensor in model.tensors.values()
        if tensor.dims and tensor.data_type != TensorProto.STRING
    )


def _model_facts(model: Model) -> ModelFacts:
    proto = model.proto
    return ModelFacts(
        ir_version=proto.ir_version,
        opsets=tuple((opset.domain, opset.version) for opset in proto.opset_import),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        parameters=parameter_count(model),
        nodes=sum(len(graph.node) for _, graph in walk_graphs(proto)),
        file_bytes=model.origin.file_bytes,
        external=model.origin.external,
    )
