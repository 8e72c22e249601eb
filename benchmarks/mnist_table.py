"""The tables of benchmarks.mnist: published numbers beside ours, and what is left of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.mnist_methods import METHODS, NETWORKS, PUBLISHED

__all__ = ["tables"]

Cells = Mapping[str, Any]

HEADINGS = (
    "network",
    "method",
    "seeds",
    "error before, %",
    "error after, %",
    "weights left",
    "weights ratio",
    "file ratio",
    "epochs",
    "minutes",
)
LAYER_HEADINGS = ("network", "method", "weights left in each layer, %")


def tables(cells: Cells) -> str:
    """All tables, in Markdown."""
    rows, layers = [], []
    for network in NETWORKS:
        rows += list(_published(network))
        for name, method in METHODS[network].items():
            if found := _seeds(cells, network, name):
                rows.append((network, method.title, *_row(found)))
                layers.append((network, method.title, _layers(found)))
    commands = [
        f"    {cells[key]['command']}"
        for key in dict.fromkeys(
            f"{network} {name} 0" for network in NETWORKS for name in METHODS[network]
        )
        if key in cells
    ]
    return "\n\n".join(
        [_markdown(HEADINGS, rows), _markdown(LAYER_HEADINGS, layers), "\n".join(commands)]
    )


def _published(network: str) -> Iterator[tuple[str, ...]]:
    for row in PUBLISHED[network]:
        ratio = f"{row.ratio:g}"
        yield (
            network,
            f"*{row.method}, published*",
            "",
            f"{row.before:.2f}",
            f"{row.after:.2f}",
            f"{100 / row.ratio:.1f} %",
            ratio,
            *[""] * 3,
        )


def _seeds(cells: Cells, network: str, name: str) -> list[Any]:
    keys = [key for key in cells if key.rsplit(" ", 1)[0] == f"{network} {name}"]
    return [cells[key] for key in sorted(keys)]


def _row(found: Sequence[Any]) -> tuple[str, ...]:
    kept, weights = (mean(cell[name] for cell in found) for name in ("kept", "weights"))
    return (
        str(len(found)),
        _spread([cell["before"] for cell in found]),
        _spread([cell["after"] for cell in found]),
        f"{100 * kept / weights:.2f} %",
        f"{weights / kept:.1f}",
        f"{mean(cell['bytes_before'] / cell['bytes_after'] for cell in found):.1f}",
        f"{found[0]['epochs']}",
        f"{mean(cell['seconds'] for cell in found) / 60:.1f}",
    )


def _spread(values: Sequence[float]) -> str:
    """The mean, and the range where there are several."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _layers(found: Sequence[Any]) -> str:
    first = found[0]["layers"]
    shares = {
        name.removesuffix(".weight"): mean(cell["layers"][name][0] for cell in found) / size
        for name, (_, size) in first.items()
    }
    return ", ".join(f"{name} {100 * share:.1f}" for name, share in shares.items())


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
