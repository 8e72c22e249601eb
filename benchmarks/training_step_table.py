"""The table of `training_step`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from training_step_engines import CASES

__all__ = ["show"]

#: What the columns are called.
TITLES = {
    "ours": "ours",
    "torch": "PyTorch",
    "torch-fused": "PyTorch fused",
    "ort-training": "onnxruntime-training",
}


def show(results: Mapping[str, Any], engines: Sequence[str], base: str = "ours") -> None:
    """Print the results of cases as a Markdown table, and why numbers are missing.

    Args:
        results: What `training_step.measure` returns, by the name of the case.
        engines: The columns.
        base: The engine whose ratios to the others are shown.
    """
    others = [engine for engine in TITLES if engine in engines and engine != base]
    titles = ["ms per step", TITLES[base], *(TITLES[engine] for engine in others)]
    rows = [[*titles, *(f"{TITLES[base]} / {TITLES[engine]}" for engine in others)]]
    for name, result in results.items():
        rounds = result["milliseconds"]
        times = [_milliseconds(rounds.get(engine)) for engine in (base, *others)]
        ratios = [_ratio(rounds[base], rounds.get(engine)) for engine in others]
        rows.append([CASES[name].note, *times, *ratios])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    print("\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]]))
    reasons = {
        f"{TITLES[engine]} has no number for {name}: {reason}"
        for name, result in results.items()
        for engine, reason in result["failures"].items()
    }
    print("\n".join(sorted(reasons)), flush=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"


def _milliseconds(rounds: Sequence[Sequence[float]] | None) -> str:
    if rounds is None:
        return "-"
    return f"{statistics.median(map(statistics.median, rounds)):.2f}"


def _ratio(rounds: Sequence[Sequence[float]], others: Sequence[Sequence[float]] | None) -> str:
    """Median of the rounds' ratios, and the range of their middle half."""
    if others is None:
        return "-"
    ours, theirs = (np.median(side, axis=1) for side in (rounds, others))
    low, middle, high = np.quantile(ours / theirs, [0.25, 0.5, 0.75])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"
