"""How many models each tool can remove half of the channels of, at all.

The networks of the tests, as PyTorch exports them, and the real models of a folder (see
benchmarks/zoo_data.py). A tool can prune a model if its result has fewer weights, runs in
onnxruntime and has outputs of the same shapes. Torch-Pruning needs a PyTorch model.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.structure_models import exported
from benchmarks.structure_tools import (
    onnxprune_reduced,
    onnxsim_pruned,
    outputs,
    torch_pruned,
)
from benchmarks.zoo_data import zoo_folder
from onnxprune.model.load import load
from onnxprune.model.save import to_proto
from onnxprune.structure.macs import count_parameters

__all__ = ["reach", "reach_table"]

NAMES = ("onnxprune", "Torch-Pruning", "onnxsim")


def reach(cells: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill in what is missing: for each model and tool, weights left or why there are none."""
    for kind, entries in (("networks", _networks()), ("real models", _real_models())):
        for name, tools in entries:
            key = f"{kind}: {name}"
            if key not in cells:
                cells[key] = {tool: _outcome(make) for tool, make in tools.items()}
                save()
            print(key, cells[key], flush=True)


def _networks() -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    from tests.structure.test_exports import CASES, samples

    for name, (make, shape, _) in CASES.items():
        sample = torch.from_numpy(samples(shape, 2)["x"])

        def network(make: Any = make) -> torch.nn.Module:
            torch.manual_seed(0)
            return make().eval()

        def dense(network: Any = network, sample: Any = sample) -> onnx.ModelProto:
            return exported(network(), sample)

        yield (
            name,
            {
                "onnxprune": lambda dense=dense: (dense(), onnxprune_reduced(dense())),
                "Torch-Pruning": lambda network=network, sample=sample, dense=dense: (
                    dense(),
                    exported(torch_pruned(network(), sample), sample),
                ),
                "onnxsim": lambda dense=dense: (dense(), onnxsim_pruned(dense())),
            },
        )


def _real_models() -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    for path in sorted((zoo_folder() / "models").glob("*.onnx")):

        def dense(path: Any = path) -> onnx.ModelProto:
            return to_proto(load(path))

        try:
            outputs(dense())
        except Exception:  # it does not run as it is
            continue
        yield (
            path.stem,
            {
                "onnxprune": lambda dense=dense: (dense(), onnxprune_reduced(dense())),
                "onnxsim": lambda dense=dense: (dense(), onnxsim_pruned(dense())),
            },
        )


def _outcome(make: Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]]) -> dict[str, Any]:
    """Share of the weights that is left, or what went wrong."""
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            dense, pruned = make()
        expected, found = outputs(dense), outputs(pruned)
    except Exception as error:  # tools fail in many ways
        return {"failure": f"{type(error).__name__}: {str(error)[:200]}"}
    if [np.shape(value) for value in expected] != [np.shape(value) for value in found]:
        return {"failure": "its outputs have other shapes"}
    left = count_parameters(pruned) / max(count_parameters(dense), 1)
    return {"left": round(left, 4)} if left < 1 else {"failure": "nothing was removed"}


def reach_table(cells: Mapping[str, Any]) -> str:
    """The counts in Markdown."""
    lines = ["| models | all | " + " | ".join(NAMES) + " |", "|---|---|" + "---|" * len(NAMES)]
    for kind in ("networks", "real models"):
        found = [entry for key, entry in cells.items() if key.startswith(f"{kind}:")]
        counts = [sum("left" in entry.get(tool, {}) for entry in found) for tool in NAMES]
        shown = [str(n) if any(t in e for e in found) else "-" for t, n in zip(NAMES, counts,
                 strict=True)]  # fmt: skip
        lines.append(f"| {kind} | {len(found)} | {' | '.join(shown)} |")
    return "\n".join(lines)
