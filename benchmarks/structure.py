"""Speed of networks with half of their channels in onnxruntime, against other tools.

    python -m benchmarks.structure                      all cells that are not in the results yet
    python -m benchmarks.structure --networks ResNet-18 --threads 1
    python -m benchmarks.structure --reach              how many models each tool can prune at all
    python -m benchmarks.structure --table              what docs/results.md shows

Torch-Pruning removes the channels of the PyTorch model, which is exported then; it is told where
attention heads are. The others get the exported model. All models of a network run in turn in one
process, one timed run of each in a round, after an untimed one; ratios are medians over rounds,
with their quartiles. Results are kept after every cell in benchmarks/results/structure.json; a run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.results_file import read_results, write_results
from benchmarks.structure_models import NETWORKS
from benchmarks.structure_reach import reach, reach_table
from benchmarks.structure_tools import TOOLS, outputs
from onnxprune.comparison.interleaved import interleaved_seconds
from onnxprune.runtime import open_session
from onnxprune.structure.macs import count_parameters, count_work

RESULTS = Path(__file__).parent / "results" / "structure.json"
THREADS = (1, 2)
ROUNDS = 100


def main() -> None:
    """Fill in the cells that are missing, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--threads", nargs="+", type=int, default=list(THREADS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--reach", action="store_true", help="count the models that can be pruned")
    parser.add_argument("--table", action="store_true", help="print the tables and do nothing else")
    given = parser.parse_args()
    facts = _read(given.results)
    if given.table:
        print(table(facts["cells"]), reach_table(facts["reach"]), sep="\n\n")
        return
    if given.reach:
        reach(facts["reach"], lambda: _write(given.results, facts))
        print(reach_table(facts["reach"]))
        return
    for name in given.networks:
        missing = [n for n in given.threads if f"{name} {n}" not in facts["cells"]]
        models = made(name) if missing else {}
        for threads in missing:
            facts["cells"][f"{name} {threads}"] = measured(name, models, threads, given.rounds)
            _write(given.results, facts)
            print(name, threads, json.dumps(facts["cells"][f"{name} {threads}"]), flush=True)
    print(table(facts["cells"]))


def made(name: str) -> dict[str, onnx.ModelProto]:
    """The network with half of its channels, by every tool that can."""
    network, models = NETWORKS[name], {}
    for tool, make in TOOLS.items():
        torch.manual_seed(0)
        net = network.make().eval()
        sample = network.sample()
        try:
            models[tool] = make(net, sample)
            outputs(models[tool])
        except Exception as error:  # tools fail in many ways
            models.pop(tool, None)
            print(f"{tool} fails on {name}: {type(error).__name__}: {error}", flush=True)
    return models


def measured(
    name: str, models: Mapping[str, onnx.ModelProto], threads: int, rounds: int
) -> dict[str, Any]:
    """Milliseconds, how many times faster than the dense model, operations and weights."""
    torch.manual_seed(0)
    feeds = {"x": NETWORKS[name].sample().numpy()}
    sessions = [open_session(m.SerializeToString(), threads=threads) for m in models.values()]
    seconds = interleaved_seconds(sessions, [feeds] * len(sessions), runs=rounds)
    ratios = seconds[0] / seconds
    return {
        tool: {
            "ms": round(1000 * float(np.median(seconds[row])), 2),
            "ratio": [round(float(x), 2) for x in np.percentile(ratios[row], (50, 25, 75))],
            "macs": count_work(model).macs,
            "parameters": count_parameters(model),
        }
        for row, (tool, model) in enumerate(models.items())
    }


def table(cells: Mapping[str, Any]) -> str:
    """The speeds in Markdown."""
    tools = [tool for tool in TOOLS if tool != "dense"]
    lines = [
        f"| network | threads | dense ms | {' | '.join(tools)} |",
        "|---|---|---|" + "---|" * len(tools),
    ]
    for name, threads in product(NETWORKS, THREADS):
        cell = cells.get(f"{name} {threads}")
        if cell:
            shown = [_ratio(cell[tool]) if tool in cell else "fails" for tool in tools]
            lines.append(f"| {name} | {threads} | {cell['dense']['ms']} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _ratio(entry: Mapping[str, Any]) -> str:
    middle, low, high = entry["ratio"]
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _read(path: Path) -> dict[str, Any]:
    known = read_results(path)
    return {"cells": known.get("cells", {}), "reach": known.get("reach", {})}


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    write_results(path, {"python": platform.python_version(), **facts})


if __name__ == "__main__":
    main()
