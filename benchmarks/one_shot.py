"""Accuracy after pruning without retraining, with 512 unlabelled training samples.

    python -m benchmarks.one_shot [MODEL ...] [--sparsity 0.8 0.9 0.95] [--seed 0]

Every way to prune and repair gets the same samples; test data serve for the printed number alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.zoo_data import PAIRS, Pair
from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import input_specs
from onnxprune.evaluation import Meter
from onnxprune.graph.layers import find_layers
from onnxprune.model.load import load
from onnxprune.model.model import Model
from onnxprune.pruning.plan import LayerPlan, apply_plan, make_plan
from onnxprune.repair.gradual import prune_in_steps
from onnxprune.repair.repair import repair
from onnxprune.repair.working import working_form

MODELS = ("vnn21_mnist_fc_256x2", "vnn21_cifar10_resnet_4b")
SAMPLES = 512

Plans = tuple[LayerPlan, ...]
Way = Callable[[Model, Plans, BatchSource, float], Model]


def _none(model: Model, plans: Plans, source: BatchSource, sparsity: float) -> Model:
    return apply_plan(model, plans)


def _match(model: Model, plans: Plans, source: BatchSource, sparsity: float) -> Model:
    return repair(model, apply_plan(model, plans), plans, source, method="match").model


def _refit(model: Model, plans: Plans, source: BatchSource, sparsity: float) -> Model:
    return repair(model, apply_plan(model, plans), plans, source).model


def _steps(model: Model, plans: Plans, source: BatchSource, sparsity: float) -> Model:
    return prune_in_steps(model, plans, source, sparsity, criterion="magnitude").model


def _steps_by_use(model: Model, plans: Plans, source: BatchSource, sparsity: float) -> Model:
    return prune_in_steps(model, plans, source, sparsity).model


WAYS: dict[str, Way] = {
    "global magnitude": _none,
    "+ match": _match,
    "+ refit": _refit,
    "in steps": _steps,
    "in steps, by use": _steps_by_use,
}


def measured(pair: Pair, sparsities: Sequence[float], seed: int) -> None:
    """Print the table of one model."""
    model = load(pair.path)
    scan = find_layers(model)
    specs = input_specs(model.proto)
    train = pair.arrays("train")
    picks = np.random.default_rng(seed).permutation(len(train["labels"]))[:SAMPLES]
    inputs = {name: array[picks] for name, array in train.items() if name != "labels"}
    meter = Meter(pair.arrays("test"))
    dense = 100 * meter(working_form(model))
    print(f"\n{pair.model}, dense {dense:.1f} %", flush=True)
    print(f"{'accuracy (seconds)':20}" + "".join(f"{100 * s:>16.0f} %" for s in sparsities))
    for name, way in WAYS.items():
        cells = []
        for sparsity in sparsities:
            plans = make_plan(model, scan, sparsity=sparsity)
            source = open_source(inputs, specs, labelled=False)
            started = time.perf_counter()
            pruned = way(model, plans, source, sparsity)
            seconds = time.perf_counter() - started
            cells.append(f"{100 * meter(working_form(pruned)):9.1f} ({seconds:5.1f})")
        print(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, choices=[*PAIRS], metavar="MODEL")
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.8, 0.9, 0.95])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in given.models:
        measured(PAIRS[name], given.sparsity, given.seed)


if __name__ == "__main__":
    main()
