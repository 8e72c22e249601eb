"""Accuracy of real models without some of their channels: alone, refitted, and fine-tuned.

    python -m benchmarks.channels_recovery                 all cells that are not in the results yet
    python -m benchmarks.channels_recovery --modes alone refit         the quick ones
    python -m benchmarks.channels_recovery --models vnn23_vit_ibp_3_3_8 --shares 0.5

`alone` removes channels by the norms of their weights; `refit` looks at 512 unlabelled training
images, chooses by what reaches the outputs and refits what stays; `fine-tuned` trains the refitted
model on the training set by labels. The test set is measured at the end and decides nothing.
Results are kept after every cell in benchmarks/results/channels_recovery.json; a run that was
stopped goes on where it was. ``--table`` prints what docs/results.md shows. Models and data: see
benchmarks/zoo_data.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import onnxprune
from benchmarks.recovery import BATCH, Recipe, training_data
from benchmarks.results_file import read_results, write_results
from benchmarks.zoo_data import PAIRS, Pair
from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import input_specs
from onnxprune.evaluation import Meter
from onnxprune.model.model import Model
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.repair.working import working_form
from onnxprune.structure.config import ChannelConfig
from onnxprune.structure.reduce import Reduced, reduce_channels

RESULTS = Path(__file__).parent / "results" / "channels_recovery.json"
SHARES = (0.25, 0.5, 0.75)
MODES = ("alone", "refit", "fine-tuned")
SAMPLES, SEED = 512, 0

RECIPES = {
    "vnn21_mnist_fc_256x4": Recipe(10, schedule="cosine"),
    "fashionmnist_edwin_cnn": Recipe(3, 3e-4, schedule="cosine"),
    "vnn21_cifar10_resnet_4b": Recipe(12, schedule="cosine", augment=True),
    "vnn23_vit_ibp_3_3_8": Recipe(12, 5e-4, schedule="cosine", augment=True),
}


def main() -> None:
    """Fill in the cells that are missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table and do nothing else")
    given = parser.parse_args()
    cells = read_results(given.results).get("cells", {})
    if given.table:
        print(table(cells))
        return
    for mode, share, name in product(given.modes, given.shares, given.models):
        key = f"{name} {share:g} {mode}"
        if key not in cells:
            cells[key] = measure(PAIRS[name], RECIPES[name], share, mode)
            write_results(given.results, {"python": platform.python_version(), "cells": cells})
        print(key, json.dumps(cells[key]), flush=True)
    print(table(cells))


def measure(pair: Pair, recipe: Recipe, share: float, mode: str) -> dict[str, Any]:
    """One cell: accuracy on the test set before and after, and what is left."""
    dense = read(pair.path)
    started = time.perf_counter()
    reduced = reduce_channels(
        dense,
        ChannelConfig(channels=share),
        None if mode == "alone" else calibration(pair, dense),
        samples=SAMPLES,
    )
    result = tuned(pair, recipe, reduced.model) if mode == "fine-tuned" else reduced.model
    seconds = time.perf_counter() - started
    meter = Meter(pair.arrays("test"))
    return {
        "dense": meter(working_form(dense)),
        "accuracy": meter(working_form(result)),
        **_facts(reduced),
        "seconds": round(seconds, 1),
    }


def calibration(pair: Pair, model: Model) -> BatchSource:
    """Some training images without their labels."""
    arrays = pair.arrays("train")
    picks = np.random.default_rng(SEED).permutation(len(arrays["labels"]))[:SAMPLES]
    inputs = {pair.input: arrays[pair.input][picks]}
    return open_source(inputs, input_specs(model.proto), labelled=False)


def tuned(pair: Pair, recipe: Recipe, model: Model) -> Model:
    """The model trained on the training set; nothing is pruned."""
    settings = onnxprune.FineTune(
        epochs=recipe.epochs,
        lr=recipe.rate,
        lr_schedule=recipe.schedule,
        batch_size=BATCH,
        loss="cross-entropy",
    )
    result = onnxprune.prune(
        to_proto(model),
        quality=0,
        train=training_data(pair, recipe, labelled=True),
        finetune=settings,
    )
    return replace(read(result.to_proto()), origin=model.origin)


def _facts(reduced: Reduced) -> dict[str, Any]:
    return {
        "macs": list(reduced.macs),
        "parameters": list(reduced.parameters),
        "kept": {row.name: [row.before, row.after] for row in reduced.rows},
    }


def table(cells: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "| model | channels removed | operations left | dense | alone | refitted | fine-tuned |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, share in product(RECIPES, SHARES):
        found = [cells.get(f"{name} {share:g} {mode}") for mode in MODES]
        known = [cell for cell in found if cell]
        if known:
            before, after = known[-1]["macs"]
            shown = " | ".join(f"{100 * c['accuracy']:.2f} %" if c else "-" for c in found)
            lines.append(
                f"| {name} | {share:.0%} | {after / before:.0%} |"
                f" {100 * known[0]['dense']:.2f} % | {shown} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
