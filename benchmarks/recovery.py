"""Accuracy of real models dense, pruned, and retrained: with labels, and without any.

    python -m benchmarks.recovery                 all cells that are not in the results yet
    python -m benchmarks.recovery --models mnist_cntk_wml --sparsities 0.8

The smallest weights of all layers together go (`sparsity`), or, where that holds more on training
images, those of each layer (`scope`). The model is retrained on the training set, by labels or
by distillation, which sees none. The test set is measured at the end and decides nothing. Results
are kept after every cell in benchmarks/results/recovery.json; a run that was stopped goes on where
it was. ``--table`` prints what docs/results.md shows. Models and data: see benchmarks/zoo_data.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import onnxprune
from benchmarks.results_file import read_results, write_results
from benchmarks.zoo_data import PAIRS, Pair
from onnxprune.config import Scope
from onnxprune.evaluation import Meter
from onnxprune.finetune import RateSchedule
from onnxprune.model.sources import read

RESULTS = Path(__file__).parent / "results" / "recovery.json"
SPARSITIES = (0.7, 0.8, 0.9, 0.95)
MODES = ("labels", "distillation")
BATCH = 128
SHIFT = 3  # pixels

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How a model is pruned and retrained.

    Attributes:
        epochs: Times through the training set.
        rate: Learning rate.
        schedule: How the rate changes.
        augment: Whether images are shifted and mirrored.
        scope: What meets the share of zeros: all layers together, or each.
    """

    epochs: int
    rate: float = 1e-3
    schedule: RateSchedule = "constant"
    augment: bool = False
    scope: Scope = "global"


RECIPES = {
    "vnn21_mnist_fc_256x2": Recipe(10, scope="layer"),
    "mnist_cntk_wml": Recipe(10),
    "fashionmnist_edwin_cnn": Recipe(3, 3e-4),
    "vnn21_cifar10_resnet_4b": Recipe(8, schedule="cosine", augment=True),
    "vnn23_vit_ibp_3_3_8": Recipe(8, 5e-4, augment=True),
}


def main() -> None:
    """Fill in the cells that are missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--sparsities", nargs="+", type=float, default=list(SPARSITIES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's, with other --results")
    parser.add_argument("--table", action="store_true", help="print the table and do nothing else")
    given = parser.parse_args()
    cells = read_results(given.results).get("cells", {})
    if given.table:
        print(table(cells))
        return
    for sparsity, mode, name in product(given.sparsities, given.modes, given.models):
        key = f"{name} {sparsity:g} {mode}"
        if key not in cells:
            recipe = RECIPES[name]
            if given.epochs is not None:
                recipe = replace(recipe, epochs=given.epochs)
            cells[key] = measure(PAIRS[name], recipe, sparsity, mode)
            write_results(given.results, {"python": platform.python_version(), "cells": cells})
        print(key, json.dumps(cells[key]), flush=True)
    print(table(cells))


def measure(pair: Pair, recipe: Recipe, sparsity: float, mode: str) -> dict[str, Any]:
    """One cell: accuracy on the test set before, after pruning, and after retraining."""
    meter = Meter(pair.arrays("test"))
    source = read(pair.path)
    dense = meter(source)
    # All are classifiers, most without a softmax that says so: it decides what is distilled.
    settings = onnxprune.FineTune(
        epochs=recipe.epochs,
        lr=recipe.rate,
        lr_schedule=recipe.schedule,
        batch_size=BATCH,
        loss="cross-entropy",
    )
    pruned = onnxprune.prune(pair.path, sparsity=sparsity, scope=recipe.scope)
    started = time.perf_counter()
    result = onnxprune.prune(
        pair.path,
        sparsity=sparsity,
        scope=recipe.scope,
        train=training_data(pair, recipe, labelled=mode == "labels"),
        finetune=settings,
    )
    seconds = time.perf_counter() - started
    training = result.report.training
    assert training is not None  # it was trained
    return {
        "dense": dense,
        "pruned": meter(read(pruned.to_proto())),
        "retrained": meter(read(result.to_proto())),
        "weights": result.report.weights,
        "kept": result.report.kept,
        "loss": training.loss,
        "epochs": recipe.epochs,
        "rate": recipe.rate,
        "schedule": recipe.schedule,
        "augmented": recipe.augment,
        "scope": recipe.scope,
        "seconds": round(seconds, 1),
    }


def training_data(pair: Pair, recipe: Recipe, *, labelled: bool) -> Batch | Callable[..., Any]:
    """The training set; with augmentation as a function that gives other batches every epoch."""
    arrays = pair.arrays("train")
    if not labelled:
        arrays.pop("labels")
    if not recipe.augment:
        return arrays
    epochs = iter(range(1_000_000))

    def batches() -> Iterator[Batch]:
        return augmented(arrays, pair.input, np.random.default_rng([7, next(epochs)]))

    return batches


def augmented(arrays: Batch, name: str, random: np.random.Generator) -> Iterator[Batch]:
    """Shuffled batches, each image [C, H, W] mirrored or not and moved by up to `SHIFT` pixels."""
    order = random.permutation(len(arrays[name]))
    padding = ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))
    for start in range(0, len(order), BATCH):
        chosen = np.sort(order[start : start + BATCH])
        batch = {key: array[chosen] for key, array in arrays.items()}
        images = np.pad(batch[name], padding)
        height, width = arrays[name].shape[2:]
        moved = np.empty_like(batch[name])
        places = random.integers(0, 2 * SHIFT + 1, (len(chosen), 2))
        mirrored = random.random(len(chosen)) < 0.5
        for index, ((top, left), mirror) in enumerate(zip(places, mirrored, strict=True)):
            part = images[index, :, top : top + height, left : left + width]
            moved[index] = part[:, :, ::-1] if mirror else part
        yield {**batch, name: moved}


def table(cells: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "| model | zeros | dense | pruned | retrained by labels | without labels |",
        "|---|---|---|---|---|---|",
    ]
    for name in RECIPES:
        for sparsity in SPARSITIES:
            found = [cells.get(f"{name} {sparsity:g} {mode}") for mode in MODES]
            known = next((cell for cell in found if cell), None)
            if known is not None:
                retrained = [_percent(cell["retrained"]) if cell else "-" for cell in found]
                lines.append(
                    f"| {name} | {sparsity:.0%} | {_percent(known['dense'])} | "
                    f"{_percent(known['pruned'])} | {retrained[0]} | {retrained[1]} |"
                )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


if __name__ == "__main__":
    main()
