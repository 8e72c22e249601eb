"""Counts over the rows of the wide corpus, as Markdown tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.corpus.operations import OPERATIONS
from tests.corpus.rows import Row, kind_of

__all__ = ["tables"]

OWN = ("made", "checker", "onnxruntime")


def tables(rows: Sequence[Row]) -> str:
    """By source and operation, by tool, kinds of refusals, and all problems."""
    parts = [_operations(rows), _tools(rows), _sources(rows), _refusals(rows), _problems(rows)]
    return "\n\n".join(part for part in parts if part)


def _operations(rows: Sequence[Row]) -> str:
    """Each operation on each model: written, valid, and equal to its reference; or why not."""
    cases: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.operation in OPERATIONS and row.check in OWN:
            cases[row.group, row.operation][row.key].append(row)
    lines = [
        "| source | operation | models | passed | refused | the source does not run | problems |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = dict.fromkeys(row.group for row in rows)
    for group in groups:
        for operation in OPERATIONS:
            found = cases.get((group, operation))
            if found:
                count = Counter(_verdict(several) for several in found.values())
                numbers = (count[n] for n in ("passed", "refused", "source", "problem"))
                cells = " | ".join(f"{n:,}" for n in (len(found), *numbers))
                lines.append(f"| {group} | {operation} | {cells} |")
    return "\n".join(lines)


def _verdict(rows: Sequence[Row]) -> str:
    outcomes = {row.outcome for row in rows}
    for outcome in ("problem", "refused"):
        if outcome in outcomes:
            return outcome
    ran = any(row.check == "onnxruntime" and row.outcome == "passed" for row in rows)
    return "passed" if ran else "source"


def _tools(rows: Sequence[Row]) -> str:
    """Outputs given to each tool, and the checker's verdicts."""
    count: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.operation in OPERATIONS and row.check not in ("made", "onnxruntime"):
            count[row.group, row.check][row.outcome] += 1
    lines = [
        "| source | tool | outputs | passed | near | cannot take the source | not comparable "
        "| problems |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (group, tool), found in count.items():
        numbers = (found[n] for n in ("passed", "rounded", "source", "unseen", "problem"))
        cells = " | ".join(f"{n:,}" for n in (found.total(), *numbers))
        lines.append(f"| {group} | {tool} | {cells} |")
    return "\n".join(lines)


def _sources(rows: Sequence[Row]) -> str:
    """Models that could not be made: opsets that an exporter or the converter refuses."""
    count = Counter((r.group, kind_of(r.detail)) for r in rows if r.operation == "source")
    lines = [f"{n:6,} {group}: {text}" for (group, text), n in count.most_common()]
    return "\n".join(["not made", *lines]) if lines else ""


def _refusals(rows: Sequence[Row]) -> str:
    refused = [row for row in rows if row.outcome == "refused"]
    count = Counter((row.operation, kind_of(row.detail)) for row in refused)
    lines = [f"{n:6,} {operation}: {text}" for (operation, text), n in count.most_common()]
    return "\n".join(["refused", *lines]) if lines else ""


def _problems(rows: Sequence[Row]) -> str:
    wrong = [row for row in rows if row.outcome == "problem"]
    lines = [f"{r.key} {r.operation} {r.check}: {r.detail}" for r in wrong]
    return "\n".join([f"problems: {len(wrong)}", *lines])
