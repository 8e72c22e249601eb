"""How `evaluate` is shown: one row a model, and the lines that say how it was measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from .document import Document, Table
from .evaluation import Conditions, EvaluationReport, MetricFacts
from .facts import Fact
from .format import (
    Glyphs,
    bytes_text,
    count,
    metric_text,
    number,
    percent,
    plural,
    ratio,
    safe,
    seconds_text,
)
from .grid import Column, Grid, Heading, make_grid

__all__ = ["evaluation_document"]

KEPT_EXPLAINED = "kept counts the weights of prunable layers that are not zero"


def evaluation_document(report: EvaluationReport, glyphs: Glyphs) -> Document:
    """The report as a document."""
    names = ", ".join(safe(PurePath(row.model).name) for row in report.models)
    title = names if len(report.models) < 4 else plural(len(report.models), "model")
    return Document(report.version, title, (Table(_grid(report), "model"), tuple(_facts(report))))


def _grid(report: EvaluationReport) -> Grid:
    rows, metrics = range(len(report.models)), (report.metric, report.agreement)
    models = report.models
    columns: list[Column[int]] = [Column(Heading("model"), lambda at: safe(models[at].model))]
    for title, facts in zip(("metric", "agreement"), metrics, strict=True):
        if facts is not None:
            columns.append(_metric_column(title, facts))
    columns += [
        Column(Heading("file", right=True), lambda at: bytes_text(models[at].file_bytes)),
        Column(
            Heading("gzip", right=True, rank=3),
            lambda at: (
                ("~" if models[at].gzip_estimated else "") + bytes_text(models[at].gzip_bytes)
            ),
        ),
        Column(Heading("kept", right=True, rank=1), lambda at: count(models[at].kept)),
        Column(
            Heading("of weights", right=True, rank=4), lambda at: percent(models[at].kept_share)
        ),
        Column(Heading("parameters", right=True, rank=5), lambda at: count(models[at].parameters)),
    ]
    if report.conditions is not None:
        timings = [row.latency for row in models]
        columns += [
            Column(
                Heading("median ms", right=True),
                lambda at: number(t.median_ms if (t := timings[at]) else None),
            ),
            Column(
                Heading("p90 ms", right=True, rank=2),
                lambda at: number(t.p90_ms if (t := timings[at]) else None),
            ),
            Column(
                Heading("speed", right=True, rank=1),
                lambda at: ratio(t.speed if (t := timings[at]) else None),
            ),
        ]
    return make_grid(columns, rows)


def _metric_column(title: str, facts: MetricFacts) -> Column[int]:
    distance = title == "agreement" and not facts.share
    return Column(
        Heading("distance" if distance else title, right=True),
        lambda at: metric_text(facts.values[at], facts.share),
    )


def _facts(report: EvaluationReport) -> Iterator[Fact]:
    if report.metric is None:
        why = "no validation data" if report.data is None else "see the note"
        yield Fact("metric", f"not measured: {why}")
    else:
        samples = plural(report.samples, "sample")
        yield Fact("metric", f"{_described(report.metric)} on {samples}{_error(report.metric)}")
        if report.data is not None:
            yield Fact("data", safe(report.data))
    if report.agreement is not None:
        label = "agreement" if report.agreement.share else "distance"
        yield Fact(label, _described(report.agreement))
    yield Fact("kept", KEPT_EXPLAINED)
    if report.conditions is not None:
        yield Fact("latency", _conditions(report.conditions))
        if len(report.models) > 1:
            yield Fact("speed", "how many times as fast as the first, run for run")
    for note in report.notes:
        yield Fact("note", safe(note))
    yield Fact("time", seconds_text(report.seconds), "dim")


def _described(facts: MetricFacts) -> str:
    return safe(facts.name) + (", lower is better" if facts.better == "lower" else "")


def _error(facts: MetricFacts) -> str:
    """The largest standard error of the models'."""
    known = [error for error in facts.errors if error is not None]
    if not known:
        return ""
    largest = max(known)
    size = f"{100 * largest:.2f} points" if facts.share else number(largest)
    return f" (standard error up to {size})"


def _conditions(conditions: Conditions) -> str:
    threads = plural(conditions.threads, "thread") if conditions.threads else "all cores"
    return (
        f"{safe(conditions.runtime)}, {threads}, batches of {conditions.batch:,}: median and 90th"
        f" percentile of {plural(conditions.runs, 'run')} that took turns, after a warm-up, on"
        f" {safe(conditions.inputs)}"
    )
