"""The lines around the tables: each fact a label and a sentence, for terminals and pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .facts import Fact, some_names
from .format import (
    Glyphs,
    bytes_text,
    count,
    exact_bytes,
    metric_text,
    number,
    percent,
    plural,
    ratio,
    safe,
    seconds_text,
    size_change,
)
from .groups import coupled_facts
from .repair_facts import repair_facts
from .report import (
    DropoutRow,
    InspectReport,
    InspectRow,
    Latency,
    LayerRow,
    Report,
    UnprunableRow,
)
from .search_view import bound_text, search_facts
from .structure_facts import structure_facts
from .training_facts import training_facts

__all__ = ["NOTHING_TO_PRUNE", "facts", "inspect_facts", "inspect_title", "title"]

NOTHING_TO_PRUNE = "no prunable layer"
NO_SPEEDUP = (
    "zeros alone do not make onnxruntime faster: only removing whole channels does (--channels)"
)
FEWER = "not measured: fewer channels are less work for every runtime, zeros that are left are not"
ZEROS_EXPLAINED = (
    "mean and std are over the weights that are not zero; zeros is the share of weights that are"
    " zero now, and q=... the share that would be with that quality"
)


def title(report: Report, glyphs: Glyphs) -> str:
    """Return the first line: which file became which, and how it was asked to be pruned."""
    target = safe(report.output) if report.output else "nothing written"
    return f"{safe(report.model)} {glyphs.arrow} {target} ({_request(report)})"


def _request(report: Report) -> str:
    channels = report.structure.request if report.structure else ""
    return ", ".join(filter(None, (safe(channels), _weights(report, bool(channels)))))


def _weights(report: Report, channels: bool) -> str:
    """How weights were asked to be pruned; nothing where only channels were to go."""
    if report.search is not None:
        return bound_text(report.search)
    if report.sparsity is not None:
        scope = "in every layer" if report.scope == "layer" else "over all layers"
        target = f"sparsity {report.sparsity:g} {scope}"
    elif report.quality is not None:
        target = "" if channels and not report.quality else f"quality {report.quality:g}"
    else:
        return f"pattern {safe(report.pattern)}" if report.pattern else "no target"
    return f"{target}, blocks {safe(report.pattern)}" if report.pattern else target


def inspect_title(report: InspectReport) -> str:
    """Return the first line of `inspect`."""
    return safe(report.model)


def facts(report: Report, glyphs: Glyphs) -> list[Fact]:
    """Return the lines below the table of a pruning run, in reading order."""
    return [fact for part in _PARTS for fact in part(report, glyphs)]


def _parameters(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    arrow = glyphs.arrow
    if report.layers:
        yield Fact(
            "weights",
            f"{count(report.weights)} {arrow} {count(report.kept)} in prunable layers:"
            f" {_fewer(report.parameter_ratio)}",
            "good" if report.kept < report.weights else "",
        )
    yield Fact(
        "parameters",
        f"{count(report.parameters)} {arrow} {count(report.parameters_kept)} in the whole model:"
        f" {_fewer(report.total_ratio)}",
    )


def _fewer(times: float | None) -> str:
    if times is None:
        return "none left"
    return "as many" if times == 1 else f"{ratio(times)} fewer"


def _file(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    sizes = report.sizes
    label = "file" if report.output else "file would be"
    if sizes.file_output is not None:
        tone = "good" if (sizes.file_ratio or 0) > 1 else ""
        yield Fact(label, _sizes(sizes.file_input, sizes.file_output, glyphs, exact=True), tone)
    if sizes.gzip_output is not None:
        about = "about " if sizes.gzip_estimated else ""
        yield Fact("gzip", about + _sizes(sizes.gzip_input, sizes.gzip_output, glyphs))
    if report.readers:
        yield Fact("format", f"{safe(report.format)}: {safe(report.readers)}")


def _sizes(before: int | None, after: int, glyphs: Glyphs, *, exact: bool = False) -> str:
    if before is None:
        return f"{bytes_text(after)} ({exact_bytes(after)} bytes)" if exact else bytes_text(after)
    text = f"{bytes_text(before)} {glyphs.arrow} {bytes_text(after)}: {size_change(before, after)}"
    if exact and max(before, after) >= 1000:
        text += f" ({exact_bytes(before)} {glyphs.arrow} {exact_bytes(after)} bytes)"
    return text


def _dropouts(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    for row in report.dropouts:
        yield Fact("dropout", _dropout(row, glyphs))


def _dropout(row: DropoutRow, glyphs: Glyphs) -> str:
    text = f"{safe(row.node)}: ratio {number(row.before)}"
    if row.after is not None and row.after != row.before:
        text += f" {glyphs.arrow} {number(row.after)}"
    else:
        text += " unchanged"
    return f"{text} ({safe(row.note)})" if row.note else text


def _accuracy(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    accuracy = report.accuracy
    if accuracy is None:
        yield Fact("accuracy", "not measured: no validation data")
        return
    steps = {"dense": accuracy.before, "pruned": accuracy.pruned, "retrained": accuracy.after}
    if accuracy.pruned is None:
        values = f" {glyphs.arrow} ".join(
            metric_text(value, accuracy.share) for value in (accuracy.before, accuracy.after)
        )
    else:
        values = ", ".join(
            f"{metric_text(value, accuracy.share)} {name}" for name, value in steps.items()
        )
    remarks = []
    if accuracy.share:
        remarks.append(f"{100 * (accuracy.after - accuracy.before):+.2f} points")
    if accuracy.better == "lower":
        remarks.append("lower is better")
    remark = f" ({', '.join(remarks)})" if remarks else ""
    samples = plural(accuracy.samples, "sample")
    yield Fact("accuracy", f"{safe(accuracy.metric)} {values}{remark} on {samples}")


def _repair(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    return repair_facts(report.repair, glyphs) if report.repair else ()


def _search(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    return search_facts(report.search) if report.search else ()


def _training(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    return training_facts(report.training, glyphs) if report.training else ()


def _structure(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    return structure_facts(report.structure, glyphs) if report.structure else ()


def _latency(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    if latency := report.latency:
        yield Fact("latency", _times(latency, glyphs))
    changed = report.structure is not None and report.structure.changed
    if not changed or report.latency is None:
        yield Fact("speed", FEWER if changed else NO_SPEEDUP)


def _times(latency: Latency, glyphs: Glyphs) -> str:
    threads = "all cores" if not latency.threads else plural(latency.threads, "thread")
    text = f"{number(latency.before_ms)} {glyphs.arrow} {number(latency.after_ms)} ms a run"
    if latency.speed is not None:
        text += f": {ratio(latency.speed)} as fast"
    axes = "" if latency.open_size is None else f", open axes of size {latency.open_size}"
    return f"{text} ({safe(latency.runtime)}, {threads}{axes})"


def _unprunable(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    by_reason: dict[str, list[UnprunableRow]] = {}
    for row in report.unprunable:
        by_reason.setdefault(row.reason, []).append(row)
    for reason, rows in by_reason.items():
        yield Fact("not prunable", f"{some_names([row.name for row in rows])}: {safe(reason)}")


def _layer_notes(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    return _row_notes(report.layers)


def _row_notes(rows: Iterable[LayerRow | InspectRow]) -> Iterable[Fact]:
    by_note: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            by_note.setdefault(row.note, []).append(row.layer)
    for note, names in by_note.items():
        yield Fact("note", f"{some_names(names)}: {safe(note)}")


_CHECK_TONES = {"passed": "", "skipped": "warning", "failed": "bad"}


def _checks(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    for check in report.checks:
        detail = f" ({safe(check.detail)})" if check.detail else ""
        text = f"{safe(check.name)}: {check.outcome}{detail}"
        yield Fact("checks", text, _CHECK_TONES[check.outcome])


def _said(report: Report | InspectReport) -> Iterable[Fact]:
    for note in report.notes:
        yield Fact("note", safe(note))
    for warning in report.warnings:
        yield Fact("warning", safe(warning), "warning")


def _closing(report: Report, glyphs: Glyphs) -> Iterable[Fact]:
    yield from _said(report)
    yield Fact("time", seconds_text(report.seconds), "dim")


_PARTS: tuple[Callable[[Report, Glyphs], Iterable[Fact]], ...] = (
    _parameters,
    _structure,
    _file,
    _accuracy,
    _search,
    _repair,
    _training,
    _latency,
    _dropouts,
    _checks,
    _unprunable,
    _layer_notes,
    _closing,
)


def inspect_facts(report: InspectReport) -> list[Fact]:
    """Return the lines above the tables of `inspect`: what the model says about itself."""
    model = report.facts
    opsets = ", ".join(f"{safe(domain) or 'onnx'} {version}" for domain, version in model.opsets)
    where = ", weights in files of their own" if model.external else ""
    weights = percent(report.weights / model.parameters) if model.parameters else percent(None)
    found = [
        Fact("format", f"IR version {model.ir_version}, opset {opsets or 'none'}"),
        Fact("producer", safe(model.producer) or "not said"),
        Fact("nodes", count(model.nodes)),
        Fact("parameters", f"{count(model.parameters)}, {weights} of them in prunable layers"),
    ]
    if model.file_bytes is not None:
        size = f"{bytes_text(model.file_bytes)} ({exact_bytes(model.file_bytes)} bytes){where}"
        found.append(Fact("file", size))
    found.append(Fact("columns", ZEROS_EXPLAINED))
    if report.coupled is not None:
        found += coupled_facts(report.coupled)
    return [*found, *_row_notes(report.layers), *_said(report)]
