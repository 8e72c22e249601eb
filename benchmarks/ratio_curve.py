"""How small real models become: accuracy over parameter ratio, by one command for all of them.

    python -m benchmarks.ratio_curve                    all cells that are not in the results yet
    python -m benchmarks.ratio_curve --models vnn21_mnist_fc_256x2 --ratios 10 20
    python -m benchmarks.ratio_curve --table            the table of docs/results.md
    python -m benchmarks.ratio_curve --picture docs/ratio_curve.svg

Models of other people are pruned gradually by Fisher information while they are retrained on their
training set, less its last tenth. The largest ratio that loses at most half a point on that tenth
is the one of the table, with its command; the test set is measured for every ratio and decides
nothing. Results are kept after every cell in benchmarks/results/ratio_curve.json, and a cell whose
command is another one now is measured again. Models and data: see benchmarks/zoo_data.py.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import onnxprune
from benchmarks.curve_picture import Curve, curve_svg
from benchmarks.results_file import read_results, write_results
from benchmarks.zoo_data import PAIRS, Arrays, Pair
from onnxprune.evaluation import Meter
from onnxprune.model.sources import read

RESULTS = Path(__file__).parent / "results" / "ratio_curve.json"
RATIOS = (5, 10, 20, 40, 80)
#: Epochs, by how long one takes and how much data there is.
EPOCHS = {
    "vnn21_mnist_fc_256x2": 20,
    "fashionmnist_edwin_cnn": 6,
    "vnn21_cifar10_resnet_4b": 12,
    "vnn21_cifar10_medium": 20,
}
BATCH, RATE = 128, 1e-3
LOSS = 0.005  # the most that may be lost: half a point

Cells = dict[str, Any]


def main() -> None:
    """Fill in the cells that are missing, or show them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--ratios", nargs="+", type=float, default=list(RATIOS))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table, do nothing else")
    parser.add_argument("--picture", type=Path, help="draw the curves, do nothing else")
    given = parser.parse_args()
    cells = read_results(given.results)
    if given.picture:
        if not cells:
            parser.error("there are no results to draw yet")
        given.picture.write_text(picture(cells), encoding="utf-8")
        return
    for name, ratio in [] if given.table else product(given.models, given.ratios):
        key = f"{name} {ratio:g}"
        if cells.get(key, {}).get("command") != command(name, ratio):
            cells[key] = measure(PAIRS[name], ratio)
            write_results(given.results, cells)
        print(key, json.dumps(cells[key]), flush=True)
    print(table(cells))


def settings(name: str, ratio: float) -> Cells:
    """What a model is pruned with, by the names of flags."""
    return {
        "sparsity": round(1 - 1 / ratio, 5),
        "method": "gradual",
        "saliency": "fisher",
        "epochs": EPOCHS[name],
        "lr": RATE,
        "batch_size": BATCH,
    }


def command(name: str, ratio: float) -> str:
    """The same as a command line."""
    flags = [f"--{flag.replace('_', '-')} {value}" for flag, value in settings(name, ratio).items()]
    return " ".join([f"onnxprune {name}.onnx --train train.npz", *flags, "--format gaps"])


def measure(pair: Pair, ratio: float) -> Cells:
    """One cell: accuracy on the images held out and on the test set, before and after."""
    train = pair.arrays("train")
    first = len(train["labels"]) * 9 // 10
    held = Meter({name: array[first:] for name, array in train.items()})
    test = Meter(pair.arrays("test"))
    source = read(pair.path)
    started = time.perf_counter()
    how = settings(pair.model, ratio)
    result = onnxprune.prune(
        pair.path,
        sparsity=how.pop("sparsity"),
        train=_first(train, first),
        finetune=onnxprune.FineTune(**how),
        format="gaps",
    )
    seconds = time.perf_counter() - started
    report, pruned = result.report, read(result.to_proto())
    return {
        "command": command(pair.model, ratio),
        "held_out": [held(source), held(pruned)],
        "test": [test(source), test(pruned)],
        "weights": report.weights,
        "kept": report.kept,
        "bytes": [report.sizes.file_input, report.sizes.file_output],
        "seconds": round(seconds, 1),
    }


def _first(arrays: Arrays, count: int) -> Arrays:
    return {name: array[:count] for name, array in arrays.items()}


def table(cells: Mapping[str, Any]) -> str:
    """Of each model, the largest ratio that is within the bound on the images held out."""
    lines = [
        "| model | dense, test | pruned, test | weights ratio | file ratio | minutes |",
        "|---|---|---|---|---|---|",
    ]
    commands = []
    for name in EPOCHS:
        good = [cell for cell in _cells(cells, name) if lost(cell) <= LOSS]
        if good:
            best = min(good, key=lambda cell: cell["kept"])
            before, after = (f"{100 * value:.2f} %" for value in best["test"])
            ratio, size = best["weights"] / best["kept"], best["bytes"][0] / best["bytes"][1]
            minutes = f"{best['seconds'] / 60:.1f}"
            lines.append(f"| {name} | {before} | {after} | {ratio:.1f} | {size:.1f} | {minutes} |")
            commands.append(f"    {best['command']}")
    return "\n".join([*lines, "", *commands])


def picture(cells: Mapping[str, Any]) -> str:
    """Accuracy on the test set over ratio, as SVG."""
    curves = []
    for name in EPOCHS:
        if found := _cells(cells, name):
            points = [(1.0, 100 * found[0]["test"][0])]
            points += [(cell["weights"] / cell["kept"], 100 * cell["test"][1]) for cell in found]
            curves.append(Curve(name, tuple(points)))
    return curve_svg(curves, "weights before / weights left", "top-1 accuracy on the test set, %")


def lost(cell: Mapping[str, Any]) -> float:
    """Accuracy lost on the images held out."""
    before, after = cell["held_out"]
    return float(before - after)


def _cells(cells: Mapping[str, Any], name: str) -> list[Any]:
    found = [cell for key, cell in cells.items() if key.split()[0] == name]
    return sorted(found, key=lambda cell: -int(cell["kept"]))


if __name__ == "__main__":
    main()
