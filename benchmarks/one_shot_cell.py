"""One cell of the comparison, in a process of its own: see benchmarks/one_shot.py."""

from __future__ import annotations

import gc
import json
import pickle
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # noqa: F401 - loading libraries is no part of a pruning
import onnxsim  # noqa: F401
import scipy.linalg.lapack  # noqa: F401
import threadpoolctl  # noqa: F401

import onnxprune.api  # noqa: F401
from benchmarks.one_shot_ways import WAYS
from onnxprune.evaluation import Meter
from onnxprune.graph.layers import find_layers
from onnxprune.model.load import parse
from onnxprune.repair.working import working_form


def main() -> None:
    """Arguments: the trials' folder, a way, the bytes that may be taken, shares of zeros."""
    folder, way, memory, *sparsities = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    trials = pickle.loads((Path(folder) / "trials.pickle").read_bytes())
    for sparsity in map(float, sparsities):
        base = _reset_peak()
        found = [_pruned(way, trial, sparsity) for trial in trials]
        peak = _peak_mb() - base
        accuracy = _accuracies([model for model, *_ in found], Path(folder))
        cell = {
            "accuracy": accuracy,
            "zeros": [
                round(1 - _kept(model) / _weights(trial["model"]), 4)
                for trial, (model, *_) in zip(trials, found, strict=True)
            ],
            "seconds": [round(seconds, 3) for _, seconds, _ in found],
            "cpu_seconds": [round(seconds, 3) for *_, seconds in found],
            "peak_mb": round(peak, 1),
        }
        print(json.dumps(cell), flush=True)


def _pruned(
    way: str, trial: dict[str, Any], sparsity: float
) -> tuple[onnx.ModelProto, float, float]:
    """The pruned model, and the seconds and processor seconds that it took."""
    if way not in WAYS:
        return onnx.load(trial["model"]), 0.0, 0.0
    started, used = time.perf_counter(), time.process_time()
    pruned = WAYS[way](trial["model"], trial["calibration"], sparsity)
    return pruned, time.perf_counter() - started, time.process_time() - used


def _reset_peak() -> float:
    """Forget what was the most memory so far, where the system can; what there is now."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_mb()


def _peak_mb() -> float:
    """Most memory that this process had."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _accuracies(models: list[onnx.ModelProto], folder: Path) -> list[float]:
    """Accuracies on test data, which are read only now."""
    tests = pickle.loads((folder / "test.pickle").read_bytes())
    return [_accuracy(model, test) for model, test in zip(models, tests, strict=True)]


def _accuracy(model: onnx.ModelProto, test: dict[str, np.ndarray]) -> float:
    opened = parse(memoryview(model.SerializeToString()))
    return float(Meter(test)(working_form(opened)))


def _kept(model: onnx.ModelProto) -> int:
    """Weights that are not zero, of the layers that a model has left, whatever their names."""
    return sum(int(np.count_nonzero(array)) for array in _arrays(model))


def _weights(path: Path) -> int:
    """Weights of the layers of a model: neurons that a pruning removes count as zeros."""
    return sum(array.size for array in _arrays(onnx.load(path)))


def _arrays(model: onnx.ModelProto) -> list[np.ndarray]:
    opened = parse(memoryview(model.SerializeToString()))
    return [opened.array(opened.tensors[layer.address]) for layer in find_layers(opened).layers]


if __name__ == "__main__":
    main()
